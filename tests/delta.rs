//! The task file.

use crate::common::{self, Scratch, golden_dir, refused, root, stderr, succeeded, tiny_base};
use bitfit::internal::base::Base;
use bitfit::internal::data::Tokenizer;
use bitfit::internal::delta::{Delta, Meta, start_from};
use bitfit::internal::methods::{AdapterConfig, AdapterPlacement, LoraConfig, Method};
use bitfit::internal::models::{LongTexts, TargetScale, Task, TaskType, WindowSettings};
use bitfit::internal::nn::Pooling;
use bitfit::internal::sealed;
use bitfit::internal::task_model::TaskModel;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tch::{Device, Tensor};

fn meta(base: &TaskModel) -> Meta {
    Meta {
        architecture: "BertForSequenceClassification".into(),
        base_name: "tiny-bert".into(),
        base_fingerprint: base.base.fingerprint.clone(),
        base_config: base.config.beside_tensors(),
        tokenizer_fingerprint: "0".into(),
        task: common::task(TaskType::Classification, &["bad", "so-so", "\"good\""]),
        method: Method::Bitfit,
        freeze_plan: vec!["classifier.bias".into(), "classifier.weight".into()],
        metrics: BTreeMap::from([("accuracy".into(), 0.875)]),
    }
}

fn delta(base: &TaskModel) -> Delta {
    Delta::take(base, &base.new, meta(base)).unwrap()
}

fn other_base() -> TaskModel {
    TaskModel::new(
        &Base::read(&golden_dir().join("tiny-bert"), None, Device::Cpu).unwrap(),
        3,
        Pooling::First,
        None,
    )
    .unwrap()
}

#[test]
fn it_comes_back_as_it_was_and_has_one_form() {
    let scratch = Scratch::new();
    let base = tiny_base();
    let (delta, path) = (delta(&base), scratch.path("delta.safetensors"));
    delta.write(&path).unwrap();
    assert_eq!(
        std::fs::read(&path).unwrap(),
        self::delta(&tiny_base()).to_bytes().unwrap(),
        "the same task, the same bytes"
    );
    let read = Delta::read(&path).unwrap();
    assert_eq!(read.meta, delta.meta);
    let mut other = other_base();
    read.apply(&path, &mut other).unwrap();
    for (name, tensor) in base.store.variables() {
        assert_eq!(other.store.variables()[&name], tensor, "{name}");
    }
    // Any reader of safetensors understands it, and finds what it may not know as strings.
    let bytes = std::fs::read(&path).unwrap();
    let header: serde_json::Value =
        serde_json::from_slice(&bytes[8..8 + bytes[0] as usize + 256 * bytes[1] as usize]).unwrap();
    let keys: Vec<&String> = header.as_object().unwrap().keys().collect();
    assert!(keys.is_sorted(), "{keys:?}");
    let metadata = header["__metadata__"].as_object().unwrap();
    assert!(metadata.keys().is_sorted() && metadata.values().all(|v| v.is_string()));
    assert_eq!(metadata["format"], "pt");
}

#[test]
fn it_knows_its_base() {
    let scratch = Scratch::new();
    let base = tiny_base();
    let path = scratch.path("delta.safetensors");
    let refuse = |change: &dyn Fn(&mut Delta), parts: &[&str]| {
        let mut delta = delta(&base);
        change(&mut delta);
        delta.write(&path).unwrap();
        let mut other = other_base();
        let before = other.store.variables();
        let error = Delta::read(&path).unwrap().apply(&path, &mut other).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "expected {part:?} in: {error}");
        }
        assert!(
            before.iter().all(|(name, tensor)| *tensor == other.store.variables()[name]),
            "the base is left as it was"
        );
    };
    refuse(
        &|d| d.meta.base_fingerprint = "abc".into(),
        &["another base", "abc", &base.base.fingerprint],
    );
    refuse(
        &|d| drop(d.tensors.remove("classifier.weight")),
        &["classifier.weight", "no such tensor"],
    );
    refuse(
        &|d| drop(d.tensors.insert("classifier.bias".into(), Tensor::from_slice(&[1f32]))),
        &["classifier.bias", "[3]", "[1]"],
    );
    refuse(
        &|d| drop(d.tensors.insert("bert.x.bias".into(), Tensor::from_slice(&[1f32]))),
        &["bert.x.bias", "no such tensor"],
    );
}

/// What it says of itself is compared with its own tensors, before anything is made by it.
#[test]
fn it_knows_itself() {
    let scratch = Scratch::new();
    let base = tiny_base();
    let refuse = |change: &dyn Fn(&mut Meta), parts: &[&str]| {
        let mut delta = delta(&base);
        change(&mut delta.meta);
        let path = scratch.path("delta.safetensors");
        delta.write(&path).unwrap();
        let error = Delta::read(&path).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "expected {part:?} in: {error}");
        }
        assert!(error.len() < 500, "{error}");
    };
    let labels = |count: usize| (0..count).map(|i| i.to_string()).collect::<Vec<_>>();
    refuse(
        &|m| m.task.labels = vec!["x".into(), "y".into(), "x".into()],
        &["all different", "\"x\""],
    );
    refuse(&|m| m.task.labels = labels(10_001), &["10000 labels at most"]);
    refuse(&|m| m.task.labels = labels(2), &["2 labels of a classification", "3 rows"]);
    refuse(&|m| m.task.labels = labels(10_000), &["10000 labels", "classifier.weight has 3 rows"]);
    refuse(&|m| m.task.labels = labels(1), &["1 labels", "two or more"]);
    refuse(&|m| m.task.task_type = TaskType::Regression, &["3 labels", "expected none"]);
    refuse(
        &|m| m.architecture = "x".repeat(9999),
        &["architecture: found \"xxx", "expected BertFor"],
    );
    // A head under other names.
    let mut delta = delta(&base);
    delta.meta.architecture = "RobertaForSequenceClassification".into();
    let path = scratch.path("delta.safetensors");
    let error = delta.apply(&path, &mut other_base()).unwrap_err().to_string();
    assert!(error.contains("a delta of Roberta") && error.contains("is a BertFor"), "{error}");
}

/// The memory that a task's settings ask for is taken once its own tensors are known to fill it.
#[test]
fn what_a_method_adds_takes_no_memory_before_its_tensors_are_compared() {
    let lora = |r| {
        let targets = ["query", "key", "value", "dense"].map(String::from).into();
        Method::Lora(LoraConfig { r, target_modules: targets, ..LoraConfig::default() })
    };
    let adapter = |reduction_factor| {
        Method::Adapter(AdapterConfig {
            reduction_factor,
            ..AdapterConfig::new(AdapterPlacement::Houlsby)
        })
    };
    for (made, said, parts) in [
        (lora(2), lora(4096), ["lora_A.weight", "[4096, 32]", "[2, 32]"]),
        (adapter(16.0), adapter(1.0 / 16.0), ["adapter_down.0", "[512", "[2"]),
        (Method::Bitfit, lora(4096), ["lora_A.weight", "a value", "no such tensor"]),
    ] {
        let mut base = tiny_base();
        made.add(&mut base).unwrap();
        let names = [&base.new[..], &base.added].concat();
        let delta = Delta::take(&base, &names, Meta { method: said, ..meta(&base) }).unwrap();
        let mut other = other_base();
        let error = delta.apply_with_method(Path::new("x"), &mut other).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "expected {part:?} in: {error}");
        }
        assert!(!other.added.is_empty());
        for name in &other.added {
            let strides = other.store.variables()[name].stride();
            assert!(strides.iter().all(|&stride| stride == 0), "{name}: {strides:?}");
        }
    }
}

/// A delta with one more tensor, of `bytes` zeros that take no place on the disk; with a right
/// checksum.
fn sparse(path: &Path, delta: &Delta, name: &str, bytes: usize) {
    let small = delta.to_bytes().unwrap();
    let length = u64::from_le_bytes(*small.first_chunk().unwrap()) as usize;
    let (header, data) = small[8..].split_at(length);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    let zeros = "0".repeat(64);
    header["__metadata__"]["sha256"] = zeros.clone().into();
    let place = [data.len(), data.len() + bytes];
    header[name] = json!({"dtype": "F32", "shape": [bytes / 4], "data_offsets": place});
    let mut header = header.to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let whole =
        |header: &str| [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
    let mut hash = Sha256::new_with_prefix(whole(&header));
    let piece = vec![0; 1 << 20];
    (0..bytes >> 20).for_each(|_| hash.update(&piece));
    let start = whole(&header.replacen(&zeros, &bitfit::internal::files::hex(&hash.finalize()), 1));
    let file = std::fs::File::create(path).unwrap();
    file.write_all_at(&start, 0).unwrap();
    file.set_len((start.len() + bytes) as u64).unwrap();
}

#[test]
fn a_hostile_one_takes_no_memory() {
    let scratch = Scratch::new();
    let base = tiny_base();
    let (output, plain) = scratch.bitfit_measured(&["inspect", "--model", "base"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let refuse = |args: &[&str], parts: &[&str]| {
        let (output, peak) = scratch.bitfit_measured(args);
        refused(&output, 1, &[&["hostile.safetensors"], parts].concat());
        assert!(peak <= plain + 1024, "{args:?}: {peak} MiB, inspect takes {plain}");
    };
    let path = scratch.path("hostile.safetensors");
    let predict = ["predict", "--model", "base", "--delta", "hostile.safetensors", "x"];
    let against = ["inspect", "--delta", "hostile.safetensors", "--against", "base"];
    let export = [
        "export",
        "--model",
        "base",
        "--delta",
        "hostile.safetensors",
        "--format",
        "hf",
        "--output",
        "out",
    ];
    let mut task = delta(&base);
    task.meta.tokenizer_fingerprint = Tokenizer::read(&scratch.path("base")).unwrap().fingerprint;
    // Two million labels.
    let mut hostile = delta(&base);
    hostile.meta = task.meta.clone();
    hostile.meta.task.labels = vec![String::new(); 2_000_000];
    let bytes = hostile.to_bytes().unwrap();
    std::fs::write(&path, bytes).unwrap();
    for args in [&predict[..], &against, &export] {
        refuse(args, &["10000 labels at most"]);
    }
    // Four million, in a header that is larger than any is written.
    hostile.meta.task.labels = vec![String::new(); 4_000_000];
    let error = hostile.to_bytes().unwrap_err();
    assert!(error.to_string().contains("labels and settings take"), "{error}");
    let header = " ".repeat(20_000_000);
    std::fs::write(&path, [&20_000_000_u64.to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
    refuse(&predict, &["a header of 20000000 bytes"]);
    // A gigabyte and a half of a bias, none of it on the disk.
    let name = "bert.encoder.layer.0.output.dense.bias";
    sparse(&path, &task, name, 3 << 29);
    for args in [&predict[..], &export] {
        refuse(args, &[name, "[32]", "[402653184]"]);
    }
    scratch.config("config.toml", "");
    let start = "model.init_delta=hostile.safetensors";
    refuse(&["train", "--config", "config.toml", "--set", start], &[name, "[32]", "[402653184]"]);
    std::fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    refuse(&predict, &["a pipe"]);
}

/// Texts may hold characters that Python's splitlines cuts at, and neither JSON nor TSV does.
#[test]
fn scripts_cut_lines_at_newlines_alone() {
    let scripts = std::fs::read_dir(root().join("scripts")).unwrap().flatten();
    let paths = scripts.map(|entry| entry.path());
    let python: Vec<_> = paths.filter(|p| p.extension().is_some_and(|e| e == "py")).collect();
    assert!(python.len() > 5);
    for path in python {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("splitlines()"), "{}", path.display());
    }
}

#[test]
fn a_damaged_one_is_refused() {
    let scratch = Scratch::new();
    let whole = delta(&tiny_base()).to_bytes().unwrap();
    for length in [0, 7, 8, 60, whole.len() / 2, whole.len() - 1] {
        let path = scratch.write("cut.safetensors", &whole[..length]);
        let error = Delta::read(&path).unwrap_err().to_string();
        assert!(error.contains("cut.safetensors"), "{error}");
    }
    let sealed::Contents { mut metadata, tensors, .. } =
        sealed::read(&scratch.write("whole.safetensors", &whole)).unwrap();
    metadata.insert("schema_version".into(), "9".into());
    let newer = sealed::to_bytes(metadata, &tensors).unwrap();
    let error = Delta::read(&scratch.write("newer.safetensors", newer)).unwrap_err().to_string();
    assert!(error.contains("schema version 9"), "{error}");
    let plain = golden_dir().join("tiny-bert/model.safetensors");
    let error = Delta::read(&plain).unwrap_err().to_string();
    assert!(error.contains("not a delta"), "{error}");
    let error = Delta::read(&golden_dir()).unwrap_err().to_string();
    assert!(
        error.contains("a directory; expected") && error.contains("delta.safetensors"),
        "{error}"
    );
}

#[test]
fn a_run_can_start_from_one_or_from_pythons() {
    let scratch = Scratch::new();
    let base = tiny_base();
    let path = scratch.path("delta.safetensors");
    delta(&base).write(&path).unwrap();
    let task = delta(&base).meta.task;
    let start = |path: &Path, task: &Task, model: &mut TaskModel| {
        start_from(path, task, &Method::Bitfit, None, model).unwrap()
    };
    let mut other = other_base();
    assert_eq!(start(&path, &task, &mut other), ["classifier.bias", "classifier.weight"]);
    assert_eq!(
        other.store.variables()["classifier.weight"],
        base.store.variables()["classifier.weight"]
    );
    // Another task's classes mean nothing here.
    let labels = ["x", "y", "z"].map(String::from).to_vec();
    let taken = start(&path, &Task { labels, ..task.clone() }, &mut other_base());
    assert!(taken.is_empty(), "{taken:?}");
    // What Python wrote has no metadata, and may say gamma and beta, with or without the prefix.
    let plain = scratch.path("plain.safetensors");
    let values = Tensor::ones([32], (tch::Kind::Float, Device::Cpu));
    Tensor::write_safetensors(&[("embeddings.LayerNorm.beta", &values)], &plain).unwrap();
    let mut other = other_base();
    assert_eq!(start(&plain, &task, &mut other), ["bert.embeddings.LayerNorm.bias"]);
    assert_eq!(other.store.variables()["bert.embeddings.LayerNorm.bias"], values);
}

/// More rows may bring new classes, and another order: each label that stays keeps its row.
#[test]
fn a_start_keeps_the_rows_of_the_labels_that_stay() {
    let scratch = Scratch::new();
    let base = tiny_base();
    let path = scratch.path("delta.safetensors");
    let old = delta(&base);
    old.write(&path).unwrap();
    let new = |labels: &[&str]| {
        let labels = labels.iter().map(|label| label.to_string()).collect();
        Task { labels, ..old.meta.task.clone() }
    };
    let read = || Base::read(&golden_dir().join("tiny-bert"), None, Device::Cpu).unwrap();
    let started = |task: &Task| {
        let mut model = TaskModel::new(&read(), task.outputs(), task.pooling, None).unwrap();
        model.initialize(3).unwrap();
        let drawn = model.store.variables()["classifier.weight"].copy();
        start_from(&path, task, &Method::Bitfit, None, &mut model).unwrap();
        (model.store.variables(), drawn)
    };
    let (found, drawn) = started(&new(&["new", "\"good\"", "bad", "newer"]));
    let before = base.store.variables();
    for (row, from) in [(1, Some(2)), (2, Some(0)), (0, None), (3, None)] {
        let expected = match from {
            Some(from) => before["classifier.weight"].get(from),
            None => drawn.get(row),
        };
        assert_eq!(found["classifier.weight"].get(row), expected, "row {row}");
        let bias = from.map_or(0.0, |from| before["classifier.bias"].double_value(&[from]));
        assert_eq!(found["classifier.bias"].double_value(&[row]), bias, "row {row}");
    }
    // The rows of a head on first tokens mean nothing to a head on means, nor to another task type.
    let mean = Task { pooling: Pooling::Mean, ..old.meta.task.clone() };
    let (found, drawn) = started(&mean);
    assert_eq!(found["classifier.weight"], drawn);
    let several = Task { task_type: TaskType::MultiLabel, ..old.meta.task.clone() };
    let (found, drawn) = started(&several);
    assert_eq!(found["classifier.weight"], drawn);
}

/// Only what an older bitfit would misread needs the later version.
#[test]
fn a_head_on_means_needs_the_later_schema() {
    let scratch = Scratch::new();
    let base = Base::read(&golden_dir().join("tiny-bert"), None, Device::Cpu).unwrap();
    let model = TaskModel::new(&base, 3, Pooling::Mean, None).unwrap();
    assert_eq!(model.new, ["classifier.bias", "classifier.weight"]);
    let mut meta = meta(&model);
    meta.task.pooling = Pooling::Mean;
    let (of_mean, of_first) = (Delta::take(&model, &model.new, meta).unwrap(), delta(&tiny_base()));
    let version = |delta: &Delta| {
        let path = scratch.write("version.safetensors", delta.to_bytes().unwrap());
        sealed::read(&path).unwrap().metadata["schema_version"].clone()
    };
    assert_eq!((&*version(&of_mean), &*version(&of_first)), ("3", "2"));
    let path = scratch.write("mean.safetensors", of_mean.to_bytes().unwrap());
    assert_eq!(Delta::read(&path).unwrap().meta.task.pooling, Pooling::Mean);
    let sealed::Contents { mut metadata, tensors, .. } = sealed::read(&path).unwrap();
    metadata.insert("schema_version".into(), "2".into());
    let path = scratch.write("older.safetensors", sealed::to_bytes(metadata, &tensors).unwrap());
    let error = Delta::read(&path).unwrap_err().to_string();
    assert!(
        error.contains("metadata pooling") && error.contains("expected in version 3"),
        "{error}"
    );
}

/// Settings of windows are read back, need the later version, and are checked before any text is
/// read.
#[test]
fn windows_of_a_file_are_within_bounds() {
    let scratch = Scratch::new();
    let base = tiny_base();
    let settings = WindowSettings {
        window_stride: Some(5),
        most_windows: 8,
        window_pooling: Default::default(),
    };
    let path = scratch.path("windows.safetensors");
    let mut delta = delta(&base);
    for long_texts in [
        LongTexts::HeadTail,
        LongTexts::Windows(settings),
        LongTexts::Windows(WindowSettings { window_stride: None, ..settings }),
    ] {
        delta.meta.task.long_texts = long_texts;
        delta.write(&path).unwrap();
        assert_eq!(Delta::read(&path).unwrap().meta.task.long_texts, long_texts);
        assert_eq!(sealed::read(&path).unwrap().metadata["schema_version"], "3");
    }
    let sealed::Contents { metadata, tensors, .. } = sealed::read(&path).unwrap();
    let huge = u64::MAX.to_string();
    let windows = r#""mode":"windows","window_pooling":"mean""#;
    for (text, part) in [
        ("", "metadata long_texts"),
        ("windows", "metadata long_texts"),
        ("{}", "mode"),
        (r#"{"mode":"all"}"#, "unknown variant `all`"),
        (r#"{"mode":"windows"}"#, "most_windows"),
        (&format!("{{{windows},\"most_windows\":0}}"), "most_windows: found 0, expected 1 to 256"),
        (
            &format!("{{{windows},\"most_windows\":{huge}}}"),
            "most_windows: found 18446744073709551615",
        ),
        (&format!("{{{windows},\"most_windows\":-1}}"), "long_texts"),
        (
            &format!("{{{windows},\"most_windows\":8,\"window_stride\":0}}"),
            "window_stride: found 0, expected 1 to 30",
        ),
        (
            &format!("{{{windows},\"most_windows\":8,\"window_stride\":31}}"),
            "window_stride: found 31, expected 1 to 30",
        ),
        (&format!("{{{windows},\"most_windows\":8,\"later\":1}}"), "unknown field `later`"),
    ] {
        let mut metadata = metadata.clone();
        metadata.insert("long_texts".into(), text.into());
        std::fs::write(&path, sealed::to_bytes(metadata, &tensors).unwrap()).unwrap();
        let error = Delta::read(&path).unwrap_err().to_string();
        assert!(error.contains("windows.safetensors") && error.contains(part), "{text}: {error}");
    }
    delta.meta.task.max_length = 7;
    delta.meta.task.long_texts = LongTexts::Windows(settings);
    delta.write(&path).unwrap();
    let error = Delta::read(&path).unwrap_err().to_string();
    assert!(error.contains("max_length: found 7, expected 8 or more"), "{error}");
}

/// A head that learned standardized targets is saved as one that makes numbers, and back.
#[test]
fn the_scale_of_targets_is_folded_into_the_head() {
    let scale = TargetScale::of(&[1000.0, 1010.0, 990.0, 1000.0]);
    assert_eq!(scale.mean, 1000.0);
    assert!((scale.std - 50f64.sqrt()).abs() < 1e-12);
    let weight = Tensor::from_slice(&[0.5f32, -2.0, 0.25]).view([1, 3]);
    let (bias, x) = (Tensor::from_slice(&[0.125f32]), Tensor::from_slice(&[1f32, 2.0, 3.0]));
    let output = |[weight, bias]: [&Tensor; 2]| (weight.mv(&x) + bias).double_value(&[0]);
    let [w, b] = scale.folded([&weight, &bias]).unwrap();
    let expected = output([&weight, &bias]) * scale.std + scale.mean;
    assert!((output([&w, &b]) - expected).abs() < 1e-4);
    let [w, b] = scale.unfolded([&w, &b]).unwrap();
    assert!((output([&w, &b]) - output([&weight, &bias])).abs() < 1e-4);
    // Equal targets have no spread to divide by, whatever rounding says.
    assert_eq!(TargetScale::of(&[0.1; 3]).std, 1.0);
    assert_eq!(TargetScale::of(&[]).std, 1.0);
}

/// What config.json says beside the tensors decides scores too.
#[test]
fn a_base_whose_config_json_was_changed_is_another() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&["--set", "training.max_steps=2"]));
    let config = std::fs::read_to_string(scratch.path("base/config.json")).unwrap();
    let said: serde_json::Value = serde_json::from_str(&config).unwrap();
    for (key, value) in [
        ("num_attention_heads", serde_json::json!(8)),
        ("hidden_act", "relu".into()),
        ("layer_norm_eps", 0.5.into()),
    ] {
        let mut changed = said.clone();
        changed[key] = value;
        scratch.write("base/config.json", changed.to_string());
        let parts = ["base/config.json", key, "was trained with"];
        refused(&scratch.bitfit(&["predict", "--run", "run", "a film"]), 1, &parts);
        refused(&scratch.bitfit(&["eval", "--run", "run"]), 1, &parts);
        refused(&scratch.train(&["--resume"]), 1, &["base_config"]);
    }
    // The same function by another name, and a task of which it was not noted.
    let mut changed = said.clone();
    changed["hidden_act"] = "gelu_python".into();
    scratch.write("base/config.json", changed.to_string());
    succeeded(&scratch.bitfit(&["predict", "--run", "run", "a film"]));
    changed["hidden_act"] = "relu".into();
    scratch.write("base/config.json", changed.to_string());
    let path = scratch.path("run/delta.safetensors");
    let mut delta = Delta::read(&path).unwrap();
    delta.meta.base_config.clear();
    delta.write(&path).unwrap();
    succeeded(&scratch.bitfit(&["predict", "--run", "run", "a film"]));
}

#[test]
fn metadata_of_a_wrong_type_is_named() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&["--set", "training.max_steps=2"]));
    let bytes = std::fs::read(scratch.path("run/delta.safetensors")).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.contains("\"max_length\":\"32\""), "{:.400}", text);
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let changed = String::from_utf8(bytes[8..8 + header].to_vec())
        .unwrap()
        .replace("\"max_length\":\"32\"", "\"max_length\":\"-1\"");
    // Another header, sealed again.
    let mut delta = changed.into_bytes();
    assert_eq!(delta.len(), header);
    let place = delta.windows(10).position(|w| w == b"\"sha256\":\"").unwrap() + 10;
    delta[place..place + 64].fill(b'0');
    let mut whole = [&bytes[..8], &delta[..], &bytes[8 + header..]].concat();
    let digest = bitfit::internal::files::hex(&sha2::Sha256::digest(&whole));
    whole[8 + place..8 + place + 64].copy_from_slice(digest.as_bytes());
    std::fs::write(scratch.path("run/delta.safetensors"), whole).unwrap();
    let output = scratch.bitfit(&["predict", "--run", "run", "a film"]);
    refused(&output, 1, &["run/delta.safetensors", "metadata max_length"]);
}
