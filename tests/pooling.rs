//! What the head reads of a base: the first token or the mean, as the base's files or the
//! configuration say, in every command.

use crate::common::{STILL, Scratch, TINY, refused, stderr, stdout, succeeded};
use bitfit::internal::delta::Delta;
use bitfit::internal::models::declared_pooling;
use bitfit::internal::nn::Pooling;
use serde_json::{Value, json};

/// sentence-transformers' files, in the base of `scratch`.
fn declare(scratch: &Scratch, mode: &str) {
    let module = |path: &str, class: &str| json!({"idx": 0, "name": "0", "path": path, "type": format!("sentence_transformers.models.{class}")});
    let modules = json!([module("", "Transformer"), module("1_Pooling", "Pooling")]);
    scratch.write("base/modules.json", modules.to_string());
    let config =
        json!({"word_embedding_dimension": 32, "pooling_mode_cls_token": false, mode: true});
    std::fs::create_dir_all(scratch.path("base/1_Pooling")).unwrap();
    scratch.write("base/1_Pooling/config.json", config.to_string());
}

fn pooling_of(scratch: &Scratch) -> Pooling {
    Delta::read(&scratch.path("run/delta.safetensors")).unwrap().meta.task.pooling
}

#[test]
fn a_task_reads_what_its_base_was_trained_for() {
    for name in TINY {
        let scratch = Scratch::of(name);
        declare(&scratch, "pooling_mode_mean_tokens");
        let epochs = [&STILL[..], &["--set", "training.num_train_epochs=12"]].concat();
        let output = scratch.train(&epochs);
        succeeded(&output);
        assert!(stderr(&output).contains("the mean of all tokens"), "{}", stderr(&output));
        assert_eq!(pooling_of(&scratch), Pooling::Mean);
        let config = std::fs::read_to_string(scratch.path("run/config.toml")).unwrap();
        assert!(config.contains("pooling = \"mean\""), "{config}");
        let eval = scratch.bitfit(&["eval", "--run", "run", "--json"]);
        let found: Value = serde_json::from_str(&stdout(&eval)).unwrap();
        let summary = std::fs::read_to_string(scratch.path("run/summary.json")).unwrap();
        let summary: Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(found["metrics"], summary["best"], "{name}");
        assert!(summary["best"]["accuracy"].as_f64().unwrap() > 0.6, "{name}: {summary}");
        // A run that goes on from a checkpoint has the same pooling, and the same bytes.
        let whole = std::fs::read(scratch.path("run/delta.safetensors")).unwrap();
        let longer = [&epochs[..], &["--set", "training.output_dir=again"]].concat();
        let first = [&longer[..], &["--set", "training.max_steps=7"]].concat();
        succeeded(&scratch.train(&first));
        succeeded(&scratch.train(&[&longer[..], &["--resume"]].concat()));
        assert_eq!(
            std::fs::read(scratch.path("again/delta.safetensors")).unwrap(),
            whole,
            "{name}"
        );
        // The configuration decides before the base's files do.
        succeeded(&scratch.train(&["--set", "model.pooling=first", "--overwrite"]));
        assert_eq!(pooling_of(&scratch), Pooling::First);
        let other = ["--set", "model.pooling=mean", "--resume"];
        refused(&scratch.train(&other), 2, &["model.pooling was", "first", "mean"]);
    }
}

#[test]
fn the_files_of_a_base_are_read_strictly() {
    let scratch = Scratch::new();
    let base = scratch.path("base");
    assert_eq!(declared_pooling(&base).unwrap(), None);
    for (mode, expected) in [
        ("pooling_mode_mean_tokens", Some(Pooling::Mean)),
        ("pooling_mode_cls_token", Some(Pooling::First)),
        ("pooling_mode_max_tokens", None),
    ] {
        declare(&scratch, mode);
        assert_eq!(declared_pooling(&base).unwrap(), expected, "{mode}");
    }
    for (mode, expected) in [
        (json!("mean"), Some(Pooling::Mean)),
        (json!(["cls"]), Some(Pooling::First)),
        (json!(["cls", "mean"]), None),
        (json!(7), None),
    ] {
        scratch.write("base/1_Pooling/config.json", json!({"pooling_mode": mode}).to_string());
        assert_eq!(declared_pooling(&base).unwrap(), expected, "{mode}");
    }
    declare(&scratch, "pooling_mode_max_tokens");
    let output = scratch.train(&["--set", "training.max_steps=1"]);
    succeeded(&output);
    assert!(stderr(&output).contains("max_tokens; bitfit reads the first token"));
    let wrong = |file: &str, text: &str, parts: &[&str]| {
        declare(&scratch, "pooling_mode_mean_tokens");
        scratch.write(file, text);
        let error = declared_pooling(&base).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    wrong("base/modules.json", "{}", &["modules.json", "not a list of modules"]);
    wrong("base/modules.json", "", &["modules.json", "not a list of modules"]);
    let outside = r#"[{"type": "a.Pooling", "path": "../.."}]"#;
    wrong("base/modules.json", outside, &["modules.json", "path: found \"../..\""]);
    let gone = r#"[{"type": "a.Pooling", "path": "2_Pooling"}]"#;
    wrong("base/modules.json", gone, &["2_Pooling"]);
    wrong("base/1_Pooling/config.json", "[]", &["1_Pooling", "config.json"]);
    refused(&scratch.train(&["--set", "model.pooling=max"]), 2, &["pooling", "max", "mean"]);
}

#[test]
fn a_head_on_means_is_exported_for_sentence_transformers() {
    for name in TINY {
        let scratch = Scratch::of(name);
        let mean = ["--set", "model.pooling=mean", "--set", "training.max_steps=4"];
        succeeded(&scratch.train(&mean));
        let export = |format: &str, output: &str| {
            scratch.bitfit(&["export", "--run", "run", "--format", format, "--output", output])
        };
        for format in ["hf", "peft"] {
            refused(&export(format, "no"), 2, &["mean", "--format sentence-transformers"]);
        }
        succeeded(&export("sentence-transformers", "st"));
        let json = |file: &str| -> Value {
            serde_json::from_slice(&std::fs::read(scratch.path(file)).unwrap()).unwrap()
        };
        let dense = json("st/2_Dense/config.json");
        assert_eq!((&dense["in_features"], &dense["out_features"]), (&json!(32), &json!(2)));
        assert_eq!(json("st/sentence_bert_config.json")["max_seq_length"], 32);
        assert_eq!(json("st/config.json")["id2label"]["1"], "positive");
        assert_eq!(declared_pooling(&scratch.path("st")).unwrap(), Some(Pooling::Mean));
        let card = std::fs::read_to_string(scratch.path("st/README.md")).unwrap();
        assert!(card.contains("SentenceTransformer(\"st\")"), "{card}");
        // The encoder of the export is a base, whose logits with the dense layer are the task's.
        let again = ["--set", "model.model_name_or_path=st", "--set", "training.output_dir=run2"];
        succeeded(&scratch.train(&[&mean[..], &again].concat()));
        succeeded(&scratch.train(&["--overwrite", "--set", "training.max_steps=4"]));
        let first =
            ["export", "--run", "run", "--format", "sentence-transformers", "--output", "x"];
        refused(&scratch.bitfit(&first), 2, &["first token", "--format hf or peft"]);
    }
}

/// Whatever the unit of the targets, a regression learns, and a resumed run ends in the same bytes.
#[test]
fn large_numbers_are_learned() {
    let scratch = Scratch::new();
    let scored = |text: String| text.replace("positive", "4500000").replace("negative", "4000000");
    scratch.write("train.tsv", scored(crate::common::reviews(96, 1)));
    scratch.write("eval.tsv", scored(crate::common::reviews(32, 2)));
    let set = |more: &[&'static str]| -> Vec<&'static str> {
        let task = ["--set", "model.task_type=regression", "--set", "training.num_train_epochs=10"];
        [&STILL[..], &task, more].concat()
    };
    succeeded(&scratch.train(&set(&[])));
    let summary = std::fs::read_to_string(scratch.path("run/summary.json")).unwrap();
    let best: Value = serde_json::from_str::<Value>(&summary).unwrap()["best"].clone();
    assert!(best["pearson"].as_f64().unwrap() > 0.7, "{best}");
    assert!(best["mae"].as_f64().unwrap() < 200_000.0, "{best}");
    let eval = scratch.bitfit(&["eval", "--run", "run", "--json"]);
    let found: Value = serde_json::from_str(&stdout(&eval)).unwrap();
    assert_eq!(found["metrics"], best);
    let whole = std::fs::read(scratch.path("run/delta.safetensors")).unwrap();
    let again = ["--set", "training.output_dir=again"];
    let first = [&again[..], &["--set", "training.max_steps=17"]].concat();
    succeeded(&scratch.train(&set(&first)));
    succeeded(&scratch.train(&set(&[&again[..], &["--resume"]].concat())));
    assert_eq!(std::fs::read(scratch.path("again/delta.safetensors")).unwrap(), whole);
    // A second run starts where the first ended, whatever its own scale.
    let start = ["--set", "model.init_delta=run/delta.safetensors"];
    let more = ["--set", "training.output_dir=more", "--set", "data.train_samples=50"];
    let slow = ["--set", "training.learning_rate=1e-12"];
    succeeded(&scratch.train(&set(&[&start[..], &more, &slow].concat())));
    let summary = std::fs::read_to_string(scratch.path("more/summary.json")).unwrap();
    let more: Value = serde_json::from_str::<Value>(&summary).unwrap()["best"].clone();
    let close = |key: &str| {
        let (a, b) = (more[key].as_f64().unwrap(), best[key].as_f64().unwrap());
        (a - b).abs() < 1e-3 * b.abs()
    };
    assert!(close("pearson") && close("mae"), "{more} {best}");
    // Without the scale it learns nothing of such numbers.
    let plain = ["--overwrite", "--set", "training.standardize_target=false"];
    succeeded(&scratch.train(&set(&plain)));
    let summary = std::fs::read_to_string(scratch.path("run/summary.json")).unwrap();
    let plain: Value = serde_json::from_str::<Value>(&summary).unwrap()["best"].clone();
    assert!(plain["mae"].as_f64().unwrap() > 4_000_000.0, "{plain}");
    let class = ["--set", "training.standardize_target=true"];
    refused(
        &scratch.train(&class),
        2,
        &["training.standardize_target", "task_type = \"regression\""],
    );
}
