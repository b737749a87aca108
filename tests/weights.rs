//! Weight files: every format, every way to be wrong.

use crate::common::{Scratch, golden_dir, refused, succeeded};
use bitfit::base::BaseFiles;
use bitfit::models::{Architecture, Name, classify};
use bitfit::weights::Weights;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use tch::{Device, Kind, Tensor};

fn tensors() -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(golden_dir().join("tiny-bert/model.safetensors"))
        .unwrap()
        .into_iter()
        .collect()
}

fn save(tensors: &BTreeMap<String, Tensor>, path: &Path) {
    Tensor::write_safetensors(&tensors.iter().collect::<Vec<_>>(), path).unwrap();
}

/// What reading the base after `change` says.
fn error_after(change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> String {
    let scratch = Scratch::new();
    let mut tensors = tensors();
    change(&mut tensors);
    save(&tensors, &scratch.path("base/model.safetensors"));
    let error = match BaseFiles::read(&scratch.path("base"), None) {
        Err(error) => error,
        Ok(files) => files.build(2, None, Device::Cpu).unwrap_err(),
    };
    let message = error.to_string();
    assert!(message.contains("base/model.safetensors"), "{message}");
    message
}

#[test]
fn a_missing_an_unexpected_and_a_wrong_tensor_are_named() {
    let name = "encoder.layer.1.output.dense.bias";
    let message = error_after(|t| drop(t.remove(name)));
    assert!(
        message.contains(name) && message.contains("[32]") && message.contains("no such tensor"),
        "{message}"
    );
    let message = error_after(|t| {
        drop(t.insert(
            "encoder.layer.1.output.gate".into(),
            Tensor::zeros([3], (Kind::Float, Device::Cpu)),
        ))
    });
    assert!(
        message.contains("encoder.layer.1.output.gate") && message.contains("[3]"),
        "{message}"
    );
    let message = error_after(|t| {
        drop(t.insert(name.into(), Tensor::zeros([1], (Kind::Float, Device::Cpu))))
    });
    assert!(
        message.contains(name) && message.contains("[32]") && message.contains("[1]"),
        "{message}"
    );
    let message = error_after(|t| {
        drop(t.insert(name.into(), Tensor::zeros([32], (Kind::Double, Device::Cpu))))
    });
    assert!(
        message.contains(name) && message.contains("float32") && message.contains("Double"),
        "{message}"
    );
}

#[test]
fn old_names_prefixes_and_other_heads_are_understood() {
    let new = tensors();
    let scratch = Scratch::new();
    let mut old: BTreeMap<String, Tensor> = new
        .iter()
        .map(|(name, tensor)| {
            let name = name
                .replace("LayerNorm.weight", "LayerNorm.gamma")
                .replace("LayerNorm.bias", "LayerNorm.beta");
            (format!("bert.{name}"), tensor.shallow_clone())
        })
        .collect();
    old.insert("cls.predictions.bias".into(), Tensor::zeros([120], (Kind::Float, Device::Cpu)));
    old.insert(
        "bert.embeddings.position_ids".into(),
        Tensor::arange(40, (Kind::Int64, Device::Cpu)),
    );
    save(&old, &scratch.path("old.safetensors"));
    let read = |path: &Path| Weights::read(Architecture::Bert, path).unwrap().fingerprint;
    assert_eq!(
        read(&scratch.path("old.safetensors")),
        read(&golden_dir().join("tiny-bert/model.safetensors"))
    );
    assert_eq!(classify(Architecture::Bert, "classifier.weight"), Name::Unused);
    let expected = Name::Encoder("bert.embeddings.LayerNorm.bias".into());
    assert_eq!(classify(Architecture::Bert, "embeddings.LayerNorm.beta"), expected);
    // Both spellings of one tensor are one too many.
    let mut both = tensors();
    both.insert(
        "embeddings.LayerNorm.beta".into(),
        Tensor::zeros([32], (Kind::Float, Device::Cpu)),
    );
    save(&both, &scratch.path("both.safetensors"));
    let error = Weights::read(Architecture::Bert, &scratch.path("both.safetensors"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("LayerNorm.b") && error.contains("one name"), "{error}");
}

#[test]
fn half_precision_is_widened() {
    let scratch = Scratch::new();
    let half: BTreeMap<String, Tensor> =
        tensors().into_iter().map(|(n, t)| (n, t.to_kind(Kind::BFloat16))).collect();
    let wide: BTreeMap<String, Tensor> =
        half.iter().map(|(n, t)| (n.clone(), t.to_kind(Kind::Float))).collect();
    save(&wide, &scratch.path("wide.safetensors"));
    // tch writes no bfloat16, so the file is put together here.
    let mut header = serde_json::Map::new();
    let mut body: Vec<u8> = vec![];
    for (name, tensor) in &half {
        let start = body.len();
        body.resize(start + 2 * tensor.numel(), 0);
        tensor.copy_data_u8(&mut body[start..], tensor.numel());
        let info = serde_json::json!({"dtype": "BF16", "shape": tensor.size(), "data_offsets": [start, body.len()]});
        header.insert(name.clone(), info);
    }
    let header = serde_json::Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &body].concat();
    let path = scratch.write("half.safetensors", file);
    let read = |path: &Path| Weights::read(Architecture::Bert, path).unwrap().fingerprint;
    assert_eq!(read(&path), read(&scratch.path("wide.safetensors")));
}

#[test]
fn every_format_of_one_base_has_one_fingerprint() {
    let scratch = Scratch::new();
    succeeded(&scratch.bitfit(&["convert", "--model", "base", "--output", "base/model.ot"]));
    let read =
        |name: &str| Weights::read(Architecture::Bert, &scratch.path(name)).unwrap().fingerprint;
    assert_eq!(read("base/model.ot"), read("base/model.safetensors"));
    let files = BaseFiles::read(&scratch.path("base"), None).unwrap();
    let base = files.build(3, None, Device::Cpu).unwrap();
    assert!(base.file.ends_with("model.ot"), "the archive comes first: {}", base.file.display());
    for (name, tensor) in tensors() {
        assert_eq!(base.store.variables()[&format!("bert.{name}")], tensor, "{name}");
    }
    // What torch.save made of it, beside the others.
    std::fs::copy(golden_dir().join("tiny-bert.bin"), scratch.path("base/pytorch_model.bin"))
        .unwrap();
    assert_eq!(read("base/pytorch_model.bin"), read("base/model.safetensors"));
    BaseFiles::read(&scratch.path("base"), None).unwrap();
    // One that cannot be read is passed over where another is there.
    scratch.write("base/pytorch_model.bin", "of PyTorch before 1.6");
    BaseFiles::read(&scratch.path("base"), None).unwrap();
    std::fs::remove_file(scratch.path("base/pytorch_model.bin")).unwrap();
    // Of two models, neither is taken.
    let mut other = tensors();
    let _ = other.get_mut("pooler.dense.bias").unwrap().g_add_scalar_(1e-3);
    save(&other, &scratch.path("base/model.safetensors"));
    let error = BaseFiles::read(&scratch.path("base"), None).unwrap_err().to_string();
    assert!(
        error.contains("two weight files")
            && error.contains("model.ot")
            && error.contains("model.safetensors"),
        "{error}"
    );
    assert!(
        BaseFiles::read(&scratch.path("base"), Some("model.ot")).is_ok(),
        "unless one is named"
    );
}

#[test]
fn an_archive_is_checked_against_its_fingerprint() {
    let scratch = Scratch::new();
    succeeded(&scratch.bitfit(&["convert", "--model", "base", "--output", "base/model.ot"]));
    let mut named = Tensor::load_multi(scratch.path("base/model.ot")).unwrap();
    let tensor =
        &mut named.iter_mut().find(|(name, _)| name == "bert.pooler.dense.bias").unwrap().1;
    let _ = tensor.g_add_scalar_(1.0);
    Tensor::save_multi(&named, scratch.path("base/model.ot")).unwrap();
    let error =
        Weights::read(Architecture::Bert, &scratch.path("base/model.ot")).unwrap_err().to_string();
    assert!(error.contains("model.ot") && error.contains("damaged"), "{error}");
}

#[test]
fn truncated_and_foreign_files_are_errors() {
    let scratch = Scratch::new();
    succeeded(&scratch.bitfit(&["convert", "--model", "base", "--output", "base/model.ot"]));
    let refuse = |name: &str, bytes: &[u8]| {
        let path = scratch.write(name, bytes);
        let error = Weights::read(Architecture::Bert, &path).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        error
    };
    for name in ["base/model.safetensors", "base/model.ot"] {
        let whole = std::fs::read(scratch.path(name)).unwrap();
        let ending = name.rsplit('.').next().unwrap();
        for length in [0, 4, 8, 100, whole.len() / 2, whole.len() - 1] {
            refuse(&format!("cut.{ending}"), &whole[..length]);
        }
    }
    let pickled = std::fs::read(golden_dir().join("tiny-bert.bin")).unwrap();
    for length in [0, 8, 100, pickled.len() / 2, pickled.len() - 1] {
        refuse("cut.bin", &pickled[..length]);
    }
    // Whatever byte of the pickle is wrong, with the archive's checksums right: an error or other tensors, but no panic.
    let pickle = member(&pickled, "data.pkl");
    let mut refused = 0;
    for i in 0..pickle.len() {
        for flip in [0x01, 0x55, 0xff] {
            let mut bytes = pickle.clone();
            bytes[i] ^= flip;
            let path = scratch.write("flipped.bin", with_member(&pickled, "data.pkl", &bytes));
            refused += usize::from(Weights::read(Architecture::Bert, &path).is_err());
        }
    }
    assert!(refused > pickle.len(), "most of them are errors: {refused} of {}", 3 * pickle.len());
    let refuse_member = |name: &str, bytes: &[u8], part: &str| {
        let error = refuse("member.bin", &with_member(&pickled, name, bytes));
        assert!(error.contains(part), "expected {part:?} in: {error}");
    };
    refuse_member("byteorder", b"big", "little-endian");
    refuse_member("data.pkl", &[b'N'; 5_000_000], "more than 4000000");
    refuse_member("data.pkl", b"\x80\x02}X\x01\x00\x00\x00a}s.", "a is a dict");
    refuse_member("data.pkl", b"\x80\x02}X\x01\x00\x00\x00aNs.", "not a dense tensor");
    refuse_member("data.pkl", b"\x80\x02].", "not a dict");
    refuse_member("other/data.pkl", b"\x80\x02}.", "more than one data.pkl");
    refuse("text.safetensors", b"no tensors here at all");
    refuse("huge.safetensors", &u64::MAX.to_le_bytes());
    let error = refuse("text.bin", b"no pickle");
    assert!(error.contains("save_file"), "the way out is named: {error}");
    let error = BaseFiles::read(&scratch.path("nowhere"), None).unwrap_err().to_string();
    assert!(error.contains("no such directory"), "{error}");
    std::fs::remove_file(scratch.path("base/model.ot")).unwrap();
    std::fs::remove_file(scratch.path("base/model.safetensors")).unwrap();
    let error = BaseFiles::read(&scratch.path("base"), None).unwrap_err().to_string();
    assert!(error.contains("pytorch_model.bin"), "{error}");
}

#[test]
fn a_base_without_a_pooler_gets_a_new_one() {
    let scratch = Scratch::new();
    let mut tensors = tensors();
    tensors.retain(|name, _| !name.starts_with("pooler"));
    save(&tensors, &scratch.path("base/model.safetensors"));
    let base =
        BaseFiles::read(&scratch.path("base"), None).unwrap().build(2, None, Device::Cpu).unwrap();
    let expected = [
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "classifier.bias",
        "classifier.weight",
    ];
    assert_eq!(base.new, expected);
    // It trains whole and travels with the task.
    succeeded(&scratch.train(&[]));
    let delta = bitfit::delta::Delta::read(&scratch.path("run/delta.safetensors")).unwrap();
    assert!(expected.iter().all(|name| delta.tensors.contains_key(*name)));
    succeeded(&scratch.bitfit(&["eval", "--run", "run"]));
}

#[test]
fn a_config_json_that_is_not_a_bert_is_refused() {
    let scratch = Scratch::new();
    let config = std::fs::read_to_string(scratch.path("base/config.json")).unwrap();
    for (from, to, parts) in [
        ("\"bert\"", "\"gpt2\"", ["model_type", "gpt2", "bert, distilbert, roberta"]),
        ("\"bert\"", "\"xlm-roberta\"", ["model_type", "xlm-roberta", "XLM-R"]),
        (
            "{",
            "{\"tokenizer_class\": \"PhobertTokenizer\",",
            ["tokenizer_class", "PhobertTokenizer", "PhoBERT"],
        ),
        ("{", "{\"is_decoder\": true,", ["is_decoder", "true", "an encoder"]),
        (
            "\"hidden_dropout_prob\": 0.1",
            "\"hidden_dropout_prob\": 1.5",
            ["hidden_dropout_prob", "1.5", "below 1"],
        ),
        // Sizes that are allowed and absurd: the weights are compared before anything is allocated.
        (
            "\"vocab_size\": 120",
            "\"vocab_size\": 16777216",
            ["word_embeddings", "[16777216, 32]", "[120, 32]"],
        ),
        (
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": 1000",
            ["layer.3.", "[32, 32]", "no such tensor"],
        ),
        (
            "\"hidden_size\": 32",
            "\"hidden_size\": 65536",
            ["word_embeddings", "65536", "[120, 32]"],
        ),
        ("\"hidden_size\": 32", "\"hidden_size\": 33", ["num_attention_heads", "4", "33"]),
        ("\"hidden_size\": 32", "\"hidden_size\": -1", ["hidden_size", "-1", "1 to"]),
        ("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"relu2\"", ["hidden_act", "relu2", "gelu"]),
        (
            "\"vocab_size\": 120",
            "\"vocab_size\": \"many\"",
            ["config.json", "many", "a whole number from 1"],
        ),
        (
            "\"vocab_size\": 120",
            "\"vocab_sizes\": 120",
            ["vocab_size = 30522", "word_embeddings", "[120, 32]"],
        ),
        (
            "\"absolute\"",
            "\"relative_key\"",
            ["position_embedding_type", "relative_key", "absolute"],
        ),
        ("{", "", ["config.json", "line", "column"]),
    ] {
        assert!(config.contains(from), "{from}");
        scratch.write("base/config.json", config.replacen(from, to, 1));
        refused(&scratch.bitfit(&["inspect", "--model", "base"]), 1, &parts);
    }
}

/// A member of a zip archive.
fn member(archive: &[u8], name: &str) -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(archive)).unwrap();
    let full = archive.file_names().find(|n| n.ends_with(&format!("/{name}"))).unwrap().to_owned();
    let mut bytes = vec![];
    archive.by_name(&full).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// The archive with one member replaced, or added.
fn with_member(archive: &[u8], name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut old = zip::ZipArchive::new(std::io::Cursor::new(archive)).unwrap();
    let mut new = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
    let options =
        zip::write::FileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut replaced = false;
    for i in 0..old.len() {
        let mut entry = old.by_index(i).unwrap();
        new.start_file(entry.name(), options).unwrap();
        if entry.name().ends_with(&format!("/{name}")) {
            replaced = true;
            new.write_all(bytes).unwrap();
        } else {
            std::io::copy(&mut entry, &mut new).unwrap();
        }
    }
    if !replaced {
        new.start_file(name, options).unwrap();
        new.write_all(bytes).unwrap();
    }
    new.finish().unwrap().into_inner()
}

#[test]
fn inspecting_a_small_base_takes_little_memory() {
    let (output, peak_mib) = Scratch::new().bitfit_measured(&["inspect", "--model", "base"]);
    succeeded(&output);
    // libtorch alone takes some 150 MiB: less was not measured.
    assert!((20..1024).contains(&peak_mib), "{peak_mib} MiB");
}
