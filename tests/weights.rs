//! Weight files: every format, every way to be wrong.

use crate::common::{Scratch, architecture, golden_dir, refused, stderr, succeeded};
use bitfit::internal::base::Base;
use bitfit::internal::models::{ModelConfig, Name, classify};
use bitfit::internal::nn::Pooling;
use bitfit::internal::task_model::TaskModel;
use bitfit::internal::weights::Weights;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor, nn};

/// The random BERT's weights, from a file of them.
fn tiny(path: &Path) -> bitfit::internal::error::Result<Weights> {
    Weights::read(&ModelConfig::read(&golden_dir().join("tiny-bert"), || Ok(vec![]))?, path)
}

/// A file of scripts/make_golden_weights.py: the small BERT in some form.
fn form(name: &str) -> PathBuf {
    golden_dir().join("weights").join(name)
}

/// The small BERT's weights, from a file of them.
fn small(path: &Path) -> bitfit::internal::error::Result<Weights> {
    Weights::read(&ModelConfig::read(&golden_dir().join("weights"), || Ok(vec![]))?, path)
}

/// A directory `small` with the small BERT's configuration and these files of it, under their names
/// there.
fn small_base(files: &[(&str, &str)]) -> Scratch {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("small")).unwrap();
    let beside = ["config.json", "vocab.txt", "tokenizer_config.json"].map(|name| (name, name));
    for (from, to) in beside.iter().chain(files) {
        std::fs::copy(form(from), scratch.path("small").join(to)).unwrap();
    }
    scratch
}

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
    let error = Base::read(&scratch.path("base"), None, Device::Cpu).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("base/model.safetensors"), "{message}");
    message
}

#[test]
fn a_missing_and_a_wrong_tensor_are_named() {
    let name = "encoder.layer.1.output.dense.bias";
    let message = error_after(|t| drop(t.remove(name)));
    assert!(
        message.contains(name) && message.contains("[32]") && message.contains("no such tensor"),
        "{message}"
    );
    for wrong in [
        Tensor::zeros([1], (Kind::Float, Device::Cpu)),
        Tensor::zeros([1], (Kind::Double, Device::Cpu)),
    ] {
        let message = error_after(|t| drop(t.insert(name.into(), wrong)));
        assert!(
            message.contains(name) && message.contains("[32]") && message.contains("[1]"),
            "{message}"
        );
    }
    let message = error_after(|t| {
        drop(t.insert(name.into(), Tensor::zeros([32], (Kind::Int64, Device::Cpu))))
    });
    assert!(
        message.contains(name) && message.contains("float32") && message.contains("I64"),
        "{message}"
    );
}

#[test]
fn tensors_that_nothing_reads_are_left_aside_with_one_warning_but_for_whole_layers() {
    let scratch = Scratch::new();
    let fingerprint = tiny(&scratch.path("base/model.safetensors")).unwrap().fingerprint;
    let mut more = tensors();
    let long = "z".repeat(100_000);
    for (name, kind) in [
        ("encoder.layer.1.output.gate", Kind::Float),
        ("embeddings.more.weight", Kind::Bool),
        ("encoder.relative.weight", Kind::Int8),
        ("bert.pooler.scale", Kind::Double),
        ("something\u{1b}[2J else", Kind::Int16),
        (long.as_str(), Kind::Half),
    ] {
        more.insert(name.into(), Tensor::zeros([3], (kind, Device::Cpu)));
    }
    save(&more, &scratch.path("base/model.safetensors"));
    assert_eq!(tiny(&scratch.path("base/model.safetensors")).unwrap().fingerprint, fingerprint);
    let output = scratch.bitfit(&["inspect", "--model", "base"]);
    succeeded(&output);
    let said = stderr(&output);
    assert_eq!(said.matches("WARN").count(), 1, "{said}");
    assert!(
        said.contains("6 tensors are not used, such as bert.pooler.scale") && said.len() < 1_000,
        "{said}"
    );
    // Layers that config.json does not know of are said to be unused.
    let layer = |(name, tensor): (&String, &Tensor)| {
        let rest = name.strip_prefix("encoder.layer.2.")?;
        Some((format!("encoder.layer.3.{rest}"), tensor.shallow_clone()))
    };
    let mut deeper = tensors();
    deeper.extend(tensors().iter().filter_map(layer));
    save(&deeper, &scratch.path("base/model.safetensors"));
    assert_eq!(tiny(&scratch.path("base/model.safetensors")).unwrap().fingerprint, fingerprint);
    let said = stderr(&scratch.bitfit(&["inspect", "--model", "base"]));
    assert!(said.contains("more layers than are used: config.json says num_hidden_layers = 3"));
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
    let read = |path: &Path| tiny(path).unwrap().fingerprint;
    assert_eq!(
        read(&scratch.path("old.safetensors")),
        read(&golden_dir().join("tiny-bert/model.safetensors"))
    );
    assert_eq!(classify(architecture("bert"), "classifier.weight"), Name::Unused);
    let expected = Name::Encoder("bert.embeddings.LayerNorm.bias".into());
    assert_eq!(classify(architecture("bert"), "embeddings.LayerNorm.beta"), expected);
    // Both spellings of one tensor are one too many.
    let mut both = tensors();
    both.insert(
        "embeddings.LayerNorm.beta".into(),
        Tensor::zeros([32], (Kind::Float, Device::Cpu)),
    );
    save(&both, &scratch.path("both.safetensors"));
    let error = tiny(&scratch.path("both.safetensors")).unwrap_err().to_string();
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
    let read = |path: &Path| tiny(path).unwrap().fingerprint;
    assert_eq!(read(&path), read(&scratch.path("wide.safetensors")));
}

#[test]
fn every_format_of_one_base_has_one_fingerprint() {
    let scratch = Scratch::new();
    succeeded(&scratch.bitfit(&["convert", "--model", "base", "--output", "base/model.ot"]));
    let read = |name: &str| tiny(&scratch.path(name)).unwrap().fingerprint;
    assert_eq!(read("base/model.ot"), read("base/model.safetensors"));
    let shared = Base::read(&scratch.path("base"), None, Device::Cpu).unwrap();
    let base = TaskModel::new(&shared, 3, Pooling::First, None).unwrap();
    assert!(
        base.base.file.ends_with("model.ot"),
        "the archive comes first: {}",
        base.base.file.display()
    );
    for (name, tensor) in tensors() {
        assert_eq!(base.store.variables()[&format!("bert.{name}")], tensor, "{name}");
    }
    // What torch.save made of it, beside the others.
    std::fs::copy(golden_dir().join("tiny-bert.bin"), scratch.path("base/pytorch_model.bin"))
        .unwrap();
    assert_eq!(read("base/pytorch_model.bin"), read("base/model.safetensors"));
    Base::read(&scratch.path("base"), None, Device::Cpu).unwrap();
    // One that cannot be read is passed over where another is there.
    scratch.write("base/pytorch_model.bin", "no pickle");
    Base::read(&scratch.path("base"), None, Device::Cpu).unwrap();
    std::fs::remove_file(scratch.path("base/pytorch_model.bin")).unwrap();
    // Of two models, neither is taken.
    let mut other = tensors();
    let _ = other.get_mut("pooler.dense.bias").unwrap().g_add_scalar_(1e-3);
    save(&other, &scratch.path("base/model.safetensors"));
    let error = Base::read(&scratch.path("base"), None, Device::Cpu).unwrap_err().to_string();
    assert!(
        error.contains("two weight files")
            && error.contains("model.ot")
            && error.contains("model.safetensors"),
        "{error}"
    );
    assert!(
        Base::read(&scratch.path("base"), Some("model.ot"), Device::Cpu).is_ok(),
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
    let error = tiny(&scratch.path("base/model.ot")).unwrap_err().to_string();
    assert!(error.contains("model.ot") && error.contains("damaged"), "{error}");
}

#[test]
fn truncated_and_foreign_files_are_errors() {
    let scratch = Scratch::new();
    succeeded(&scratch.bitfit(&["convert", "--model", "base", "--output", "base/model.ot"]));
    let refuse = |name: &str, bytes: &[u8]| {
        let path = scratch.write(name, bytes);
        let error = tiny(&path).unwrap_err().to_string();
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
    let refuse_member = |name: &str, bytes: &[u8], part: &str| {
        let error = refuse("member.bin", &with_member(&pickled, name, bytes));
        assert!(error.contains(part), "expected {part:?} in: {error}");
    };
    refuse_member("byteorder", b"big", "little-endian");
    refuse_member("data.pkl", &[b'N'; 5_000_000], "expected at most 4000000");
    refuse_member(
        "data.pkl",
        b"\x80\x02}X\x01\x00\x00\x00a}s.",
        "no tensors where a model has tensors",
    );
    refuse_member("data.pkl", b"\x80\x02].", "neither a dict of tensors");
    refuse_member("other/data.pkl", b"\x80\x02}.", "more than one data.pkl");
    refuse("text.safetensors", b"no tensors here at all");
    refuse("huge.safetensors", &u64::MAX.to_le_bytes());
    let error = refuse("text.bin", b"no pickle");
    assert!(error.contains("save_pretrained"), "the way out is named: {error}");
    let error = Base::read(&scratch.path("nowhere"), None, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("no such directory"), "{error}");
    std::fs::remove_file(scratch.path("base/model.ot")).unwrap();
    std::fs::remove_file(scratch.path("base/model.safetensors")).unwrap();
    let error = Base::read(&scratch.path("base"), None, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("pytorch_model.bin"), "{error}");
}

/// Whatever byte is wrong in a file without checksums: an error or other tensors, but no panic.
#[test]
fn no_byte_of_pytorchs_forms_is_trusted() {
    let scratch = Scratch::new();
    // Steps that meet each kind of byte and take little time; fuzz/ tries all of them.
    for (name, step) in [("unchecked.bin", 7), ("legacy-4.bin", 7), ("tar.bin", 13)] {
        let whole = std::fs::read(form(name)).unwrap();
        let (mut refused, mut read) = (0, 0);
        for i in (0..whole.len()).step_by(step) {
            let mut bytes = whole.clone();
            bytes[i] ^= [0x01, 0x55, 0xff][i / step % 3];
            match small(&scratch.write("flipped.bin", bytes)) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 50 && read > 50, "{name}: {refused} refused, {read} read");
    }
}

#[test]
fn a_tensor_that_is_stored_negated_is_refused() {
    let error = small(&form("negated.bin")).unwrap_err().to_string();
    assert!(error.contains("query.weight") && error.contains("negated"), "{error}");
}

#[test]
fn another_architectures_weights_are_none() {
    let message = error_after(|t| {
        *t = t.iter().map(|(name, t)| (format!("roberta.{name}"), t.shallow_clone())).collect();
    });
    assert!(message.contains("no such tensor"), "{message}");
}

/// What reading an archive with this pickle says, which PyTorch would not write.
fn pickled(scratch: &Scratch, parts: &[&[u8]]) -> String {
    let archive = std::fs::read(form("unchecked.bin")).unwrap();
    let archive = with_member(&archive, "data.pkl", &parts.concat());
    tiny(&scratch.write("hostile.bin", archive)).unwrap_err().to_string()
}

#[test]
fn a_pickle_that_names_one_object_often_takes_neither_memory_nor_time() {
    let scratch = Scratch::new();
    let began = std::time::Instant::now();
    // A list of half a million names as a module's class, a hundred thousand times: 400 GB, were
    // each a copy.
    let start: &[u8] = b"\x80\x02X\x01\0\0\0aq\0](";
    let class = b"eq\x02(X\x06\0\0\0moduleh\x02tq\x01(";
    let parts = [start, &b"h\0".repeat(500_000), class, &b"h\x01Q".repeat(100_000), b"t."];
    pickled(&scratch, &parts);
    // A module of 200,000 attributes, 200,000 times.
    let start: &[u8] = b"\x80\x02X\x01\0\0\0aq\0cx\ny\n)\x81}(";
    let parts =
        [start, &b"h\0h\0".repeat(200_000), b"ubq\x01}(", &b"h\0h\x01".repeat(200_000), b"u."];
    let error = pickled(&scratch, &parts);
    assert!(error.contains("more names than any model has"), "{error}");
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

#[test]
fn a_base_without_a_pooler_gets_a_new_one() {
    let scratch = Scratch::new();
    let mut tensors = tensors();
    tensors.retain(|name, _| !name.starts_with("pooler"));
    save(&tensors, &scratch.path("base/model.safetensors"));
    let base = TaskModel::new(
        &Base::read(&scratch.path("base"), None, Device::Cpu).unwrap(),
        2,
        Pooling::First,
        None,
    )
    .unwrap();
    let expected = [
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "classifier.bias",
        "classifier.weight",
    ];
    assert_eq!(base.new, expected);
    // It trains whole and travels with the task.
    succeeded(&scratch.train(&[]));
    let delta =
        bitfit::internal::delta::Delta::read(&scratch.path("run/delta.safetensors")).unwrap();
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

/// The archive with one member replaced, or added.
fn with_member(archive: &[u8], name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut old = zip::ZipArchive::new(std::io::Cursor::new(archive)).unwrap();
    let mut new = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut replaced = false;
    for i in 0..old.len() {
        let entry = old.by_index_raw(i).unwrap();
        let full = entry.name().unwrap().into_owned();
        if full.ends_with(&format!("/{name}")) {
            replaced = true;
            new.start_file(full.as_str(), options).unwrap();
            new.write_all(bytes).unwrap();
        } else {
            new.raw_copy_file(entry).unwrap();
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

#[test]
fn every_form_that_pytorch_writes_is_read() {
    let expected = small(&form("model.safetensors")).unwrap().fingerprint;
    for name in [
        "protocol-1.bin",
        "protocol-2.bin",
        "protocol-4.bin",
        "protocol-5.bin",
        "legacy.bin",
        "legacy-4.bin",
        "legacy-views.bin",
        "tar.bin",
        "masked-lm.bin",
        "views.bin",
        "mixed.bin",
        "lightning.bin",
        "module.bin",
        "unchecked.bin",
        "float64.safetensors",
        "float64.bin",
        "scripted.ot",
        "traced.ot",
        "named.ot",
        "hostile.ot",
        "sharded-safetensors/model.safetensors.index.json",
        "sharded-bin/pytorch_model.bin.index.json",
    ] {
        let found = small(&form(name)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found.fingerprint, expected, "{name}");
    }
    let rounded = small(&form("rounded.safetensors")).unwrap().fingerprint;
    assert_eq!(rounded, small(&form("rounded-float32.safetensors")).unwrap().fingerprint);
    assert_ne!(rounded, expected);
    let error = |name: &str| small(&form(name)).unwrap_err().to_string();
    let way_out = "AutoModel.from_pretrained(DIR).save_pretrained(DIR)";
    let one_of = "torch.save(torch.load(FILE)[KEY], FILE)";
    for (name, part, way_out) in
        [("two-models.bin", "teacher and student", one_of), ("deflated.bin", "compressed", way_out)]
    {
        let error = error(name);
        assert!([name, part, way_out].iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn a_model_in_any_form_is_used() {
    for (from, to, word) in [
        ("legacy.bin", "pytorch_model.bin", ""),
        ("float64.safetensors", "model.safetensors", "rounded to float32"),
        ("traced.ot", "model.ot", ""),
    ] {
        let scratch = small_base(&[(from, to)]);
        let output = scratch.bitfit(&["inspect", "--model", "small"]);
        succeeded(&output);
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
        let shared = Base::read(&scratch.path("small"), None, Device::Cpu).unwrap();
        let base = TaskModel::new(&shared, 2, Pooling::First, None).unwrap();
        for (name, tensor) in Tensor::read_safetensors(form("model.safetensors")).unwrap() {
            assert_eq!(base.store.variables()[&format!("bert.{name}")], tensor, "{name}");
        }
    }
}

/// What bitfit converts, programs on tch load: the same names, the same numbers.
#[test]
fn a_var_store_loads_what_was_converted() {
    let scratch = small_base(&[("legacy.bin", "pytorch_model.bin")]);
    succeeded(&scratch.bitfit(&["convert", "--model", "small", "--output", "small/model.ot"]));
    let mut store = nn::VarStore::new(Device::Cpu);
    let expected = Tensor::read_safetensors(form("model.safetensors")).unwrap();
    for (name, tensor) in &expected {
        let mut parts: Vec<&str> = name.split('.').collect();
        let leaf = parts.pop().unwrap();
        let path = parts.iter().fold(store.root() / "bert", |path, part| path / *part);
        let _ = path.zeros(leaf, &tensor.size());
    }
    store.load(scratch.path("small/model.ot")).unwrap();
    for (name, tensor) in expected {
        assert_eq!(store.variables()[&format!("bert.{name}")], tensor, "{name}");
    }
}

/// What an archive's code would do where torch.jit.load runs it: write a file, never end, overflow
/// the stack.
#[test]
fn an_archives_code_is_never_looked_at() {
    let scratch = small_base(&[("hostile.ot", "model.ot")]);
    let archive = std::fs::read(form("hostile.ot")).unwrap();
    let code = format!("{}{}", "(".repeat(100_000), ")".repeat(100_000));
    for archive in [
        archive.clone(),
        with_member(&archive, "code/__torch__.py", b"while True:\n  pass\n"),
        with_member(&archive, "hostile/code/__torch__/a.py", code.as_bytes()),
    ] {
        scratch.write("small/model.ot", archive);
        succeeded(&scratch.bitfit(&["inspect", "--model", "small"]));
        succeeded(&scratch.bitfit(&[
            "convert",
            "--model",
            "small",
            "--weights",
            "model.ot",
            "--output",
            "new.ot",
        ]));
    }
    let written = "written-by-a-hostile-archive";
    assert!(!scratch.path(written).exists() && !Path::new(written).exists());
}

#[test]
fn shards_are_what_their_index_says() {
    let names = [
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    let of = names.map(|name| (format!("sharded-safetensors/{name}"), name));
    let files = || of.iter().map(|(from, to)| (from.as_str(), *to)).collect::<Vec<_>>();
    let scratch = small_base(&files());
    let index = std::fs::read_to_string(scratch.path("small").join(names[0])).unwrap();
    let first = scratch.path("small").join(names[1]);
    let refuse = |index: &str, parts: &[&str]| {
        scratch.write("small/model.safetensors.index.json", index);
        refused(&scratch.bitfit(&["inspect", "--model", "small"]), 1, parts);
    };
    succeeded(&scratch.bitfit(&["inspect", "--model", "small"]));
    // Together with the same in one file.
    std::fs::copy(form("protocol-2.bin"), scratch.path("small/pytorch_model.bin")).unwrap();
    succeeded(&scratch.bitfit(&["inspect", "--model", "small"]));
    std::fs::remove_file(scratch.path("small/pytorch_model.bin")).unwrap();
    for outside in
        ["../model-00001-of-00002.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "."]
    {
        refuse(
            &index.replace(names[1], outside),
            &["index.json", "expected the name of a file beside it"],
        );
    }
    refuse("{\"weight_map\": {}}", &["index.json", "found 0 files"]);
    refuse("{}", &["index.json", "weight_map"]);
    refuse(
        &index.replace(names[1], "nowhere.safetensors"),
        &["nowhere.safetensors", "no such file", names[0]],
    );
    let more = index.replace(
        "\"weight_map\": {",
        &format!("\"weight_map\": {{\"pooler.more\": \"{}\",", names[1]),
    );
    refuse(&more, &[names[1], "pooler.more", "no such tensor", names[0]]);
    let less: String = index.lines().filter(|line| !line.contains("word_embeddings")).collect();
    refuse(&less, &[names[1], "word_embeddings", "only tensors that", names[0]]);
    let whole = std::fs::read(&first).unwrap();
    std::fs::write(&first, &whole[..whole.len() / 2]).unwrap();
    refuse(&index, &[names[1], "not a complete safetensors file"]);
}

#[test]
fn only_regular_files_are_weights() {
    let scratch = Scratch::new();
    let weights = scratch.path("base/model.safetensors");
    let inspect = |parts: &[&str]| {
        refused(&scratch.bitfit(&["inspect", "--model", "base"]), 1, parts);
    };
    std::fs::rename(&weights, scratch.path("base/elsewhere")).unwrap();
    symlink("elsewhere", &weights).unwrap();
    succeeded(&scratch.bitfit(&["inspect", "--model", "base"]));
    for name in
        ["model.safetensors", "model.ot", "pytorch_model.bin", "model.safetensors.index.json"]
    {
        let path = scratch.path("base").join(name);
        let anew = || {
            let _ = std::fs::remove_file(&path);
        };
        if name != "model.safetensors" {
            let _ = std::fs::remove_file(&weights);
        }
        anew();
        symlink("/dev/zero", &path).unwrap();
        inspect(&[name, "a device", "expected a file"]);
        anew();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        inspect(&[name, "a pipe", "expected a file"]);
        anew();
        // A blob of a cache that was cleared: not the same as no file, for another would be taken
        // then.
        symlink("gone", &path).unwrap();
        inspect(&[name, "a link to gone, which does not exist"]);
        anew();
        std::fs::create_dir(&path).unwrap();
        inspect(&[name, "a directory", "expected a file"]);
        std::fs::remove_dir(&path).unwrap();
    }
}

#[test]
fn weights_of_other_frameworks_are_named() {
    for (name, parts) in [
        ("tf_model.h5", ["TensorFlow", "from_tf=True"]),
        ("flax_model.msgpack", ["Flax", "from_flax=True"]),
        ("model.onnx", ["ONNX", "exported from"]),
        ("onnx/model.onnx", ["ONNX", "exported from"]),
    ] {
        let scratch = small_base(&[]);
        scratch.write(&format!("small/{name}"), "not looked at");
        let output = scratch.bitfit(&["inspect", "--model", "small"]);
        refused(&output, 1, &[name, parts[0], parts[1], "model.safetensors"]);
    }
}

/// Peak memory of inspecting a base whose weights are not what config.json says, above that of one
/// whose are.
#[test]
fn weights_are_compared_before_memory_of_their_size_is_taken() {
    let scratch = Scratch::new();
    let (output, usual) = scratch.bitfit_measured(&["inspect", "--model", "base"]);
    succeeded(&output);
    let measure = |parts: &[&str]| {
        let (output, peak) = scratch.bitfit_measured(&["inspect", "--model", "base"]);
        refused(&output, 1, parts);
        assert!(peak < usual + 1024, "{peak} MiB, usually {usual}");
    };
    // 2 GB of zeros that take no room on the disk.
    let header = "{\"embeddings.word_embeddings.weight\":{\"dtype\":\"F16\",\"shape\":[31250000,32],\"data_offsets\":[0,2000000000]}}";
    let start = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    let path = scratch.write("base/model.safetensors", start);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(8 + header.len() as u64 + 2_000_000_000).unwrap();
    measure(&["word_embeddings", "[31250000, 32]", "[120, 32]"]);
    // The same as the end of a zip, which says that two billion members are before it.
    std::fs::remove_file(&path).unwrap();
    let path = scratch.write("base/model.ot", b"PK");
    let mut file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(2_000_000_000).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
    file.write_all(&end_of_many_members()).unwrap();
    measure(&["model.ot", "not weights that PyTorch wrote"]);
    std::fs::remove_file(&path).unwrap();
    for pickle in greedy_pickles() {
        let whole = std::fs::read(golden_dir().join("tiny-bert.bin")).unwrap();
        scratch.write("base/pytorch_model.bin", with_member(&whole, "data.pkl", &pickle));
        measure(&["pytorch_model.bin", "not weights that PyTorch wrote"]);
    }
}

/// The end of a zip with very many members.
fn end_of_many_members() -> Vec<u8> {
    let (members, size, start) = (40_000_000_u64, 1_999_000_000_u64, 0_u64);
    let mut end = vec![];
    end.extend(b"PK\x06\x06");
    end.extend(44_u64.to_le_bytes());
    end.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for number in [members, members, size, start] {
        end.extend(number.to_le_bytes());
    }
    end.extend(b"PK\x06\x07\0\0\0\0");
    end.extend(2_000_000_000_u64.to_le_bytes());
    end.extend([1, 0, 0, 0]);
    end.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
    end
}

/// Small pickles that make much of little.
fn greedy_pickles() -> Vec<Vec<u8>> {
    let text =
        |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let long = "a".repeat(1_000_000);
    let many = |piece: &[u8]| piece.repeat(3_000_000 / piece.len());
    let pairs =
        [b"](".to_vec(), many(b"K\x01K\x02\x86")[..900_000].to_vec(), b"e".to_vec()].concat();
    vec![
        many(b"("),
        many(b"]"),
        many(b"}"),
        many(b")\x85"),
        many(b"K\x01"),
        many(b"N\x94"),
        // The same list as a dict, again and again.
        [
            b"ccollections\nOrderedDict\nq\0".to_vec(),
            pairs,
            b"\x85q\x01".to_vec(),
            many(b"h\0h\x01R")[..2_000_000].to_vec(),
        ]
        .concat(),
        // A storage of a long name, again and again.
        [
            b"(X\x07\0\0\0storagectorch\nFloatStorage\n".to_vec(),
            text(&long),
            b"tq\0".to_vec(),
            many(b"h\0Q"),
        ]
        .concat(),
        [text(&long), b"q\0".to_vec(), many(b"h\0h\0\x93")].concat(),
        // A dict of many keys, in a dict again and again.
        [
            b"}q\0(".to_vec(),
            many(b"K\x01K\x02")[..1_000_000].to_vec(),
            b"u}(".to_vec(),
            many(b"X\x01\0\0\0ah\0")[..1_600_000].to_vec(),
            b"u.".to_vec(),
        ]
        .concat(),
        // Modules that are in each other twice, 60 deep.
        modules_in_each_other(),
    ]
}

fn modules_in_each_other() -> Vec<u8> {
    let name = |name: &[u8]| [b"X", &(name.len() as u32).to_le_bytes()[..], name].concat();
    let mut pickle = b"}q\0".to_vec();
    for depth in 1..60_u8 {
        pickle.extend(b"c__torch__\nM\n)\x81}(");
        for child in [b"a", b"b"] {
            pickle.extend(name(child));
            pickle.extend([b'h', depth - 1]);
        }
        pickle.extend([b'u', b'b', b'q', depth]);
    }
    pickle.push(b'.');
    pickle
}
