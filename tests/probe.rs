//! The method probe: the head solved on the base's embeddings, equal to scikit-learn's.

use crate::common::{Scratch, golden_dir, refused, stderr, stdout, succeeded};
use bitfit::internal::optim::{Features, LinearModel, Link, Solution};
use bitfit::settings::{Balanced, ClassWeights, MethodName};
use bitfit::{Error, Event, Predictor, RunConfig, TaskType, Tasks, Trainer};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Kind, Tensor};

/// The configuration of a case of probe.json, whose rows go into `scratch`.
fn config_of(case: &Value, scratch: &Scratch) -> RunConfig {
    let rows = case["train"].as_array().unwrap().iter();
    let rows: Vec<String> = rows.map(ToString::to_string).collect();
    let train = scratch.write("train.jsonl", rows.join("\n"));
    let base = golden_dir().join(case["model"].as_str().unwrap());
    let mut config = RunConfig::new(base, &train, scratch.path("run"));
    config.method.name = MethodName::Probe;
    config.method.c = Some(case["c"].as_f64().unwrap().try_into().unwrap());
    config.data.eval = Some(train);
    config.data.max_length = 32_u64.try_into().unwrap();
    config.model.task_type = match case["task"].as_str().unwrap() {
        "labels" => TaskType::MultiLabel,
        "number" => TaskType::Regression,
        _ => TaskType::Classification,
    };
    config.training.class_weights = match &case["class_weights"] {
        Value::Null => None,
        Value::String(_) => Some(ClassWeights::Named(Balanced::Balanced)),
        table => Some(ClassWeights::Table(serde_json::from_value(table.clone()).unwrap())),
    };
    config
}

/// The scores of a text: the probability of each label, or the number.
fn scores(prediction: &bitfit::Prediction) -> Vec<f64> {
    match prediction.scores.is_empty() {
        true => vec![f64::from(prediction.score.unwrap())],
        false => prediction.scores.iter().map(|(_, score)| f64::from(*score)).collect(),
    }
}

#[test]
fn predictions_are_those_of_scikit_learn() {
    let cases = std::fs::read_to_string(golden_dir().join("probe.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
    for case in &cases {
        let scratch = Scratch::new();
        let mut ran = vec![];
        let trainer = Trainer::new(config_of(case, &scratch)).unwrap().on_event(|event| {
            if let Event::Embedding { done, total } = event {
                ran.push((*done, *total));
            }
        });
        let summary = trainer.run().unwrap();
        assert_eq!((summary.steps, ran.last()), (1, Some(&(60, 60))), "one pass over the rows");
        let texts: Vec<String> = serde_json::from_value(case["others"].clone()).unwrap();
        let predictor = Predictor::open(scratch.path("run")).unwrap();
        let found = predictor.predict(texts.iter().map(String::as_str)).unwrap();
        let expected: Vec<Vec<f64>> = serde_json::from_value(case["scores"].clone()).unwrap();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            let (found, size) = (scores(found), expected[0].abs().max(1.0));
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                let of = format!("{} {} {}", case["model"], case["task"], case["c"]);
                assert!((found - expected).abs() < 1e-4 * size, "{of}: {found} {expected}");
            }
        }
        // In a batch of many tasks, a probe is a task like any other.
        let mut tasks = Tasks::open(golden_dir().join(case["model"].as_str().unwrap())).unwrap();
        tasks.load("probe", scratch.path("run/delta.safetensors")).unwrap();
        let together = tasks.predict(texts.iter().map(|text| ("probe", text.as_str()))).unwrap();
        for (found, expected) in together.iter().zip(&found) {
            for (found, expected) in scores(found).iter().zip(scores(expected)) {
                assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0));
            }
        }
    }
}

/// A configuration that trains a probe on the reviews of `scratch`, with `more` in `[training]`.
fn reviews(more: &str) -> Scratch {
    let scratch = Scratch::new();
    scratch.write(
        "config.toml",
        format!(
            "[model]\nmodel_name_or_path = \"base\"\n[method]\nname = \"probe\"\n\
             [data]\ntrain = \"train.tsv\"\neval = \"eval.tsv\"\nmax_length = 32\n[training]\noutput_dir = \"run\"\n{more}"
        ),
    );
    scratch
}

/// What `--set` sets, and what the error says.
const REFUSED: &[(&[&str], &[&str])] = &[
    (&["training.num_train_epochs=3"], &["training.num_train_epochs=3", "takes no steps"]),
    (&["training.max_steps=3"], &["training.max_steps=3", "takes no steps"]),
    (&["training.learning_rate=1e-3"], &["learning_rate=1e-3", "\"probe\"", "takes no steps"]),
    (&["training.lr_scheduler_type=cosine"], &["lr_scheduler_type=cosine", "takes no steps"]),
    (&["training.early_stopping_patience=2"], &["patience=2", "takes no steps"]),
    (&["training.cache_frozen_layers=true"], &["cache_frozen_layers", "takes no steps"]),
    (&["training.head_learning_rate=0.1"], &["training.head_learning_rate", "none"]),
    (&["training.label_smoothing_factor=0.1"], &["label_smoothing_factor", "no label smoothing"]),
    (&["model.pooling=first"], &["model.pooling", "\"mean\" or \"auto\"", "dense layer"]),
    (&["model.init_delta=eval.tsv"], &["model.init_delta", "none", "\"probe\""]),
    (
        &["data.long_texts=windows", "data.window_pooling=max"],
        &["data.window_pooling=max", "expected \"mean\""],
    ),
    (&["method.c=0"], &["method.c=0", "1e-9 to 1e9"]),
    (&["method.r=4"], &["method.r=4", "a key of \"lora\""]),
    (&["method.name=head", "method.c=2"], &["method.c=2", "a key of \"probe\""]),
    (&["bitfit.layers=0"], &["bitfit.layers=0", "\"probe\""]),
];

#[test]
fn keys_without_a_meaning_are_refused_by_name() {
    let scratch = reviews("");
    for (sets, parts) in REFUSED {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        refused(&scratch.train(&sets), 2, parts);
    }
    assert!(!scratch.path("run").exists(), "nothing is written");
    let output = scratch.train(&["--dry-run"]);
    succeeded(&output);
    for part in
        ["method       probe (c 1)", "the mean of all tokens", "one pass", "rates        none"]
    {
        assert!(stdout(&output).contains(part), "{part}: {}", stdout(&output));
    }
    assert!(!stdout(&output).contains("AdamW"), "{}", stdout(&output));
    let label = "text\tlabel\na film\tgood\na plot\tgood\nacting\tgood\n";
    scratch.write("train.tsv", label);
    scratch.write("eval.tsv", label);
    refused(&scratch.train(&[]), 1, &["train.tsv", "good"]);
}

fn summary(scratch: &Scratch, dir: &str) -> Value {
    let text = std::fs::read_to_string(scratch.path(&format!("{dir}/summary.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_finished_run_is_not_solved_again() {
    let scratch = reviews("");
    let output = scratch.train(&[]);
    succeeded(&output);
    assert!(stderr(&output).contains("the head is solved: mean loss"), "{}", stderr(&output));
    let (first, delta) = (summary(&scratch, "run"), scratch.path("run/delta.safetensors"));
    let (bytes, metrics) = (std::fs::read(&delta).unwrap(), scratch.path("run/metrics.jsonl"));
    let lines = std::fs::read_to_string(&metrics).unwrap();
    assert_eq!((lines.lines().count(), &first["method"]), (1, &json!("probe")));
    let again = scratch.train(&["--resume"]);
    succeeded(&again);
    assert!(!stderr(&again).contains("the head is solved"), "{}", stderr(&again));
    assert_eq!(std::fs::read_to_string(&metrics).unwrap(), lines);
    assert_eq!(summary(&scratch, "run")["best"], first["best"]);
    assert_eq!(std::fs::read(&delta).unwrap(), bytes);
    refused(&scratch.train(&[]), 2, &["already holds a run"]);
    refused(&scratch.train(&["--resume", "--set", "method.c=3"]), 2, &["method.c was 1.0"]);
    let eval = scratch.bitfit(&["eval", "--run", "run", "--json"]);
    let found: Value = serde_json::from_str(&stdout(&eval)).unwrap();
    assert_eq!(found["metrics"], first["best"]);
    let export = ["export", "--run", "run", "--format", "sentence-transformers", "--output", "x"];
    succeeded(&scratch.bitfit(&export));
    let card = std::fs::read_to_string(scratch.path("x/README.md")).unwrap();
    assert!(card.contains("| c | 1 |") && !card.contains("AdamW"), "{card}");
    // Without a checkpoint, the same head is solved again.
    let no = ["--overwrite", "--set", "training.save_strategy=no"];
    succeeded(&scratch.train(&no));
    assert!(!scratch.path("run/checkpoints/step-000001").exists());
    let again = scratch.train(&["--resume", "--set", "training.save_strategy=no"]);
    succeeded(&again);
    assert!(stderr(&again).contains("the head is solved"), "{}", stderr(&again));
    assert_eq!(std::fs::read(&delta).unwrap(), bytes);
}

#[test]
fn an_interrupted_run_begins_again() {
    let scratch = reviews("");
    let config = || RunConfig::read(scratch.path("config.toml"), &[]).unwrap();
    let delta = scratch.path("run/delta.safetensors");
    Trainer::new(config()).unwrap().run().unwrap();
    let whole = std::fs::read(&delta).unwrap();
    let ended_at = |evaluating: bool| {
        let stop = Arc::new(AtomicBool::new(false));
        let trainer = Trainer::new(config()).unwrap().overwrite().stop_flag(Arc::clone(&stop));
        let trainer = trainer.on_event(move |event| match event {
            Event::Embedding { .. } if !evaluating => stop.store(true, Ordering::SeqCst),
            Event::Evaluating { .. } if evaluating => stop.store(true, Ordering::SeqCst),
            _ => {}
        });
        match trainer.run() {
            Err(Error::Interrupted(message)) => message,
            other => panic!("{other:?}"),
        }
    };
    let message = ended_at(false);
    assert!(message.contains("--resume begins again"), "{message}");
    assert!(!delta.exists() && summary(&scratch, "run")["interrupted"] == true);
    Trainer::new(config()).unwrap().resume().run().unwrap();
    assert_eq!(std::fs::read(&delta).unwrap(), whole);
    // The head is solved, and its evaluation is still to be done.
    let message = ended_at(true);
    assert!(message.contains("continues after step 1"), "{message}");
    let mut passes = 0;
    let trainer = Trainer::new(config()).unwrap().resume().on_event(|event| {
        passes += usize::from(matches!(event, Event::Embedding { .. }));
    });
    let summary = trainer.run().unwrap();
    assert_eq!((passes, summary.best_step), (0, Some(1)));
    assert_eq!(std::fs::read(&delta).unwrap(), whole);
}

/// The loss of the solution on the training rows, and that of an evaluation on the same rows.
fn losses(config: RunConfig) -> (f64, f64) {
    let mut solved = None;
    let trainer = Trainer::new(config).unwrap().overwrite().on_event(|event| {
        if let Event::Step { loss, .. } = event {
            solved = *loss;
        }
    });
    let summary = trainer.run().unwrap();
    (solved.unwrap(), summary.best["loss"])
}

#[test]
fn the_head_is_solved_for_what_it_is_evaluated_on() {
    let cases = std::fs::read_to_string(golden_dir().join("probe.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
    let unweighted = cases.iter().filter(|case| case["class_weights"].is_null());
    for case in unweighted {
        let scratch = Scratch::new();
        let config = config_of(case, &scratch);
        // Windows of a long text are one row, by the mean of their logits.
        let mut windows = config.clone();
        windows.data.max_length = 8_u64.try_into().unwrap();
        windows.data.long_texts = bitfit::settings::LongTextMode::Windows;
        for config in [config, windows] {
            let (solved, evaluated) = losses(config);
            let close = (solved - evaluated).abs() < 1e-4 * evaluated.max(1.0);
            assert!(close, "{}: {solved} {evaluated}", case["task"]);
        }
    }
}

#[test]
fn targets_that_are_all_equal_give_finite_answers() {
    let scratch = Scratch::new();
    let row = |number: usize, label: Value| {
        let words = ["film", "plot", "acting", "good", "bad"];
        let text = format!("the {} was {}", words[number % 3], words[number % 5]);
        json!({"text": text, "label": label})
    };
    let rows = |label: &dyn Fn(usize) -> Value| -> Vec<Value> {
        (0..30).map(|number| row(number, label(number))).collect()
    };
    let case = |task: &str, train: Vec<Value>| json!({"model": "tiny-bert", "task": task, "c": 1.0, "class_weights": null, "train": train});
    let number = case("number", rows(&|_| json!(7.25)));
    Trainer::new(config_of(&number, &scratch)).unwrap().run().unwrap();
    let predict = || {
        let predictor = Predictor::open(scratch.path("run")).unwrap();
        predictor.predict(["the film was bad", "loved"]).unwrap()
    };
    for prediction in predict() {
        assert!((prediction.score.unwrap() - 7.25).abs() < 1e-4, "{prediction:?}");
    }
    // A label of every row, and one of no row.
    let flags = |number: usize| {
        if number.is_multiple_of(2) { json!(["all", "some"]) } else { json!(["all"]) }
    };
    let labels = case("labels", rows(&flags));
    let mut config = config_of(&labels, &scratch);
    let names = ["all", "none", "some"].map(str::to_owned).to_vec();
    config.model.label_names = Some(names.try_into().unwrap());
    Trainer::new(config).unwrap().overwrite().run().unwrap();
    for prediction in predict() {
        let scores = scores(&prediction);
        assert!(scores.iter().all(|score| score.is_finite()), "{scores:?}");
        assert!(scores[0] > 0.999 && scores[1] < 0.001, "{scores:?}");
    }
    // A class of the configuration that no row has.
    let class = |number: usize| json!(if number.is_multiple_of(2) { "a" } else { "b" });
    let mut config = config_of(&case("two", rows(&class)), &scratch);
    let names = ["a", "b", "c"].map(str::to_owned).to_vec();
    config.model.label_names = Some(names.try_into().unwrap());
    Trainer::new(config).unwrap().overwrite().run().unwrap();
    for prediction in predict() {
        assert!(scores(&prediction)[2] < 0.001, "{prediction:?}");
    }
}

/// Rows whose features are nearly multiples of each other, at very different scales.
fn collinear(rows: i64, width: i64) -> Tensor {
    tch::manual_seed(3);
    let options = (Kind::Double, tch::Device::Cpu);
    let scales = Tensor::logspace(2.0, -3.0, width, 10.0, options);
    let mixed = Tensor::randn([rows, width], options) * scales;
    mixed.mm(&Tensor::randn([width, width], options)) + 5.0
}

fn solved(rows: &Tensor, targets: &Tensor, link: Link, c: f64) -> Solution {
    let size = rows.size();
    let mut features = Features::new(size[0] as usize, size[1]).unwrap();
    features.add(&rows.narrow(0, 0, 10)).unwrap();
    features.add(&rows.narrow(0, 10, size[0] - 10)).unwrap();
    let model = LinearModel { features, targets: targets.shallow_clone(), weights: None, link, c };
    model.solve(&mut || Ok(())).unwrap()
}

#[test]
fn solutions_are_optimal_whatever_the_features() {
    let rows = collinear(300, 24);
    let classes = rows.select(1, 0).shallow_clone() + rows.select(1, 1).randn_like() * 30.0;
    let classes = (classes / 40.0).round().clamp(0.0, 2.0).to_kind(Kind::Int64);
    let hot = classes.one_hot(3).to_kind(Kind::Double);
    for (link, targets) in [(Link::Softmax, &hot), (Link::Sigmoid, &hot), (Link::Identity, &hot)] {
        for c in [1e-6, 1e-2, 1.0, 1e3] {
            let found = solved(&rows, targets, link, c);
            assert!(found.converged && found.steps < 40, "{link:?} {c}: {found:?}");
            // The gradient of the plain problem, beside that of no model.
            let logits = rows.mm(&found.weight.tr()) + &found.bias;
            let guesses = match link {
                Link::Softmax => logits.softmax(-1, Kind::Double),
                Link::Sigmoid => logits.sigmoid(),
                Link::Identity => logits,
            };
            let errors = guesses - targets;
            let of_weight = errors.tr().mm(&rows) * c + &found.weight;
            let of_bias = errors.sum_dim_intlist(0, false, Kind::Double) * c;
            let first = (rows.abs().sum(Kind::Double) * c).double_value(&[]);
            let rest = of_weight.abs().max().double_value(&[]) / first;
            let rest = rest.max(of_bias.abs().max().double_value(&[]) / (300.0 * c));
            assert!(rest < 1e-8, "{link:?} {c}: {rest}");
        }
    }
}
