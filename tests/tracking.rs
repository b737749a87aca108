//! What a run leaves for those who follow it: TensorBoard's event files, the manifest.

use crate::common::{Scratch, stderr, succeeded};
use bitfit::internal::delta::Delta;
use bitfit::internal::train::{Event, Listener, Manifest, MetricsRecord, TensorBoard};
use prost::Message;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// TensorFlow's messages as they are on the wire, written down anew: field numbers are what is
/// tested.
#[derive(Clone, PartialEq, Message)]
struct WireEvent {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "5")]
    histo: Option<Histo>,
    #[prost(message, optional, tag = "8")]
    tensor: Option<Strings>,
}

#[derive(Clone, PartialEq, Message)]
struct Histo {
    #[prost(double, tag = "1")]
    min: f64,
    #[prost(double, tag = "2")]
    max: f64,
    #[prost(double, tag = "3")]
    num: f64,
    #[prost(double, tag = "4")]
    sum: f64,
    #[prost(double, tag = "5")]
    sum_squares: f64,
    #[prost(double, repeated, tag = "6")]
    bucket_limit: Vec<f64>,
    #[prost(double, repeated, tag = "7")]
    bucket: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Strings {
    #[prost(bytes = "vec", repeated, tag = "8")]
    string_val: Vec<Vec<u8>>,
}

fn files(run: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run.join("tensorboard")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// All events of a run. Only the last record of a file may be a part of one.
fn events(run: &Path) -> Vec<WireEvent> {
    let mut found = vec![];
    for path in files(run) {
        let bytes = std::fs::read(&path).unwrap();
        let mut rest = &bytes[..];
        let masked = |bytes: &[u8]| {
            crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282ead8).to_le_bytes()
        };
        let first = found.len();
        while rest.len() >= 12 {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked(&rest[..8]));
            let Some(data) = rest.get(12..12 + length).filter(|_| rest.len() >= 16 + length) else {
                break;
            };
            assert_eq!(rest[12 + length..16 + length], masked(data));
            found.push(WireEvent::decode(data).unwrap());
            rest = &rest[16 + length..];
        }
        if let Some(event) = found.get(first) {
            assert_eq!(event.file_version.as_deref(), Some("brain.Event:2"));
        }
    }
    found
}

/// Each value of a run with its tag and step; none is there twice.
pub fn values(run: &Path) -> BTreeMap<(String, i64), Entry> {
    let mut found = BTreeMap::new();
    for event in events(run) {
        for entry in event.summary.into_iter().flat_map(|summary| summary.value) {
            let key = (entry.tag.clone(), event.step);
            assert!(found.insert(key.clone(), entry).is_none(), "{key:?} twice");
        }
    }
    found
}

fn lines(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every number of metrics.jsonl is in the event files, and no other.
fn same_as_metrics(run: &Path) {
    let values = values(run);
    let mut expected = BTreeMap::new();
    for line in lines(run) {
        let step = line["step"].as_i64().unwrap();
        for (key, value) in line.as_object().unwrap() {
            let tag = match key.strip_prefix("eval_") {
                Some(name) => format!("eval/{name}"),
                None if line.get("loss").is_some() && key != "step" => format!("train/{key}"),
                None => continue,
            };
            expected.insert((tag, step), value.as_f64().unwrap() as f32);
        }
    }
    let scalars: BTreeMap<_, _> =
        values.iter().filter_map(|(key, entry)| Some((key.clone(), entry.simple_value?))).collect();
    assert!(scalars.len() > 10);
    assert_eq!(scalars, expected);
}

#[test]
fn event_files_hold_metrics_configuration_and_changes_of_the_biases() {
    let scratch = Scratch::new();
    // The last state is the delta's, so that the last histograms are of it.
    scratch.config("config.toml", "load_best_model_at_end = false\nsave_strategy = \"no\"");
    succeeded(&scratch.train(&[]));
    let run = scratch.path("run");
    same_as_metrics(&run);
    let values = values(&run);
    let text = values[&("config".into(), 0)].tensor.clone().unwrap().string_val;
    let text = String::from_utf8(text[0].clone()).unwrap();
    assert!(text.contains("    num_train_epochs = 2"), "{text}");

    let evaluations: BTreeSet<i64> = lines(&run)
        .iter()
        .filter(|line| line.get("eval_loss").is_some())
        .map(|line| line["step"].as_i64().unwrap())
        .collect();
    let last = *evaluations.last().unwrap();
    let output = scratch.bitfit(&[
        "inspect",
        "--delta",
        "run/delta.safetensors",
        "--against",
        "base",
        "--json",
    ]);
    let changes: Value = serde_json::from_slice(&output.stdout).unwrap();
    let delta = Delta::read(&run.join("delta.safetensors")).unwrap();
    for group in ["attention", "feedforward", "layer_norm", "classifier", "other"] {
        let tag = format!("bias_change/{group}");
        let steps: BTreeSet<i64> =
            values.keys().filter(|(name, _)| *name == tag).map(|(_, step)| *step).collect();
        assert_eq!(steps, evaluations, "{tag}");
        let histogram = values[&(tag, last)].histo.clone().unwrap();
        assert_eq!(histogram.bucket.iter().sum::<f64>(), histogram.num);
        assert!(histogram.bucket_limit.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(
            histogram.min < histogram.max && histogram.bucket.len() == histogram.bucket_limit.len()
        );
        // What `inspect --against` says of the same tensors; the new head begins at zero and is in
        // no base.
        let (squares, largest, count) = if group == "classifier" {
            let bias = &delta.tensors["classifier.bias"];
            let squares = f64::try_from(bias.square().sum(tch::Kind::Double)).unwrap();
            (squares, f64::try_from(bias.abs().max()).unwrap(), bias.numel() as f64)
        } else {
            changes["changes"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|change| change["group"] == group)
                .map(|change| {
                    let count = delta.tensors[change["name"].as_str().unwrap()].numel() as f64;
                    let rms = change["rms"].as_f64().unwrap();
                    (rms * rms * count, change["largest"].as_f64().unwrap(), count)
                })
                .fold((0.0, 0f64, 0.0), |a, b| (a.0 + b.0, a.1.max(b.1), a.2 + b.2))
        };
        assert_eq!(histogram.num, count, "{group}");
        assert!((histogram.sum_squares - squares).abs() < 1e-4 * squares, "{group}");
        assert!((histogram.max.max(-histogram.min) - largest).abs() < 1e-6, "{group}");
    }
}

/// Interrupted in an evaluation, made up for when it went on, and killed after that: the evaluation
/// is there.
#[test]
fn an_evaluation_that_was_due_stays() {
    let scratch = Scratch::new();
    let run = scratch.path("run");
    let goes_on = |evaluation_due| {
        let mut board = TensorBoard::new(&run);
        let checkpoint = Path::new("checkpoints/step-000015");
        board
            .on_event(&Event::Resumed { checkpoint, step: 15, evaluation_due, total: 20 })
            .unwrap();
        board
    };
    let evaluation = MetricsRecord::Evaluation {
        step: 15,
        epoch: 1.0,
        metrics: [("accuracy".to_owned(), 0.5)].into(),
        kept: true,
        seconds: 1.0,
    };
    std::fs::create_dir(&run).unwrap();
    goes_on(true).on_event(&Event::Record(&evaluation)).unwrap();
    drop(goes_on(false));
    assert!(values(&run).contains_key(&("eval/accuracy".into(), 15)));
    // Still due: it is made again, and not there twice.
    goes_on(true).on_event(&Event::Record(&evaluation)).unwrap();
    assert_eq!(values(&run).len(), 1);
}

#[test]
fn a_run_that_goes_on_has_no_step_twice() {
    let scratch = Scratch::new();
    let config = std::fs::read_to_string(scratch.path("config.toml")).unwrap();
    let config = config
        .replace("num_train_epochs = 2", "num_train_epochs = 24")
        .replace("logging_steps = 4", "logging_steps = 1")
        .replace("save_steps = 8", "save_steps = 5")
        .replace("eval_steps = 8", "eval_steps = 3");
    scratch.write("config.toml", config);
    let run = scratch.path("run");
    let mut killed = 0;
    for (signal, after) in [
        ("-KILL", 350),
        ("-TERM", 400),
        ("-KILL", 450),
        ("-KILL", 300),
        ("-TERM", 500),
        ("-KILL", 380),
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bitfit-train"))
            .args(["--config", scratch.path("config.toml").to_str().unwrap(), "--resume"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(after));
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().is_ok());
        killed += usize::from(!child.wait().unwrap().success());
        if run.join("tensorboard").exists() {
            // Readable as it was left.
            events(&run);
        }
    }
    assert!(killed > 0);
    succeeded(&scratch.train(&["--resume"]));
    same_as_metrics(&run);
    let before = values(&run);
    // A file that ends in part of a record, as a full disk leaves it; and a later event than the
    // state that the run goes on from.
    let last = files(&run).pop().unwrap();
    let bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, &bytes[..bytes.len() - 3]).unwrap();
    let newest = bitfit::internal::checkpoint::steps(&run).unwrap().pop().unwrap().1;
    std::fs::remove_dir_all(newest).unwrap();
    succeeded(&scratch.train(&["--resume"]));
    same_as_metrics(&run);
    let after = values(&run);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (key, entry) in before {
        assert_eq!(entry.histo, after[&key].histo, "{key:?}");
    }
    // A new run in its place leaves nothing of it.
    succeeded(&scratch.train(&["--overwrite"]));
    assert_eq!(files(&run).len(), 1);
    same_as_metrics(&run);
}

#[test]
fn the_manifest_says_what_a_run_was_made_of() {
    let scratch = Scratch::new();
    let read = || -> Manifest {
        serde_json::from_slice(&std::fs::read(scratch.path("run/manifest.json")).unwrap()).unwrap()
    };
    let sha256 = |name: &str| {
        let digest = Sha256::digest(std::fs::read(scratch.path("run").join(name)).unwrap());
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    succeeded(&scratch.train(&["--set", "training.seed=7"]));
    let manifest = read();
    let delta = Delta::read(&scratch.path("run/delta.safetensors")).unwrap();
    assert_eq!(manifest.config_sha256, sha256("config.toml"));
    assert_eq!(manifest.delta_sha256, Some(sha256("delta.safetensors")));
    assert_eq!(manifest.base.fingerprint, delta.meta.base_fingerprint);
    assert_eq!(manifest.tokenizer_fingerprint, delta.meta.tokenizer_fingerprint);
    assert_eq!((manifest.base.name.as_str(), manifest.data_fingerprint.len()), ("base", 64));
    let [process] = &manifest.processes[..] else { panic!("{manifest:?}") };
    assert_eq!(process.outcome.as_deref(), Some("finished"));
    assert_eq!((process.first_step, process.last_step), (0, Some(24)));
    assert!(process.command.iter().any(|arg| arg == "training.seed=7"), "{process:?}");
    assert!(process.command[0].ends_with("bitfit-train"));
    assert_eq!(process.versions.bitfit, env!("CARGO_PKG_VERSION"));
    let libtorch = include_str!("../build.rs").split('"').nth(1);
    assert_eq!(process.versions.libtorch.as_deref(), libtorch);
    assert!(process.versions.rustc.as_ref().unwrap().starts_with("rustc 1."));
    assert!(process.machine.memory_mib.unwrap() > 100 && process.machine.threads > 0);
    assert!(process.ended.as_ref().unwrap() >= &process.started && process.started.ends_with('Z'));
    // Once more: another process of the same run.
    succeeded(&scratch.train(&["--set", "training.seed=7", "--resume"]));
    let again = read();
    assert_eq!((again.processes.len(), again.processes[1].first_step), (2, 24));
    assert_eq!(again.delta_sha256, manifest.delta_sha256);
    // A run that fails says so.
    let output = scratch.train(&[
        "--overwrite",
        "--set",
        "training.learning_rate=1e38",
        "--set",
        "training.max_grad_norm=0",
    ]);
    assert!(!output.status.success(), "{}", stderr(&output));
    let failed = read();
    assert_eq!(failed.processes.len(), 1, "replaced");
    assert_eq!(failed.processes[0].outcome.as_deref(), Some("failed"));
}
