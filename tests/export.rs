//! A task for Python, and how tasks differ. That Python loads it is for scripts/check_export.py to
//! show.

use crate::common::{Scratch, TINY, refused, succeeded};
use bitfit::internal::delta::Delta;
use std::collections::HashMap;
use std::path::Path;
use tch::Tensor;

fn tensors(path: &Path) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A short run of one of the random models, and its export, in a directory of the format's name.
fn exported(model: &str, format: &str) -> Scratch {
    let scratch = Scratch::of(model);
    scratch.config("config.toml", "max_steps = 8");
    succeeded(&scratch.train(&[]));
    let export = ["export", "--run", "run", "--format", format, "--output", format];
    succeeded(&scratch.bitfit(&export));
    scratch
}

#[test]
fn a_merged_checkpoint_is_a_base_that_predicts_the_same() {
    for name in TINY {
        let scratch = exported(name, "hf");
        let predict = |what: [&str; 2]| {
            let output =
                scratch.bitfit(&["predict", what[0], what[1], "the film was great", "awful"]);
            succeeded(&output);
            output.stdout
        };
        assert_eq!(predict(["--run", "run"]), predict(["--model", "hf"]), "{name}");
        let config = json(&scratch.path("hf/config.json"));
        assert_eq!(config["id2label"], serde_json::json!({"0": "negative", "1": "positive"}));
        assert_eq!(config["problem_type"], "single_label_classification");
        // Trained on from there it is another base, and its head is left aside.
        let again = "model.model_name_or_path=hf";
        succeeded(&scratch.train(&["--set", again, "--set", "training.output_dir=run2"]));
        let there = ["export", "--run", "run", "--format", "peft", "--output", "hf"];
        refused(&scratch.bitfit(&there), 1, &["hf", "already exists"]);
        let alone = ["predict", "--model", "base", "a text"];
        refused(&scratch.bitfit(&alone), 1, &["config.json", "a base without a task"]);
    }
}

/// Dense biases as what is added to them, LayerNorms and head whole, each module by its whole path.
#[test]
fn an_adapter_holds_what_the_task_changed() {
    for name in TINY {
        let scratch = exported(name, "peft");
        let base = tensors(&scratch.path("base/model.safetensors"));
        let task = tensors(&scratch.path("run/delta.safetensors"));
        let adapter = tensors(&scratch.path("peft/adapter_model.safetensors"));
        let config = json(&scratch.path("peft/adapter_config.json"));
        let listed = |key: &str, module: &str| {
            config[key].as_array().unwrap().iter().any(|one| one == module)
        };
        let prefix = name.trim_start_matches("tiny-");
        let mut count = 0;
        for (tensor, value) in &task {
            let (module, _) = tensor.rsplit_once('.').unwrap();
            let bare = tensor.strip_prefix(&format!("{prefix}.")).unwrap_or(tensor);
            let own = base.get(tensor).or_else(|| base.get(bare));
            if let Some(change) = adapter.get(&format!("base_model.model.{module}.beft_bias")) {
                assert!(listed("target_modules", module), "{module}");
                assert_eq!(change.squeeze_dim(0), value - own.unwrap(), "{tensor}");
            } else {
                assert!(listed("modules_to_save", module), "{module}");
                assert_eq!(adapter[&format!("base_model.model.{tensor}")], *value, "{tensor}");
                assert!(adapter.contains_key(&format!("base_model.model.{module}.weight")));
            }
            count += 1;
        }
        assert!(count > 20);
        let has_task_type = config.get("task_type").is_some();
        assert_eq!(
            has_task_type,
            name != "tiny-roberta",
            "its head's layers are listed one by one"
        );
    }
}

#[test]
fn changes_are_shown_by_place_and_layer() {
    let scratch = Scratch::new();
    scratch.config("config.toml", "max_steps = 4");
    succeeded(&scratch.train(&[
        "--set",
        "bitfit.bias_terms=[\"query\"]",
        "--set",
        "bitfit.layers=1-",
    ]));
    let delta = "run/delta.safetensors";
    let shown = |more: &[&str]| -> serde_json::Value {
        let mut args = vec!["inspect", "--delta", delta, "--json", "--against"];
        args.extend(more);
        let output = scratch.bitfit(&args);
        succeeded(&output);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let from_base = shown(&["base"]);
    let changes = from_base["changes"].as_array().unwrap();
    assert!(changes.iter().any(|c| c["term"] == "query" && c["layer"] == 1), "{from_base}");
    assert!(changes.iter().all(|c| c["rms"].as_f64().unwrap() > 0.0), "all that trained moved");
    assert!(!changes.iter().any(|c| c["layer"] == 0 || c["term"] == "value"), "{from_base}");
    let from_itself = shown(&[delta]);
    let changes = from_itself["changes"].as_array().unwrap();
    assert!(changes.iter().all(|c| c["rms"] == 0.0 && c["largest"] == 0.0));
    for (sets, part) in [
        (
            ["bitfit.bias_terms=[\"value\"]", "bitfit.train_attention_bias=false"],
            "train_attention_bias = false",
        ),
        (["bitfit.bias_terms=[\"key\"]", "bitfit.train_key_bias=false"], "train_key_bias = false"),
        (["bitfit.layers=9-", "training.output_dir=other"], "found layer 9"),
        (["bitfit.layers=x", "training.output_dir=other"], "layers by number"),
    ] {
        let sets = sets.map(|set| ["--set", set]).concat();
        refused(&scratch.train(&sets), 2, &[part]);
    }
}

/// AdamW's first step is the rate itself wherever there is a gradient, so the rates of the groups
/// can be read off.
#[test]
fn each_group_learns_at_its_own_rate() {
    let scratch = Scratch::new();
    scratch.config("config.toml", "max_steps = 1");
    let rates = [("attention", 1e-3), ("feedforward", 2e-3), ("layer_norm", 3e-3), ("other", 4e-3)];
    let sets = rates.map(|(group, rate)| format!("bitfit.{group}_learning_rate={rate}"));
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    succeeded(&scratch.train(&sets));
    let args = ["inspect", "--delta", "run/delta.safetensors", "--against", "base", "--json"];
    let output = scratch.bitfit(&args);
    succeeded(&output);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for change in found["changes"].as_array().unwrap() {
        let group = change["group"].as_str().unwrap();
        let Some((_, rate)) = rates.iter().find(|(name, _)| *name == group) else { continue };
        let largest = change["largest"].as_f64().unwrap();
        // The key bias has no gradient but rounding, whose step is anything up to the rate.
        let least = if change["term"] == "key" { 0.0 } else { 0.99 * rate };
        assert!((least..1.01 * rate).contains(&largest), "{rate}: {change}");
        seen.insert(group);
    }
    assert_eq!(seen.len(), 4, "{found}");
}

#[test]
fn a_model_card_is_beside_each_export() {
    for (format, library, relation) in
        [("hf", "transformers", "finetune"), ("peft", "peft", "adapter")]
    {
        let scratch = exported("tiny-bert", format);
        let card = std::fs::read_to_string(scratch.path(format).join("README.md")).unwrap();
        let (front, body) = card.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap();
        for line in [
            &format!("library_name: {library}"),
            "base_model: \"base\"",
            &format!("base_model_relation: {relation}"),
            "pipeline_tag: text-classification",
            "- bitfit",
            "- accuracy",
            "- matthews_correlation",
            // The file with its folder.
            "/eval.tsv\"",
        ] {
            assert!(front.lines().any(|found| found.ends_with(line)), "{line:?} in {front}");
        }
        let delta = Delta::read(&scratch.path("run/delta.safetensors")).unwrap();
        for value in delta.meta.metrics.values() {
            assert!(front.contains(&format!("      value: {}\n", serde_json::json!(value))));
            assert!(body.contains(&format!(" | {value:.4} |")), "{value} in {body}");
        }
        for part in [
            "`negative`, `positive`",
            "| learning_rate | 1e-2 |",
            "| classifier | 2 | ",
            "max_length=32",
            "## Limitations",
            &delta.meta.base_fingerprint,
        ] {
            assert!(body.contains(part), "{part:?} in {body}");
        }
        let folder = scratch.path("");
        assert!(!card.contains(folder.to_str().unwrap()), "where it was made is nobody's business");
    }
    // Of a delta alone it says what that says.
    let scratch = exported("tiny-bert", "hf");
    let alone = [
        "export",
        "--model",
        "base",
        "--delta",
        "run/delta.safetensors",
        "--format",
        "hf",
        "--output",
        "alone",
    ];
    succeeded(&scratch.bitfit(&alone));
    let card = std::fs::read_to_string(scratch.path("alone/README.md")).unwrap();
    assert!(
        card.contains("The settings of the training are unknown")
            && !card.contains("## How it was")
    );
    assert!(card.contains("value: "));
}
