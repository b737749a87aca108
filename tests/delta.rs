//! The task file.

use crate::common::{Scratch, golden_dir, tiny_base};
use bitfit::base::{Base, BaseFiles};
use bitfit::delta::{Delta, Meta, start_from};
use bitfit::methods::Method;
use bitfit::models::TaskType;
use bitfit::sealed;
use std::collections::BTreeMap;
use tch::{Device, Tensor};

fn meta(base: &Base) -> Meta {
    Meta {
        architecture: "BertForSequenceClassification".into(),
        base_name: "tiny-bert".into(),
        base_fingerprint: base.fingerprint.clone(),
        tokenizer_fingerprint: "0".into(),
        task_type: TaskType::Classification,
        labels: ["bad", "so-so", "\"good\""].map(String::from).into(),
        labels_declared: true,
        pairs: false,
        max_length: 32,
        method: Method::Bitfit,
        freeze_plan: vec!["classifier.bias".into(), "classifier.weight".into()],
        metrics: BTreeMap::from([("accuracy".into(), 0.875)]),
    }
}

fn delta(base: &Base) -> Delta {
    Delta::take(base, &base.new, meta(base)).unwrap()
}

fn other_base() -> Base {
    BaseFiles::read(&golden_dir().join("tiny-bert"), None)
        .unwrap()
        .build(3, None, Device::Cpu)
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
        &["another base", "abc", &base.fingerprint],
    );
    refuse(
        &|d| d.meta.architecture = "RobertaForSequenceClassification".into(),
        &["Roberta", "BertFor"],
    );
    refuse(
        &|d| drop(d.tensors.remove("classifier.weight")),
        &["classifier.weight", "no such tensor"],
    );
    refuse(
        &|d| drop(d.tensors.insert("classifier.weight".into(), Tensor::from_slice(&[1f32]))),
        &["classifier.weight", "[3, 32]", "[1]"],
    );
    refuse(
        &|d| drop(d.tensors.insert("bert.x.bias".into(), Tensor::from_slice(&[1f32]))),
        &["bert.x.bias", "no such tensor"],
    );
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
    let (task, labels) = (TaskType::Classification, delta(&base).meta.labels);
    let mut other = other_base();
    assert_eq!(
        start_from(&path, task, &labels, &Method::Bitfit, &mut other).unwrap(),
        ["classifier.bias", "classifier.weight"]
    );
    assert_eq!(
        other.store.variables()["classifier.weight"],
        base.store.variables()["classifier.weight"]
    );
    // Another task's classes mean nothing here.
    let taken = start_from(
        &path,
        task,
        &["x".into(), "y".into(), "z".into()],
        &Method::Bitfit,
        &mut other_base(),
    )
    .unwrap();
    assert!(taken.is_empty(), "{taken:?}");
    // What Python wrote has no metadata, and may say gamma and beta, with or without the prefix.
    let plain = scratch.path("plain.safetensors");
    let values = Tensor::ones([32], (tch::Kind::Float, Device::Cpu));
    Tensor::write_safetensors(&[("embeddings.LayerNorm.beta", &values)], &plain).unwrap();
    let mut other = other_base();
    assert_eq!(
        start_from(&plain, task, &labels, &Method::Bitfit, &mut other).unwrap(),
        ["bert.embeddings.LayerNorm.bias"]
    );
    assert_eq!(other.store.variables()["bert.embeddings.LayerNorm.bias"], values);
}
