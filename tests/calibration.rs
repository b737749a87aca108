//! Calibration: the error, temperatures and thresholds of references; what a run, its exports and a
//! server make of them.

use crate::common::{self, STILL, Scratch, golden_dir, refused, stderr, stdout, succeeded};
use crate::serve::Server;
use bitfit::internal::data::Target;
use bitfit::internal::delta::Delta;
use bitfit::internal::eval::{Objective, Reliability, inverse_temperature, thresholds};
use bitfit::internal::models::{Task, TaskType};
use serde_json::{Value, json};

/// A task whose labels are numbers.
fn task(task_type: TaskType, labels: usize) -> Task {
    let labels: Vec<String> = (0..labels).map(|label| label.to_string()).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    common::task(task_type, &labels)
}

/// A case of scripts/make_golden_calibration.py: its task, logits and targets.
fn case(case: &Value) -> (Task, Vec<Vec<f32>>, Vec<Target>) {
    let task_type: TaskType = serde_json::from_value(case["task_type"].clone()).unwrap();
    let logits: Vec<Vec<f32>> = serde_json::from_value(case["logits"].clone()).unwrap();
    let labels = logits[0].len();
    let target = |gold: &Value| match gold {
        Value::Array(flags) => Target::Labels {
            present: (0..).zip(flags).filter(|(_, flag)| **flag == 1).map(|(i, _)| i).collect(),
            num_labels: labels,
        },
        class => Target::Class(class.as_u64().unwrap() as usize),
    };
    let targets = case["gold"].as_array().unwrap().iter().map(target).collect();
    (task(task_type, labels), logits, targets)
}

/// Accuracy, F1 and cost of the label `label` with its threshold in `task`, by the goal's name.
fn value_of(goal: &str, task: &Task, label: usize, scores: &[Vec<f32>], targets: &[Target]) -> f64 {
    let (mut hits, mut wrong, mut missing) = (0.0, 0.0, 0.0);
    for (scores, target) in scores.iter().zip(targets) {
        let (given, present) = match target {
            Target::Class(class) => (task.class(scores) == label, *class == label),
            Target::Labels { present, .. } => {
                (task.gives(label, scores[label]), present.contains(&(label as u32)))
            }
            Target::Number(_) => unreachable!(),
        };
        hits += f64::from(u8::from(given && present));
        wrong += f64::from(u8::from(given && !present));
        missing += f64::from(u8::from(!given && present));
    }
    match goal {
        "accuracy" => 1.0 - (wrong + missing) / scores.len() as f64,
        "f1" => 2.0 * hits / (2.0 * hits + wrong + missing),
        _ => wrong + 5.0 * missing,
    }
}

#[test]
fn errors_temperatures_and_thresholds_are_the_references() {
    let text = std::fs::read_to_string(golden_dir().join("calibration.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 6);
    let goals = [
        ("accuracy", Objective::Accuracy),
        ("f1", Objective::F1),
        ("cost", Objective::Cost { false_positive: 1.0, false_negative: 5.0 }),
    ];
    for (number, expected) in cases.iter().enumerate() {
        let (mut task, logits, targets) = case(expected);
        let known: Vec<&Target> = targets.iter().collect();
        let scores: Vec<Vec<f32>> =
            logits.iter().map(|row| task.task_type.scores_of_row(row)).collect();
        let mut reliability = Reliability::default();
        scores.iter().zip(&targets).for_each(|(scores, target)| reliability.count(target, scores));
        let error = expected["ece"].as_f64().unwrap();
        assert!((reliability.error() - error).abs() < 1e-6, "{number}: {}", reliability.error());
        let found = inverse_temperature(task.task_type, &logits, &known);
        let factor = expected["inverse_temperature"].as_f64().unwrap();
        assert!((found / factor - 1.0).abs() < 1e-5, "{number}: {found}, expected {factor}");
        let best = match &expected["best"] {
            Value::Array(by_label) => (0..).zip(by_label.clone()).collect(),
            Value::Null => vec![],
            of_second => vec![(1, of_second.clone())],
        };
        for (goal, objective) in goals {
            task.thresholds = thresholds(&task, &scores, &known, objective);
            for (label, best) in &best {
                let value = value_of(goal, &task, *label, &scores, &targets);
                let best = best[goal].as_f64().unwrap();
                assert!((value - best).abs() < 1e-9, "{number}: {goal} {label}: {value}, {best}");
            }
            task.thresholds = vec![];
        }
    }
}

#[test]
fn rare_labels_share_a_threshold_and_ties_stay_near_a_half() {
    let task = task(TaskType::MultiLabel, 2);
    // The first label is on twelve rows, from 0.3 on; the second on one row, of 0.2.
    let row = |first: f32, second: f32, present: &[u32]| {
        (vec![first, second], Target::Labels { present: present.to_vec(), num_labels: 2 })
    };
    let mut rows = vec![row(0.1, 0.2, &[1])];
    rows.extend((0..12).map(|i| row(0.3 + i as f32 / 100.0, 0.01, &[0])));
    rows.extend((0..12).map(|_| row(0.05, 0.01, &[])));
    let (scores, targets): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let known: Vec<&Target> = targets.iter().collect();
    let found = thresholds(&task, &scores, &known, Objective::F1);
    assert!((found[0] - 0.2).abs() < 1e-6, "the middle of 0.1 and 0.3: {found:?}");
    assert!((found[1] - 0.15).abs() < 1e-6, "that of all labels, of 0.1 and 0.2: {found:?}");
    // Nothing is present: no threshold is better than another.
    let none = vec![Target::Labels { present: vec![], num_labels: 2 }; 3];
    let none: Vec<&Target> = none.iter().collect();
    let found = thresholds(&task, &vec![vec![0.4, 0.4]; 3], &none, Objective::F1);
    assert!(found.iter().all(|threshold| (0.0..=1.0).contains(threshold)), "{found:?}");
    // Rows that are all right do not make scores certain.
    let sure: Vec<Vec<f32>> = (0..60).map(|_| vec![2.0, -2.0]).collect();
    let right = vec![Target::Class(0); 60];
    let right: Vec<&Target> = right.iter().collect();
    let factor = inverse_temperature(TaskType::Classification, &sure, &right);
    assert!(factor < 1.2, "{factor}");
}

/// More rows than the other tests have, so that some can calibrate.
fn many_reviews() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("train.tsv", crate::common::reviews(300, 1));
    scratch
}

fn read(scratch: &Scratch, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(scratch.path(file)).unwrap()).unwrap()
}

fn delta(scratch: &Scratch, run: &str) -> Delta {
    Delta::read(&scratch.path(&format!("{run}/delta.safetensors"))).unwrap()
}

#[test]
fn a_calibrated_run_divides_its_logits() {
    let scratch = many_reviews();
    let calibrated = [&STILL[..], &["--set", "calibration.fraction=0.25"]].concat();
    let output = scratch.train(&calibrated);
    succeeded(&output);
    assert!(stderr(&output).contains("calibrated: temperature "), "{}", stderr(&output));
    assert!(stderr(&output).contains("76 rows for the calibration"), "{}", stderr(&output));
    let summary = read(&scratch, "run/summary.json");
    let found = &summary["calibration"];
    assert_eq!(found["rows"], 76);
    let temperature = found["temperature"].as_f64().unwrap();
    assert!(temperature != 1.0 && (0.05..20.0).contains(&temperature), "{found}");
    // What is evaluated later is what was measured, and what a checkpoint has is not calibrated.
    let eval = scratch.bitfit(&["eval", "--run", "run", "--json"]);
    let evaluated: Value = serde_json::from_str(&stdout(&eval)).unwrap();
    assert_eq!(evaluated["metrics"], summary["best"]);
    let recorded = delta(&scratch, "run").meta.metrics;
    assert!(!recorded.contains_key("ece"), "{recorded:?}");
    assert_eq!(json!(recorded["loss"]), summary["best"]["loss"]);
    let steps = std::fs::read_dir(scratch.path("run/checkpoints")).unwrap();
    let newest = steps.map(|step| step.unwrap().path()).max().unwrap();
    let before = Delta::read(&newest.join("best.safetensors")).unwrap();
    let after = delta(&scratch, "run");
    for (name, tensor) in &before.tensors {
        let factor = if name.starts_with("classifier.") { 1.0 / temperature } else { 1.0 };
        let expected = tensor * factor;
        let difference = (&after.tensors[name] - expected).abs().max().double_value(&[]);
        assert!(difference < 1e-6, "{name}: {difference}");
    }
    let metadata = std::fs::read(scratch.path("run/delta.safetensors")).unwrap();
    let metadata = String::from_utf8_lossy(&metadata[..20_000.min(metadata.len())]).into_owned();
    assert!(metadata.contains(r#""schema_version":"2""#), "a temperature needs no later version");
    // A run that is continued after its end calibrates what its checkpoint has.
    let whole = std::fs::read(scratch.path("run/delta.safetensors")).unwrap();
    succeeded(&scratch.train(&[&calibrated[..], &["--resume"]].concat()));
    assert_eq!(std::fs::read(scratch.path("run/delta.safetensors")).unwrap(), whole);
    // And so does one that was interrupted.
    let part = ["--set", "training.output_dir=part", "--set", "training.max_steps=9"];
    succeeded(&scratch.train(&[&calibrated[..], &part].concat()));
    let rest = ["--set", "training.output_dir=part", "--resume"];
    succeeded(&scratch.train(&[&calibrated[..], &rest].concat()));
    assert_eq!(std::fs::read(scratch.path("part/delta.safetensors")).unwrap(), whole);
}

#[test]
fn thresholds_give_labels_in_every_command() {
    let scratch = many_reviews();
    let keys = ["--set", "calibration.fraction=0.3", "--set", "calibration.thresholds='cost'"];
    // A missing "positive" is dear, so it is given from a low probability on.
    let keys = [&STILL[..], &keys, &["--set", "calibration.false_negative_cost=20"]].concat();
    succeeded(&scratch.train(&keys));
    let summary = read(&scratch, "run/summary.json");
    let least = summary["calibration"]["thresholds"]["positive"].as_f64().unwrap();
    assert!(least < 0.5, "{summary}");
    let task = delta(&scratch, "run").meta.task;
    assert_eq!(task.thresholds, [least as f32]);
    let eval = scratch.bitfit(&["eval", "--run", "run", "--json"]);
    let evaluated: Value = serde_json::from_str(&stdout(&eval)).unwrap();
    assert_eq!(evaluated["metrics"], summary["best"]);
    let lines = |args: &[&str]| -> Vec<Value> {
        let output = scratch.bitfit(&[&["predict", "--input", "eval.tsv"][..], args].concat());
        succeeded(&output);
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let predicted = lines(&["--run", "run"]);
    for line in &predicted {
        let score = line["scores"]["positive"].as_f64().unwrap();
        let expected = if score >= least { "positive" } else { "negative" };
        assert_eq!(line["label"], expected, "{line}");
        assert_eq!(line["score"], line["scores"][expected]);
    }
    let shown = stdout(&scratch.bitfit(&["inspect", "--delta", "run/delta.safetensors"]));
    assert!(shown.contains("\nthresholds   \"positive\" 0."), "{shown}");
    // The exported model has them, for bitfit and for Python.
    let export = ["export", "--run", "run", "--format", "hf", "--output", "exported"];
    succeeded(&scratch.bitfit(&export));
    let config = read(&scratch, "exported/config.json");
    let written = config["bitfit"]["thresholds"]["positive"].as_f64().unwrap();
    assert!((written - least).abs() < 1e-7, "{config}");
    let again = lines(&["--model", "exported"]);
    let labels = |lines: &[Value]| lines.iter().map(|line| line["label"].clone()).collect();
    let (first, second): (Vec<Value>, Vec<Value>) = (labels(&predicted), labels(&again));
    assert_eq!(first, second);
    let card = std::fs::read_to_string(scratch.path("exported/README.md")).unwrap();
    assert!(card.contains("thresholds = classify.model.config.bitfit[\"thresholds\"]"), "{card}");
    assert!(card.contains("Scores were calibrated on rows like those of the training"), "{card}");
    // A wrong threshold is refused, by its place.
    for (wrong, why) in [
        (json!({"positive": 1.5}), "numbers from 0 to 1, not 1.5"),
        (json!({"negative": 0.5}), "found none for the label \"positive\""),
        (json!({"positive": 0.5, "other": 0.5}), "found 2, expected those of [\"positive\"]"),
        (json!([0.5]), "bitfit.thresholds: "),
    ] {
        let mut config = config.clone();
        config["bitfit"]["thresholds"] = wrong;
        scratch.write("exported/config.json", config.to_string());
        let output = scratch.bitfit(&["predict", "--model", "exported", "A text."]);
        refused(&output, 1, &["config.json", why]);
    }
    let mut wrong = delta(&scratch, "run");
    wrong.meta.task.thresholds = vec![0.5, 0.5];
    wrong.write(&scratch.path("wrong.safetensors")).unwrap();
    let output =
        scratch.bitfit(&["predict", "--model", "base", "--delta", "wrong.safetensors", "A text."]);
    refused(&output, 1, &["wrong.safetensors", "thresholds: expected 1 thresholds, not 2"]);
}

/// Two labels, of which the second is rare, by words of the text.
fn several(rows: usize, seed: usize) -> String {
    let mut text = String::from("text\tlabel\n");
    for (place, line) in crate::common::reviews(rows, seed).lines().skip(1).enumerate() {
        let (words, label) = line.split_once('\t').unwrap();
        let good = if label == "positive" { "good" } else { "" };
        let rare = if place % 6 == 0 { "film" } else { "" };
        text += &format!("{words}\t{}\n", [good, rare].join(" ").trim());
    }
    text
}

#[test]
fn each_of_several_labels_has_its_threshold() {
    let scratch = Scratch::new();
    scratch.write("train.tsv", several(400, 1));
    scratch.write("eval.tsv", several(64, 2));
    let task = [
        "--set",
        "model.task_type=multi_label",
        "--set",
        "data.label_separator=' '",
        "--set",
        "calibration.fraction=0.4",
        "--set",
        "calibration.thresholds='f1'",
    ];
    succeeded(&scratch.train(&[&STILL[..], &task].concat()));
    let summary = read(&scratch, "run/summary.json");
    let found = &summary["calibration"];
    assert_eq!(found["thresholds"].as_object().unwrap().len(), 2, "{found}");
    assert!(summary["best"]["ece"].is_f64() && found["before"]["ece"].is_f64(), "{summary}");
    let output = scratch.bitfit(&["predict", "--run", "run", "--input", "eval.tsv"]);
    let mut given = 0;
    for line in stdout(&output).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        for (label, least) in found["thresholds"].as_object().unwrap() {
            let has = line["scores"][label].as_f64() >= least.as_f64();
            assert_eq!(line["labels"].as_array().unwrap().contains(&json!(label)), has, "{line}");
            given += usize::from(has);
        }
    }
    assert!(given > 0);
    let eval = scratch.bitfit(&["eval", "--run", "run", "--json"]);
    let evaluated: Value = serde_json::from_str(&stdout(&eval)).unwrap();
    assert_eq!(evaluated["metrics"], summary["best"]);
    // Of several labels, none is the one that could be unsure.
    let output = scratch.bitfit(&["predict", "--run", "run", "--min-score", "0.9", "A text."]);
    refused(&output, 2, &["--min-score: found 0.9", "several labels"]);
}

#[test]
fn labels_that_are_not_sure_are_left_out() {
    let scratch = Scratch::new();
    succeeded(&scratch.train(&STILL));
    let predict = ["predict", "--run", "run", "--input", "eval.tsv", "--min-score"];
    let output = scratch.bitfit(&[&predict[..], &["1"]].concat());
    for line in stdout(&output).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let sure = line["score"] == 1.0;
        assert_eq!((line["label"].is_null(), line["unsure"] == true), (!sure, !sure), "{line}");
        assert!(line.as_object().unwrap().contains_key("label"), "{line}");
    }
    let all = scratch.bitfit(&predict[..5]);
    let least = scratch.bitfit(&[&predict[..], &["0"]].concat());
    assert_eq!(stdout(&all), stdout(&least), "nothing is left out, and no key is new");
    let table = [&predict[..], &["1", "--output", "x.csv", "--no-text", "--prefix", "p_"]].concat();
    succeeded(&scratch.bitfit(&table));
    let table = std::fs::read_to_string(scratch.path("x.csv")).unwrap();
    assert!(table.lines().skip(1).all(|line| line.contains(",,") || line.ends_with(",1.0")));
    let output = scratch.bitfit(&[&predict[..], &["2"]].concat());
    refused(&output, 2, &["--min-score", "expected a probability from 0 to 1"]);
    // The same of a server.
    std::fs::create_dir(scratch.path("tasks")).unwrap();
    let task = scratch.path("run/delta.safetensors");
    std::fs::copy(task, scratch.path("tasks/film.safetensors")).unwrap();
    let server = Server::start(&scratch, &["--tasks", "tasks"]);
    let row = json!({"task": "film", "text": "the film was great", "min_score": 1.0});
    let answer = server.post("/v1/predict", &json!({"rows": [row]})).json();
    let answer = &answer["rows"][0][0];
    assert!(answer["label"].is_null() && answer["unsure"] == true, "{answer}");
    assert!(answer["score"].is_f64(), "{answer}");
    let row = json!({"task": "film", "text": "the film was great"});
    let answer = server.post("/v1/predict", &json!({"rows": [row], "min_score": 0.0})).json();
    let answer = &answer["rows"][0][0];
    assert!(answer["label"].is_string() && answer.get("unsure").is_none(), "{answer}");
    let refused = server.post("/v1/predict", &json!({"rows": [row], "min_score": 7})).json();
    assert!(refused["error"].as_str().unwrap().contains("min_score: found 7"), "{refused}");
}

#[test]
fn what_cannot_be_calibrated_is_refused() {
    let scratch = Scratch::new();
    let with = |more: &[&str]| {
        let sets = more.iter().flat_map(|set| ["--set", set]);
        scratch.train(&sets.collect::<Vec<_>>())
    };
    let few = with(&["calibration.fraction=0.2"]);
    refused(&few, 2, &["calibration.fraction", "of 96 rows", "50 rows or more"]);
    for share in ["0", "1", "-0.5"] {
        let output = with(&[&format!("calibration.fraction={share}")]);
        refused(&output, 2, &["calibration.fraction", "a number above 0 and below 1"]);
    }
    let regression = with(&["calibration.fraction=0.6", "model.task_type=regression"]);
    refused(&regression, 2, &["calibration", "regression"]);
    let nothing = with(&["calibration.temperature=false"]);
    refused(&nothing, 2, &["calibration.temperature", "nothing is left to calibrate"]);
    let cost = with(&["calibration.false_positive_cost=2"]);
    refused(&cost, 2, &["calibration.false_positive_cost", "calibration.thresholds"]);
    let unknown = with(&["calibration.thresholds='recall'"]);
    refused(&unknown, 2, &["calibration.thresholds", "recall", "accuracy"]);
    let three = crate::common::reviews(96, 1).replacen("negative", "so-so", 24);
    scratch.write("train.tsv", three);
    let three = with(&["calibration.fraction=0.6", "calibration.thresholds='f1'"]);
    refused(&three, 2, &["calibration.thresholds", "3 classes", "multi_label"]);
}
