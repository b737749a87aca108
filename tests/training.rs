//! Whole runs of the binaries on a tiny model.

use crate::common::{STILL, Scratch, TINY, refused, reviews, stderr, stdout, succeeded};
use bitfit::internal::config::Run;
use bitfit::internal::delta::Delta;
use bitfit::internal::sources::Sources;
use bitfit::internal::train::{ModelPlan, Session};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use tch::Tensor;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn summary(scratch: &Scratch, run: &str) -> Value {
    json(&std::fs::read_to_string(scratch.path(&format!("{run}/summary.json"))).unwrap())
}

fn files(scratch: &Scratch, folder: &str) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(scratch.path(folder))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                std::fs::read(&path).unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_run_learns_leaves_the_base_alone_and_can_be_used() {
    let scratch = Scratch::new();
    let before = files(&scratch, "base");
    // Dropout is much for so small a model and so short a run.
    let sets = [
        "model.hidden_dropout_prob=0",
        "model.attention_probs_dropout_prob=0",
        "training.num_train_epochs=3",
        "training.eval_steps=12",
        "training.save_steps=12",
        "training.logging_steps=6",
    ];
    let output = scratch.train(&sets.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>());
    succeeded(&output);
    assert_eq!(before, files(&scratch, "base"), "the base is never written to");
    for part in ["trainable", "positive", "evaluation accuracy", "36 steps"] {
        assert!(stderr(&output).contains(part), "expected {part:?} in: {}", stderr(&output));
    }
    let summary = summary(&scratch, "run");
    let accuracy = summary["best"]["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.9, "{summary}");
    assert_eq!(
        (summary["steps"].as_u64(), summary["interrupted"].as_bool()),
        (Some(36), Some(false))
    );
    assert!(summary["trainable"].as_u64().unwrap() < summary["all"].as_u64().unwrap() / 10);
    let told = "INFO the constant answer \"negative\" (largest class): accuracy 0.5000, f1 0.0000, f1_macro 0.3333, \
                f1_micro 0.5000, matthews 0.0000; the model is better (McNemar's exact test, p ";
    assert!(stderr(&output).contains(told), "{}", stderr(&output));
    let constant = &summary["constant"];
    assert_eq!((&constant["answer"], &constant["verdict"]), (&"negative".into(), &"better".into()));
    assert!(constant["p"].as_f64().unwrap() < 0.001 && summary["advice"].is_null(), "{summary}");

    logs_and_saves_when_asked(&scratch);
    evaluates_as_the_training_did(&scratch, &summary);
    predicts_the_same_from_everywhere(&scratch);
    inspect_counts_what_trained(&scratch, &summary);
}

/// 36 steps, a line every 6; an evaluation every 12.
fn logs_and_saves_when_asked(scratch: &Scratch) {
    let lines: Vec<Value> = std::fs::read_to_string(scratch.path("run/metrics.jsonl"))
        .unwrap()
        .lines()
        .map(json)
        .collect();
    let steps = |key: &str| -> Vec<u64> {
        lines.iter().filter(|l| l.get(key).is_some()).map(|l| l["step"].as_u64().unwrap()).collect()
    };
    assert_eq!(steps("loss"), [6, 12, 18, 24, 30, 36]);
    assert_eq!(steps("eval_loss"), [12, 24, 36]);
    let saved: Vec<_> = ["step-000012", "step-000024", "step-000036"]
        .map(|step| scratch.path(&format!("run/checkpoints/{step}/delta.safetensors")).exists())
        .into();
    assert_eq!(saved, [false, true, true], "the newest two are kept");
}

/// The delta and the base give the very evaluation that chose the delta.
fn evaluates_as_the_training_did(scratch: &Scratch, summary: &Value) {
    let eval = scratch.bitfit(&["eval", "--run", "run", "--json"]);
    succeeded(&eval);
    let metrics = json(&stdout(&eval));
    assert_eq!(metrics["metrics"], summary["best"]);
    assert_eq!(metrics["constant"], summary["constant"]);
    assert_eq!(metrics["rows"], 32);
    let shown = stdout(&scratch.bitfit(&["eval", "--run", "run"]));
    assert!(shown.lines().nth(1).unwrap().starts_with("the constant answer \"negative\" ("));
    assert!(shown.lines().nth(2).unwrap().is_empty(), "{shown}");
    let same = [
        "eval",
        "--model",
        "base",
        "--delta",
        "run/delta.safetensors",
        "--data",
        "eval.tsv",
        "--json",
    ];
    assert_eq!(stdout(&scratch.bitfit(&same)), stdout(&eval));
}

/// Predictions from arguments, a file, a table and standard input are the same.
fn predicts_the_same_from_everywhere(scratch: &Scratch) {
    let texts = ["the film was very good and it was great", "the plot was awful and it was hated"];
    let predict = scratch.bitfit(&["predict", "--run", "run", texts[0], texts[1]]);
    succeeded(&predict);
    let rows: Vec<Value> = stdout(&predict).lines().map(json).collect();
    assert_eq!(
        rows.iter().map(|r| r["label"].as_str().unwrap()).collect::<Vec<_>>(),
        ["positive", "negative"]
    );
    for row in &rows {
        let scores = row["scores"].as_object().unwrap();
        assert_eq!(scores.keys().collect::<Vec<_>>(), ["negative", "positive"]);
        assert!((scores.values().map(|s| s.as_f64().unwrap()).sum::<f64>() - 1.0).abs() < 1e-5);
        assert_eq!(row["score"], scores[row["label"].as_str().unwrap()]);
    }
    let lines = texts.join("\n");
    scratch.write("texts.txt", &lines);
    scratch.write("texts.csv", format!("id,text\n1,{}\n2,{}\n", texts[0], texts[1]));
    for input in ["texts.txt", "texts.csv"] {
        assert_eq!(
            stdout(&scratch.bitfit(&["predict", "--run", "run", "--input", input])),
            stdout(&predict),
            "{input}"
        );
    }
    // Standard input is answered as it comes, in other batches, whose rounding may differ.
    let piped = stdout(&scratch.bitfit_with(&["predict", "--run", "run", "--input", "-"], &lines));
    for (row, line) in rows.iter().zip(piped.lines().map(json)) {
        assert_eq!((&row["text"], &row["label"]), (&line["text"], &line["label"]));
        assert!((row["score"].as_f64().unwrap() - line["score"].as_f64().unwrap()).abs() < 1e-5);
    }
    assert_eq!(piped.lines().count(), 2);
    succeeded(&scratch.bitfit(&[
        "predict",
        "--run",
        "run",
        "--input",
        "texts.txt",
        "--output",
        "out.jsonl",
    ]));
    assert_eq!(std::fs::read_to_string(scratch.path("out.jsonl")).unwrap(), stdout(&predict));
}

/// Configuration, model and delta have the counts of the summary.
fn inspect_counts_what_trained(scratch: &Scratch, summary: &Value) {
    let said = |args: &[&str]| json(&stdout(&scratch.bitfit(args)));
    let trainable = &summary["trainable"];
    assert_eq!(
        said(&["inspect", "--config", "config.toml", "--json"])["counts"]["trainable"],
        *trainable
    );
    assert_eq!(said(&["inspect", "--model", "base", "--json"])["counts"]["trainable"], *trainable);
    let delta = said(&["inspect", "--delta", "run/delta.safetensors", "--json"]);
    let sizes = delta["tensors"].as_object().unwrap().values();
    let count: u64 = sizes
        .map(|shape| shape.as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product::<u64>())
        .sum();
    assert_eq!(count, trainable.as_u64().unwrap());
}

/// `--dry-run` and `inspect` end with the plan: parameters that train are still the base's, without
/// gradient.
#[test]
fn a_plan_has_no_optimizer_and_a_session_has() {
    let scratch = Scratch::new();
    let run = Run::read(&scratch.path("config.toml"), &[]).unwrap();
    let sources = Sources::find(&run, &mut |_, _, _| panic!("a download")).unwrap();
    let plan = ModelPlan::read(&run, &sources).unwrap();
    let variables = |plan: &ModelPlan| plan.model.store.variables();
    let name = "bert.encoder.layer.0.output.dense.bias";
    let before = &plan.initial.biases[name];
    let moved = |plan: &ModelPlan| variables(plan)[name].data_ptr() != before.data_ptr();
    let with_gradient = |plan: &ModelPlan| {
        variables(plan).values().filter(|variable| variable.grad().defined()).count()
    };
    assert!(variables(&plan)[name].requires_grad());
    assert_eq!((moved(&plan), with_gradient(&plan)), (false, 0));
    let (trains, before) = (plan.freeze.trainable().count(), before.shallow_clone());
    let session = Session::start(&run, plan).unwrap();
    let plan = &session.plan;
    assert_ne!(variables(plan)[name].data_ptr(), before.data_ptr());
    assert_eq!(with_gradient(plan), trains);
}

#[test]
fn the_same_run_gives_the_same_bytes_and_another_seed_others() {
    let scratch = Scratch::new();
    let run = |name: &str, seed: &str| {
        let (dir, seed) = (format!("training.output_dir={name}"), format!("training.seed={seed}"));
        succeeded(&scratch.train(&["--set", &dir, "--set", &seed]));
        std::fs::read(scratch.path(&format!("{name}/delta.safetensors"))).unwrap()
    };
    let first = run("one", "5");
    assert!(first == run("two", "5"), "the same run, the same bytes");
    assert!(first != run("three", "6"));
}

#[test]
fn a_run_is_not_written_over_by_accident() {
    let scratch = Scratch::new();
    // What no run wrote is not replaced at all, and the base is not written to.
    scratch.write("mine/checkpoints/x", "mine");
    let mine = ["--overwrite", "--set", "training.output_dir=mine"];
    refused(&scratch.train(&mine), 2, &["mine holds checkpoints", "not from a run"]);
    assert!(scratch.path("mine/checkpoints/x").exists());
    scratch.write("model/vocab.txt", "another model's");
    refused(
        &scratch.train(&["--set", "training.output_dir=model"]),
        2,
        &["model holds vocab.txt", "not from a run"],
    );
    let base = ["--set", "training.output_dir=base"];
    refused(&scratch.train(&base), 2, &["training.output_dir", "never written to"]);
    succeeded(&scratch.train(&["--set", "training.max_steps=2"]));
    let before = std::fs::read(scratch.path("run/delta.safetensors")).unwrap();
    refused(&scratch.train(&[]), 2, &["already holds a run", "--overwrite"]);
    assert_eq!(before, std::fs::read(scratch.path("run/delta.safetensors")).unwrap());
    // Nor is what a run starts from removed for it.
    let start = ["--overwrite", "--set", "model.init_delta=run/delta.safetensors"];
    refused(&scratch.train(&start), 2, &["training.output_dir", "init_delta"]);
    // A run that cannot start loses nothing either.
    refused(
        &scratch.train(&["--overwrite", "--set", "data.train=nowhere.tsv"]),
        1,
        &["nowhere.tsv"],
    );
    assert_eq!(before, std::fs::read(scratch.path("run/delta.safetensors")).unwrap());
    succeeded(&scratch.train(&["--overwrite", "--set", "training.max_steps=4"]));
    assert_eq!(summary(&scratch, "run")["steps"], 4);
    let steps = bitfit::internal::checkpoint::steps(&scratch.path("run")).unwrap();
    assert_eq!(
        steps.iter().map(|(step, _)| *step).collect::<Vec<_>>(),
        [4],
        "nothing of the old run is left"
    );
}

#[test]
fn switches_decide_what_changes() {
    let scratch = Scratch::new();
    let off = [
        "train_attention_bias",
        "train_feedforward_bias",
        "train_other_bias",
        "train_classifier_bias",
        "train_classifier_weight",
    ];
    let sets: Vec<String> = off
        .iter()
        .map(|key| format!("bitfit.{key}=false"))
        .chain(["training.max_steps=4".into()])
        .collect();
    succeeded(&scratch.train(&sets.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>()));
    let delta = Delta::read(&scratch.path("run/delta.safetensors")).unwrap();
    assert!(delta.meta.freeze_plan.iter().all(|name| name.ends_with("LayerNorm.bias")));
    assert_eq!(delta.meta.freeze_plan.len(), 7);
    // The head did not train, and is in no base: it is there all the same.
    assert_eq!(delta.tensors.len(), 9);
    assert!(delta.tensors.contains_key("classifier.weight"));
    succeeded(&scratch.bitfit(&["eval", "--run", "run"]));
}

#[test]
fn another_runs_delta_is_a_start() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&[]));
    let best = summary(&scratch, "run")["best"]["loss"].as_f64().unwrap();
    let more = [
        "--set",
        "model.init_delta=run/delta.safetensors",
        "--set",
        "training.output_dir=more",
        "--set",
        "training.max_steps=1",
    ];
    let rate = ["--set", "training.learning_rate=1e-9"];
    succeeded(&scratch.train(&[&more[..], &rate].concat()));
    let started = summary(&scratch, "more")["best"]["loss"].as_f64().unwrap();
    assert!((started - best).abs() < 1e-4, "{started} and {best}");
}

#[test]
fn a_program_can_read_along() {
    let scratch = Scratch::new();
    let output = scratch.train(&["--json", "--set", "bitfit.bias_learning_rate=5e-3"]);
    succeeded(&output);
    let lines: Vec<Value> = stdout(&output).lines().map(json).collect();
    assert_eq!(lines.len(), 6 + 3 + 1);
    assert_eq!(lines.last().unwrap()["summary"]["steps"], 24);
    stderr(&output).lines().for_each(|line| drop(json(line)));
    let output = scratch.train(&["--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(json(&stderr(&output))["exit_code"], 2);
    let output = scratch.train(&["--dry-run", "--json", "--set", "training.output_dir=dry"]);
    succeeded(&output);
    assert!(json(&stdout(&output))["counts"]["trainable"].as_u64().unwrap() > 0);
    assert!(!scratch.path("dry").exists());
}

#[test]
fn pairs_are_trained_and_predicted_from_two_columns() {
    let scratch = Scratch::new();
    let rows = "a\tb\tsame\nthe film\tthe film\tyes\nthe plot\tgreat acting\tno\ngreat\tgreat\tyes\nthe film\tawful\tno\n";
    scratch.write("pairs.tsv", rows);
    let config = std::fs::read_to_string(scratch.path("config.toml")).unwrap();
    let columns =
        "text_column = \"a\"\ntext_pair_column = \"b\"\nlabel_column = \"same\"\n[training]";
    let config = config
        .replace("train.tsv", "pairs.tsv")
        .replace("eval.tsv", "pairs.tsv")
        .replace("[training]", columns);
    scratch.write("config.toml", config);
    succeeded(&scratch.train(&["--set", "training.max_steps=2"]));
    let output = scratch.bitfit(&["predict", "--run", "run", "--input", "pairs.tsv"]);
    succeeded(&output);
    let first = json(stdout(&output).lines().next().unwrap());
    assert_eq!((&first["text"], &first["text_pair"]), (&"the film".into(), &"the film".into()));
    assert_eq!(stdout(&output).lines().count(), 4);
    refused(
        &scratch.bitfit(&["predict", "--run", "run", "one text"]),
        2,
        &["pairs of texts", "--text-pair", "--input"],
    );
    let output =
        scratch.bitfit(&["predict", "--run", "run", "the film", "--text-pair", "the film"]);
    assert_eq!(json(&stdout(&output))["label"], first["label"]);
    refused(
        &scratch.bitfit(&["predict", "--run", "run", "a", "b", "--text-pair", "c"]),
        2,
        &["--text-pair", "found 2"],
    );
    let wrong = ["--overwrite", "--set", "data.text_pair_column=c"];
    refused(&scratch.train(&wrong), 1, &["pairs.tsv:1", "\"c\" (text_pair_column)", "a, b, same"]);
    // A base that knows one segment only.
    let json = std::fs::read_to_string(scratch.path("base/config.json")).unwrap();
    scratch.write(
        "base/config.json",
        json.replace("\"type_vocab_size\": 2", "\"type_vocab_size\": 1"),
    );
    let weights = scratch.path("base/model.safetensors");
    let mut tensors = Tensor::read_safetensors(&weights).unwrap();
    for (name, tensor) in &mut tensors {
        if name.ends_with("token_type_embeddings.weight") {
            *tensor = tensor.narrow(0, 0, 1);
        }
    }
    Tensor::write_safetensors(&tensors, &weights).unwrap();
    refused(&scratch.train(&["--overwrite"]), 1, &["pairs", "type_vocab_size = 1"]);
}

/// The whole way for each architecture: learn, evaluate, predict, the base untouched; and the same
/// from its TorchScript archive.
#[test]
fn every_architecture_learns_and_can_be_used() {
    for name in TINY {
        let scratch = Scratch::of(name);
        let before = files(&scratch, "base");
        let still = [&STILL[..], &["--set", "training.num_train_epochs=4"]].concat();
        succeeded(&scratch.train(&still));
        assert_eq!(files(&scratch, "base"), before, "{name}");
        let best = &summary(&scratch, "run")["best"];
        assert!(best["accuracy"].as_f64().unwrap() > 0.85, "{name}: {best}");
        let delta = std::fs::read(scratch.path("run/delta.safetensors")).unwrap();
        let predict = ["predict", "--run", "run", "--input", "eval.tsv"];
        let output = scratch.bitfit(&predict);
        succeeded(&output);
        let convert = ["convert", "--model", "base", "--output", "base/model.ot"];
        succeeded(&scratch.bitfit(&convert));
        std::fs::remove_file(scratch.path("base/model.safetensors")).unwrap();
        assert_eq!(stdout(&scratch.bitfit(&predict)), stdout(&output), "{name}");
        succeeded(&scratch.train(&[&still[..], &["--overwrite"]].concat()));
        assert_eq!(std::fs::read(scratch.path("run/delta.safetensors")).unwrap(), delta, "{name}");
        // What the run directory has is a tokenizer, whichever files that takes.
        for file in std::fs::read_dir(scratch.path("base")).unwrap() {
            let file = file.unwrap().path();
            let kept = ["vocab", "merges", "tokenizer"]
                .iter()
                .any(|kind| file.file_name().unwrap().to_string_lossy().starts_with(kind));
            if kept {
                std::fs::remove_file(file).unwrap();
            }
        }
        assert_eq!(stdout(&scratch.bitfit(&predict)), stdout(&output), "{name}");
        succeeded(&scratch.bitfit(&["inspect", "--delta", "run/delta.safetensors"]));
    }
}

#[test]
fn a_number_is_learned_measured_and_predicted() {
    let scratch = Scratch::new();
    let scored = |text: String| text.replace("positive", "4.5").replace("negative", "0.5");
    scratch.write("train.tsv", scored(crate::common::reviews(96, 1)));
    scratch.write("eval.tsv", scored(crate::common::reviews(32, 2)));
    let regression =
        ["--set", "model.task_type=regression", "--set", "training.num_train_epochs=10"];
    let regression = [&STILL[..], &regression].concat();
    succeeded(&scratch.train(&regression));
    let standardized = &summary(&scratch, "run")["best"];
    assert!(standardized["pearson"].as_f64().unwrap() > 0.7, "{standardized}");
    let as_written = ["--set", "training.standardize_target=false", "--overwrite"];
    succeeded(&scratch.train(&[&regression[..], &as_written].concat()));
    let best = &summary(&scratch, "run")["best"];
    assert!(
        best["pearson"].as_f64().unwrap() > 0.8 && best["spearman"].as_f64().unwrap() > 0.7,
        "{best}"
    );
    assert!(
        (best["mse"].as_f64().unwrap() - best["loss"].as_f64().unwrap()).abs() < 1e-5,
        "{best}"
    );
    let config = std::fs::read_to_string(scratch.path("run/config.toml")).unwrap();
    assert!(
        config.contains("task_type = \"regression\"")
            && config.contains("metric_for_best_model = \"pearson\""),
        "{config}"
    );
    let output = scratch.bitfit(&["eval", "--run", "run", "--json"]);
    assert_eq!(json(&stdout(&output))["metrics"], *best);
    let constant = &json(&stdout(&output))["constant"];
    assert_eq!((&constant["test"], &constant["verdict"]), (&"paired_t".into(), &"better".into()));
    assert!(constant["answer"].is_f64() && constant["metrics"]["mse"].as_f64().unwrap() > 1.0);
    let output = scratch.bitfit(&[
        "predict",
        "--run",
        "run",
        "the film was great and it was loved",
        "the film was awful and it was hated",
    ]);
    let scores: Vec<Value> = stdout(&output).lines().map(json).collect();
    assert!(
        scores[0]["score"].as_f64().unwrap() > scores[1]["score"].as_f64().unwrap() + 1.0,
        "{scores:?}"
    );
    assert_eq!(scores[0].as_object().unwrap().keys().collect::<Vec<_>>(), ["text", "score"]);
    // A label that is no number; a metric, a count of labels or names that a number does not have.
    let set =
        |more: &[&'static str]| scratch.train(&[&regression[..], &["--overwrite"], more].concat());
    refused(
        &set(&["--set", "training.metric_for_best_model=f1"]),
        2,
        &["found f1", "pearson, spearman", "regression"],
    );
    refused(&set(&["--set", "model.num_labels=2"]), 2, &["num_labels", "found 2", "expected 1"]);
    refused(
        &set(&["--set", "model.label_names=[\"a\"]"]),
        2,
        &["label_names", "none with task_type"],
    );
    scratch.write("train.tsv", "text\tlabel\na\t1\nb\tgood\n");
    refused(&set(&[]), 1, &["train.tsv:3", "label \"good\"", "expected a number"]);
}

#[test]
fn several_labels_are_learned_measured_and_predicted() {
    let scratch = Scratch::new();
    let tagged = |text: String| {
        let rows = text.lines().skip(1).map(|line| {
            let (text, label) = line.split_once('\t').unwrap();
            let about = if text.contains("film") { " film" } else { "" };
            format!("{text}\t{}{about}\n", if label == "positive" { "good" } else { "" })
        });
        format!("text\tlabel\n{}", rows.collect::<String>())
    };
    scratch.write("train.tsv", tagged(crate::common::reviews(96, 1)));
    scratch.write("eval.tsv", tagged(crate::common::reviews(48, 1)));
    let task = ["--set", "model.task_type=multi_label", "--set", "data.label_separator=' '"];
    let task = [&STILL[..], &["--set", "training.num_train_epochs=20"], &task].concat();
    succeeded(&scratch.train(&task));
    let best = &summary(&scratch, "run")["best"];
    assert!(best["f1_micro"].as_f64().unwrap() > 0.85, "{best}");
    let output = scratch.bitfit(&["eval", "--run", "run", "--json"]);
    let found = json(&stdout(&output));
    assert_eq!(found["metrics"], *best);
    assert_eq!(found["report"]["classes"][0]["label"], "film");
    let constant = &found["constant"];
    assert_eq!((&constant["test"], &constant["verdict"]), (&"sign".into(), &"better".into()));
    assert_eq!(constant["answer"], serde_json::json!([]), "no label is on more than half");
    let output = scratch.bitfit(&[
        "predict",
        "--run",
        "run",
        "the film was great and it was loved",
        "the plot was awful and it was hated",
    ]);
    let rows: Vec<Value> = stdout(&output).lines().map(json).collect();
    assert_eq!(rows[0]["labels"], serde_json::json!(["film", "good"]));
    assert_eq!(rows[1]["labels"], serde_json::json!([]));
    assert_eq!(rows[0]["scores"].as_object().unwrap().keys().collect::<Vec<_>>(), ["film", "good"]);
    assert!(rows[0].get("label").is_none() && rows[0].get("score").is_none());
    // A delta of several labels says so.
    let output = scratch.bitfit(&["inspect", "--delta", "run/delta.safetensors"]);
    assert!(
        stdout(&output).contains("task         multi_label: film, good"),
        "{}",
        stdout(&output)
    );
    refused(
        &scratch.train(&["--overwrite", "--set", "data.label_separator=' '"]),
        2,
        &["label_separator", "multi_label"],
    );
    refused(
        &scratch.train(
            &[&task[..], &["--overwrite", "--set", "training.metric_for_best_model=matthews"]]
                .concat(),
        ),
        2,
        &["f1_micro, f1_macro"],
    );
}

/// The same text in each row, so that only the labels' frequencies can be learned.
#[test]
fn a_run_that_has_not_learned_says_so() {
    let scratch = Scratch::new();
    let rows = "the film\tyes\nthe film\tno\nthe film\tyes\n".repeat(16);
    for file in ["train.tsv", "eval.tsv"] {
        scratch.write(file, format!("text\tlabel\n{rows}"));
    }
    let output = scratch.train(&["--set", "training.max_steps=12", "--set", "training.seed=1"]);
    succeeded(&output);
    let summary = summary(&scratch, "run");
    let constant = &summary["constant"];
    assert_eq!((&constant["answer"], &constant["learned"]), (&"yes".into(), &false.into()));
    let advice = summary["advice"].as_str().unwrap();
    assert!(advice.starts_with("try ") && advice.contains("(found "), "{advice}");
    let told = stderr(&output);
    let line = told.lines().find(|line| line.contains("the constant answer")).unwrap();
    assert!(line.contains("WARN") && line.contains("(largest class): accuracy 0.6667"), "{line}");
    assert!(line.contains("McNemar's exact test, p ") && line.contains(": it has not learned; "));
    assert!(line.ends_with(advice), "{line}");
    let shown = stdout(&scratch.bitfit(&["eval", "--run", "run"]));
    assert!(shown.lines().nth(1).unwrap().ends_with(": it has not learned"), "{shown}");
    // A summary of an older version has no such keys.
    let mut old = summary.clone();
    for key in ["constant", "advice"] {
        assert!(old.as_object_mut().unwrap().remove(key).is_some());
    }
    scratch.write("run/summary.json", old.to_string());
    let runs = scratch.bitfit(&["inspect", "--runs", "run", "--json"]);
    succeeded(&runs);
    let shown = json(&stdout(&runs));
    assert_eq!(shown[0]["summary"]["best"], summary["best"]);
    assert!(shown[0]["summary"]["constant"].is_null(), "{shown}");
}

#[test]
fn rows_can_be_drawn_and_the_evaluation_knows_which() {
    let scratch = Scratch::new();
    let draw =
        ["--set", "data.train_samples=40", "--set", "data.eval_samples=10", "--set", "data.seed=5"];
    let output = scratch.train(&draw);
    succeeded(&output);
    assert!(
        stderr(&output).contains("40 training rows, 10 evaluation rows"),
        "{}",
        stderr(&output)
    );
    let eval = json(&stdout(&scratch.bitfit(&["eval", "--run", "run", "--json"])));
    assert_eq!(eval["rows"], 10);
    assert_eq!(eval["metrics"], summary(&scratch, "run")["best"]);
    let output = scratch.train(&["--dry-run", "--overwrite", "--set", "data.train_samples=1000"]);
    succeeded(&output);
    assert!(
        stderr(&output).contains("data.train_samples = 1000, but there are only 96 rows"),
        "{}",
        stderr(&output)
    );
    refused(
        &scratch.train(&["--overwrite", "--set", "data.train_samples=0"]),
        2,
        &["train_samples", "1 or more"],
    );
}

#[test]
fn data_without_an_evaluation_file_is_split() {
    let scratch = Scratch::new();
    let config = std::fs::read_to_string(scratch.path("config.toml"))
        .unwrap()
        .replace("eval = \"eval.tsv\"", "eval_fraction = 0.25");
    scratch.write("config.toml", config);
    let output = scratch.train(&["--set", "training.max_steps=8"]);
    succeeded(&output);
    assert!(
        stderr(&output).contains("72 training rows, 24 evaluation rows"),
        "{}",
        stderr(&output)
    );
    let eval = json(&stdout(&scratch.bitfit(&["eval", "--run", "run", "--json"])));
    assert_eq!(eval["metrics"], summary(&scratch, "run")["best"], "eval draws the same rows");
}

/// Starts a long run and waits for its first line of metrics.
fn long_run(
    scratch: &Scratch,
    sets: &[&str],
) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitfit-train"));
    command.arg("--config").arg(scratch.path("config.toml")).args([
        "--json",
        "--set",
        "training.max_steps=1000000",
    ]);
    sets.iter().for_each(|set| {
        command.arg("--set").arg(set);
    });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    (child, out)
}

fn signal(child: &std::process::Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Waits until the process catches SIGINT, bit 1 of its mask, which it does before it reads
/// anything.
fn handles_signals(child: &std::process::Child) {
    let caught = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap() & 2 != 0
    };
    while !caught() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_signal_ends_a_run_with_the_best_so_far() {
    for (name, sets, best) in
        [("-INT", "training.eval_steps=2", true), ("-TERM", "training.eval_strategy=no", false)]
    {
        let scratch = Scratch::new();
        let (mut child, mut out) = long_run(&scratch, &[sets]);
        signal(&child, name);
        std::io::Read::read_to_end(&mut out, &mut vec![]).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        let summary = summary(&scratch, "run");
        assert_eq!(summary["interrupted"], true);
        assert_eq!(summary["best_step"].is_u64(), best, "{summary}");
        succeeded(&scratch.bitfit(&["predict", "--run", "run", "the film was great"]));
    }
}

/// A reader that has seen enough, such as head, does not end a run.
#[test]
fn a_run_goes_on_when_nobody_reads_along() {
    let scratch = Scratch::new();
    let (mut child, out) = long_run(&scratch, &["training.max_steps=16"]);
    drop(out);
    assert!(child.wait().unwrap().success());
    assert_eq!(summary(&scratch, "run")["steps"], 16);
}

#[test]
fn one_directory_is_one_runs() {
    let scratch = Scratch::new();
    let (mut child, _out) = long_run(&scratch, &[]);
    refused(&scratch.train(&["--overwrite"]), 2, &["another run is writing"]);
    signal(&child, "-KILL");
    child.wait().unwrap();
    succeeded(&scratch.train(&["--overwrite", "--set", "training.max_steps=1"]));
}

#[test]
fn the_last_state_is_kept_where_it_is_asked_for() {
    let scratch = Scratch::new();
    let sets = [
        "training.load_best_model_at_end=false",
        "training.eval_steps=3",
        "training.logging_steps=1",
    ];
    let (mut child, mut out) = long_run(&scratch, &sets);
    // The second line of step 4 is out before the signal, so the run ends after step 5 or later.
    for _ in 0..4 {
        out.read_line(&mut String::new()).unwrap();
    }
    signal(&child, "-INT");
    std::io::Read::read_to_end(&mut out, &mut vec![]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let steps = summary(&scratch, "run")["steps"].as_u64().unwrap();
    let best = summary(&scratch, "run")["best_step"].as_u64();
    assert!(best.is_none_or(|step| step == steps), "{best:?} of {steps}");
    succeeded(&scratch.bitfit(&["eval", "--run", "run"]));
}

#[test]
fn an_interrupted_prediction_leaves_nothing_behind() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&["--set", "training.max_steps=1"]));
    scratch.write("out/texts.txt", "the film was great\n".repeat(2_000_000));
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitfit"));
    command.args(["predict", "--input"]).arg(scratch.path("out/texts.txt"));
    command
        .arg("--run")
        .arg(scratch.path("run"))
        .arg("--output")
        .arg(scratch.path("out/labels.jsonl"));
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let names = || files(&scratch, "out").into_keys().collect::<Vec<_>>();
    while names().len() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(child.try_wait().unwrap().is_none(), "it ended before the signal");
    }
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(names(), ["texts.txt"]);
}

/// The second signal ends the process at once, in the middle of what libtorch is doing: here one
/// step of many rows.
#[test]
fn a_second_signal_ends_a_run_at_once() {
    let scratch = Scratch::new();
    scratch.write("train.tsv", reviews(20_000, 1));
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitfit-train"));
    command.arg("--config").arg(scratch.path("config.toml"));
    command.args(["--set", "training.per_device_train_batch_size=20000"]).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    while !scratch.path("run/vocab.txt").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert!(child.try_wait().unwrap().is_none(), "it ended before the signal");
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    signal(&child, "-INT");
    std::thread::sleep(std::time::Duration::from_millis(50));
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!scratch.path("run/summary.json").exists(), "it did not wait for the step");
}

/// A run that is stopped before its first step has changed nothing: the run it was to replace is
/// still there.
#[test]
fn a_signal_while_reading_changes_nothing() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&["--set", "training.max_steps=1"]));
    let before = files(&scratch, "run");
    scratch.write("train.tsv", reviews(200_000, 1));
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitfit-train"));
    command
        .arg("--config")
        .arg(scratch.path("config.toml"))
        .arg("--overwrite")
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    handles_signals(&child);
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    refused(&output, 130, &["nothing was changed"]);
    assert_eq!(before, files(&scratch, "run"));
}

#[test]
fn bad_data_is_refused_before_anything_is_written() {
    let scratch = Scratch::new();
    for (text, parts) in [
        ("", ["train.tsv:1", "no column"]),
        ("text\tlabel\n", ["train.tsv", "no rows"]),
        ("text\tlabel\na\tx\nb\tx\n", ["train.tsv", "one class only"]),
        ("text\tlabel\na\tpositive\nb\n", ["train.tsv:3", "1 columns, expected 2"]),
    ] {
        scratch.write("train.tsv", text);
        refused(&scratch.train(&[]), 1, &parts);
        assert!(!scratch.path("run").exists());
    }
    scratch.write("train.tsv", "text\tlabel\na\t0\nb\t1\nc\t2\n");
    refused(
        &scratch.train(&["--set", "model.num_labels=2"]),
        1,
        &["train.tsv:4", "label \"2\"", "one of 0, 1"],
    );
    scratch.write("train.tsv", "text\tlabel\na\t0\nb\t0\n");
    scratch.write("eval.tsv", "text\tlabel\na\t1\n");
    refused(&scratch.train(&["--set", "model.num_labels=2"]), 1, &["train.tsv", "one class only"]);
    // A label that training never saw.
    let scratch = Scratch::new();
    scratch.write("eval.tsv", "text\tlabel\na\tneutral\n");
    refused(&scratch.train(&[]), 1, &["eval.tsv:2", "\"neutral\"", "negative, positive"]);
}

#[test]
fn a_run_that_cannot_be_used_says_why() {
    let scratch = Scratch::new();
    refused(
        &scratch.bitfit(&["predict", "--run", "nowhere", "text"]),
        1,
        &["nowhere", "not a run directory"],
    );
    refused(&scratch.bitfit(&["predict", "text"]), 2, &["--run"]);
    refused(&scratch.bitfit(&["predict", "--run", "x"]), 2, &["TEXT"]);
    succeeded(&scratch.train(&["--set", "training.max_steps=1"]));
    refused(
        &scratch.bitfit(&["predict", "--delta", "run/delta.safetensors", "text"]),
        2,
        &["--model"],
    );
    refused(
        &scratch.bitfit(&["eval", "--model", "base", "--delta", "run/delta.safetensors"]),
        2,
        &["--data"],
    );
    refused(
        &scratch.bitfit(&["predict", "--run", "run", "--input", "nowhere.txt"]),
        1,
        &["nowhere.txt"],
    );
    scratch.write("latin.txt", b"fine\nna\xefve\n");
    refused(
        &scratch.bitfit(&[
            "predict",
            "--run",
            "run",
            "--input",
            "latin.txt",
            "--output",
            "out.jsonl",
        ]),
        1,
        &["latin.txt:2", "not UTF-8"],
    );
    assert!(!scratch.path("out.jsonl").exists(), "an output appears whole or not at all");
    refused(
        &scratch.bitfit(&["convert", "--model", "base", "--output", "x.bin"]),
        2,
        &["--output", ".ot"],
    );
}

#[test]
fn a_task_of_another_base_or_vocabulary_is_refused() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&["--set", "training.max_steps=1"]));
    // Another base: one bias moved by a hair.
    let path = scratch.path("base/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    refused(
        &scratch.bitfit(&["predict", "--run", "run", "text"]),
        1,
        &["delta.safetensors", "another base", "expected", "found"],
    );
    // Another vocabulary.
    let scratch = Scratch::new();
    succeeded(&scratch.train(&["--set", "training.max_steps=1"]));
    let vocabulary = std::fs::read_to_string(scratch.path("base/vocab.txt")).unwrap();
    scratch.write("base/vocab.txt", vocabulary.replace("film", "movie"));
    succeeded(&scratch.bitfit(&["predict", "--run", "run", "text"]));
    refused(
        &scratch.bitfit(&[
            "predict",
            "--model",
            "base",
            "--delta",
            "run/delta.safetensors",
            "text",
        ]),
        1,
        &["not the tokenizer that"],
    );
}

#[test]
fn a_loss_that_is_no_number_ends_the_run() {
    let scratch = Scratch::new();
    let output = scratch.train(&[
        "--set",
        "training.learning_rate=1e30",
        "--set",
        "training.max_grad_norm=0",
        "--set",
        "training.adam_epsilon=1e-30",
    ]);
    refused(&output, 1, &["the loss is", "at step", "learning_rate"]);
    assert!(!scratch.path("run/delta.safetensors").exists(), "it is not kept");
}

#[test]
fn a_full_disk_is_an_error() {
    let scratch = Scratch::new();
    // /dev/full refuses every byte.
    succeeded(&scratch.train(&["--set", "training.max_steps=1"]));
    let predict = ["predict", "--run", "run", "text", "--output", "/dev/full"];
    refused(&scratch.bitfit(&predict), 1, &["/dev/full", "No space left"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitfit-train"));
    command.arg("--config").arg(scratch.path("config.toml")).args(["--json", "--overwrite"]);
    let output = command
        .stdout(std::fs::File::options().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    refused(&output, 1, &["stdout", "No space left"]);
    refused(&scratch.train(&["--set", "training.output_dir=/proc/run"]), 1, &["/proc/run"]);
}
