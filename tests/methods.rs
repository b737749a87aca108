//! The methods that BitFit is compared with, against transformers, peft and AdapterHub's adapters
//! (scripts/make_golden_methods.py).

use crate::common::{
    Scratch, TINY, device, golden, refused, root, sequences, stdout, succeeded, tiny,
};
use bitfit::internal::base::Base;
use bitfit::internal::data::Batch;
use bitfit::internal::freeze::{FreezePlan, StepCost, Switches};
use bitfit::internal::methods::{AdapterConfig, AdapterPlacement, LoraConfig, Method};
use bitfit::internal::models::{Shaping, TaskType};
use bitfit::internal::nn::{NonLinearity, Pooling};
use bitfit::internal::task_model::TaskModel;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use tch::Tensor;

fn lora(r: i64, lora_alpha: f64, targets: &[&str]) -> Method {
    let target_modules = targets.iter().map(|&name| name.into()).collect();
    Method::Lora(LoraConfig { r, lora_alpha, target_modules, ..LoraConfig::default() })
}

fn adapter(config: AdapterPlacement, reduction_factor: f64) -> Method {
    Method::Adapter(AdapterConfig { reduction_factor, ..AdapterConfig::new(config) })
}

/// The dense layers that the golden files' widest LoRA has.
fn wide(name: &str) -> &'static [&'static str] {
    match name {
        "tiny-bert" => &[
            "query",
            "key",
            "value",
            "attention.output.dense",
            "intermediate.dense",
            "layer.0.output.dense",
            "pooler.dense",
        ],
        "tiny-distilbert" => &["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
        _ => &[
            "key",
            "value",
            "attention.output.dense",
            "intermediate.dense",
            "layer.1.output.dense",
        ],
    }
}

/// A tiny model with what `method` adds, as the golden case `case` has it.
fn with_method(name: &str, case: &str, method: &Method) -> (TaskModel, FreezePlan) {
    let golden = golden(&format!("methods-{name}.safetensors"));
    let mut base = tiny(name);
    let method = method.settled(base.config.architecture);
    method.add(&mut base).unwrap();
    for name in base.added.clone() {
        base.set(&name, &golden[&format!("{case}.{name}")]).unwrap();
    }
    let plan = method.plan(&base, &Switches::default()).unwrap();
    plan.apply(&mut base.store).unwrap();
    (base, plan)
}

fn logits_of(base: &TaskModel, name: &str) -> Tensor {
    let sequences = sequences(&golden(&format!("{name}.safetensors")));
    let (packed, _) = Batch::new(&sequences).to_device(device()).unwrap();
    base.classifier.forward(&packed).unwrap()
}

fn largest(tensor: &Tensor) -> f64 {
    tensor.abs().max().double_value(&[])
}

fn cases(name: &str) -> Vec<(&'static str, Method)> {
    vec![
        ("full", Method::Full),
        ("lora", lora(4, 8.0, &[])),
        ("wide", lora(3, 5.0, wide(name))),
        ("houlsby", adapter(AdapterPlacement::Houlsby, 4.0)),
        ("pfeiffer", adapter(AdapterPlacement::Pfeiffer, 4.0)),
    ]
}

#[test]
fn every_method_has_the_references_logits_and_gradients() {
    for name in TINY {
        let expected = golden(&format!("methods-{name}.safetensors"));
        for (case, method) in cases(name) {
            let (base, plan) = with_method(name, case, &method);
            let logits = logits_of(&base, name);
            let own = golden(&format!("{name}.safetensors"));
            let reference = expected.get(&format!("{case}.logits")).unwrap_or(&own["logits"]);
            let worst = largest(&(&logits - reference));
            assert!(worst < 2e-5, "{name}, {case}: logits differ by {worst}");
            assert!(case == "full" || largest(&(&logits - &own["logits"])) > 1e-2, "{case}");
            let rows = own["labels"].numel() as f64;
            let loss = TaskType::Classification
                .loss(&logits, &own["labels"], &Shaping::default(), rows)
                .unwrap();
            loss.backward();
            let prefix = format!("{case}.grad.");
            let mut there: Vec<&str> =
                expected.keys().filter_map(|name| name.strip_prefix(&prefix)).collect();
            there.sort();
            let here: Vec<&str> = plan.trainable().map(|p| p.name.as_str()).collect();
            assert_eq!(here, there, "{name}, {case}: what trains");
            let variables = base.store.variables();
            let mut worst = 0f64;
            for tensor in here {
                // Zero but for rounding: a test of its own.
                if tensor.ends_with("key.bias") || tensor.ends_with("k_lin.bias") {
                    continue;
                }
                let expected = &expected[&format!("{prefix}{tensor}")];
                let gradient = variables[tensor].grad();
                let relative = largest(&(gradient - expected)) / largest(expected);
                worst = worst.max(relative);
                assert!(
                    relative < 1e-4,
                    "{name}, {case}, {tensor}: gradient differs by {relative}"
                );
            }
            println!("{name}, {case}: largest relative difference of a gradient: {worst:.1e}");
        }
    }
}

#[test]
fn adapters_have_the_references_non_linearities() {
    let expected = golden("methods-tiny-bert.safetensors");
    use NonLinearity::*;
    for non_linearity in [Relu, Swish, Gelu, GeluNew, Tanh, LeakyRelu] {
        let case = non_linearity.name();
        let shape = AdapterConfig {
            reduction_factor: 12.0,
            non_linearity,
            ..AdapterConfig::new(AdapterPlacement::Pfeiffer)
        };
        let (base, _) = with_method("tiny-bert", case, &Method::Adapter(shape));
        let logits = tch::no_grad(|| logits_of(&base, "tiny-bert"));
        let worst = largest(&(logits - &expected[&format!("{case}.logits")]));
        assert!(worst < 2e-5, "{case}: logits differ by {worst}");
    }
}

/// A short run with `sets`, `KEY=VALUE` each, and where it goes.
fn train(scratch: &Scratch, output: &str, sets: &[&str]) {
    let output = format!("training.output_dir={output}");
    let sets = [&[output.as_str()], sets].concat();
    let args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    succeeded(&scratch.train(&args));
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

fn delta(scratch: &Scratch, run: &str) -> BTreeSet<String> {
    let path = scratch.path(run).join("delta.safetensors");
    Tensor::read_safetensors(path).unwrap().into_iter().map(|(name, _)| name).collect()
}

/// The methods as somebody would ask for them, each with a name of a tensor that it trains and a
/// group that it is in.
const ASKED: [(&str, &[&str], &str, &str); 7] = [
    ("bitfit", &[], "bert.encoder.layer.0.output.dense.bias", "feedforward"),
    (
        "full",
        &["training.learning_rate=1e-3"],
        "bert.embeddings.word_embeddings.weight",
        "embeddings",
    ),
    ("lora", &["method.r=4"], "bert.encoder.layer.2.attention.self.value.lora_B.weight", "lora"),
    (
        "lora",
        &["method.bias=all", "method.lora_dropout=0.1", "bitfit.train_attention_bias=false"],
        "bert.encoder.layer.0.intermediate.dense.bias",
        "lora",
    ),
    (
        "adapter",
        &["method.config=houlsby", "method.reduction_factor=4"],
        "bert.encoder.layer.1.attention.output.adapters.task.adapter_down.0.weight",
        "adapter",
    ),
    ("head", &[], "classifier.weight", "classifier"),
    ("layer_norm", &[], "bert.encoder.layer.0.output.LayerNorm.weight", "layer_norm"),
];

/// Trained, evaluated, predicted with, shown, and gone on with to the same bytes.
#[test]
fn every_method_is_a_run_of_its_own() {
    for (name, sets, trained, group) in ASKED {
        let scratch = Scratch::new();
        scratch.config("config.toml", "save_strategy = \"steps\"");
        let method = format!("method.name={name}");
        let with = |more: &[&'static str]| {
            let mut all = vec![method.clone()];
            all.extend(sets.iter().chain(more).map(|set| (*set).to_owned()));
            all
        };
        let train = |output: &str, more: &[&'static str]| {
            let sets = with(more);
            train(&scratch, output, &sets.iter().map(String::as_str).collect::<Vec<_>>());
        };
        train("run", &["training.max_steps=16"]);
        let summary = json(&std::fs::read(scratch.path("run/summary.json")).unwrap());
        assert_eq!(summary["method"], name);
        let names = delta(&scratch, "run");
        assert!(names.contains(trained), "{name}: {names:?}");
        assert!(names.contains("classifier.weight"), "{name}: {names:?}");

        let inspected = scratch.bitfit(&["inspect", "--delta", "run/delta.safetensors", "--json"]);
        succeeded(&inspected);
        let inspected = json(&inspected.stdout);
        assert_eq!(inspected["meta"]["method"]["name"], name);
        let shown = scratch.bitfit(&["inspect", "--delta", "run/delta.safetensors"]);
        assert!(stdout(&shown).contains(&format!("method       {name}")), "{}", stdout(&shown));
        assert_eq!(stdout(&shown).contains("\nlora "), group == "lora", "{}", stdout(&shown));
        let against = ["inspect", "--delta", "run/delta.safetensors", "--against", "base"];
        succeeded(&scratch.bitfit(&against));
        let mut args = vec!["inspect", "--config", "config.toml", "--json"];
        let sets = with(&[]);
        args.extend(sets.iter().flat_map(|set| ["--set", set.as_str()]));
        let plan = scratch.bitfit(&args);
        succeeded(&plan);
        let plan = json(&plan.stdout);
        let groups = plan["counts"]["groups"].as_array().unwrap();
        let of_group = groups.iter().find(|g| g["group"] == group).unwrap();
        assert!(of_group["trainable"].as_u64().unwrap() > 0, "{name}: {of_group}");
        assert_eq!(plan["counts"]["trainable"], summary["trainable"]);

        // The evaluation again, from base and delta; and predictions that differ from chance.
        let eval = scratch.bitfit(&["eval", "--run", "run", "--json"]);
        succeeded(&eval);
        for (metric, value) in summary["best"].as_object().unwrap() {
            let again = json(&eval.stdout)["metrics"][metric].as_f64().unwrap();
            assert!((again - value.as_f64().unwrap()).abs() < 1e-5, "{name}: {metric}");
        }
        let predict = ["predict", "--model", "base", "--delta", "run/delta.safetensors", "great"];
        succeeded(&scratch.bitfit(&predict));

        train("half", &["training.max_steps=8"]);
        let sets = with(&["training.max_steps=16", "training.output_dir=half"]);
        let mut args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set.as_str()]).collect();
        args.push("--resume");
        succeeded(&scratch.train(&args));
        let read = |run: &str| std::fs::read(scratch.path(run).join("delta.safetensors")).unwrap();
        assert_eq!(read("run"), read("half"), "{name}");
        // Another method is another run.
        let other = if name == "head" { "full" } else { "head" };
        let other = format!("method.name={other}");
        let args = ["--resume", "--set", "training.output_dir=half", "--set", &other];
        refused(&scratch.train(&args), 2, &["another configuration", "method.name was"]);
    }
}

/// A product's backward is its forward for its input, and once more for a weight that trains.
#[test]
fn a_step_costs_what_trains_in_it() {
    let (base, _) = with_method("tiny-bert", "full", &Method::Full);
    let cost = |case: &str, method: &Method| {
        let (base, plan) = with_method("tiny-bert", case, method);
        StepCost::of(&plan, &base.config, Pooling::First, 20.0)
    };
    let switches = Switches::default();
    let bitfit = StepCost::of(
        &Method::Bitfit.plan(&base, &switches).unwrap(),
        &base.config,
        Pooling::First,
        20.0,
    );
    let full = cost("full", &Method::Full);
    assert_eq!(full.backward, 2.0 * full.forward);
    assert_eq!((full.lowest_layer, full.backward_of_all), (None, bitfit.backward));
    let head = cost("full", &Method::Head);
    assert_eq!((head.backward, head.forward), (0.0, bitfit.forward));
    let lora = cost("lora", &lora(4, 8.0, &[]));
    // Two layers of 20 tokens, and one whose query is the first token's alone: of rank 4, at H =
    // 32.
    let added = 4.0 * 2.0 * 32.0 * (2.0 * 2.0 * 20.0 + 1.0 + 20.0);
    assert_eq!(lora.forward, bitfit.forward + added);
    assert_eq!(lora.lowest_layer, Some(0));
    assert!(lora.backward > 2.0 * added && lora.backward < full.backward);
    assert_eq!(cost("houlsby", &adapter(AdapterPlacement::Houlsby, 4.0)).lowest_layer, Some(0));
    assert_eq!(cost("full", &Method::LayerNorm).backward, bitfit.backward);
}

/// What spares memory or time changes no method's numbers, and bf16 only rounds them.
#[test]
fn sparing_and_half_precision_are_for_every_method() {
    for (name, sets, ..) in ASKED {
        let scratch = Scratch::new();
        let method = format!("method.name={name}");
        let first = |output: &str, more: &str| {
            let own = [&method, more, "training.max_steps=2", "training.logging_steps=1"];
            train(&scratch, output, &[&own, sets].concat());
            let path = scratch.path(output).join("metrics.jsonl");
            let text = std::fs::read_to_string(path).unwrap();
            let record = json(text.lines().nth(1).unwrap().as_bytes());
            ["loss", "grad_norm"].map(|key| record[key].as_f64().unwrap())
        };
        let plain = first("plain", "training.precision=fp32");
        for (output, key, most) in [
            ("sparing", "training.gradient_checkpointing=true", 1e-5),
            ("bf16", "training.precision=bf16", 0.1),
        ] {
            let found = first(output, key);
            for (a, b) in plain.iter().zip(found) {
                assert!((a - b).abs() <= most * a, "{name}, {output}: {plain:?} and {found:?}");
            }
        }
    }
}

#[test]
fn full_fine_tuning_changes_everything_and_its_delta_has_it() {
    let scratch = Scratch::new();
    train(&scratch, "run", &["method.name=full", "training.max_steps=8"]);
    let base = Tensor::read_safetensors(scratch.path("base/model.safetensors")).unwrap();
    let names = delta(&scratch, "run");
    assert_eq!(names.len(), base.len() + 2);
    let config = std::fs::read_to_string(scratch.path("run/config.toml")).unwrap();
    assert!(config.contains("name = \"full\""), "{config}");
    assert!(!config.contains("bias_learning_rate"), "{config}");
}

#[test]
fn the_head_has_a_rate_of_its_own() {
    let scratch = Scratch::new();
    let values = |name: &str, keys: &[&str]| -> BTreeMap<String, Vec<f32>> {
        train(&scratch, name, &[&["training.max_steps=3"], keys].concat());
        let found = Tensor::read_safetensors(scratch.path(name).join("delta.safetensors")).unwrap();
        let flat = |x: Tensor| Vec::try_from(x.flatten(0, -1)).unwrap();
        found.into_iter().map(|(name, x)| (name, flat(x))).collect()
    };
    let head = values("head", &["training.learning_rate=1e-3", "training.head_learning_rate=5e-2"]);
    let biases =
        values("biases", &["training.learning_rate=5e-2", "bitfit.bias_learning_rate=1e-3"]);
    let one = values("one", &["training.learning_rate=1e-3"]);
    assert!(head == biases && head != one);
    let key = "training.head_learning_rate=1e-3";
    let output = scratch.train(&["--set", "method.name=lora", "--set", key]);
    refused(&output, 2, &["training.head_learning_rate", "found 0.001", "\"lora\""]);
}

#[test]
fn each_method_has_a_rate_of_its_own() {
    let scratch = Scratch::new();
    let text = std::fs::read_to_string(scratch.path("config.toml")).unwrap();
    scratch.write("config.toml", text.replace("learning_rate = 1e-2\n", ""));
    for (name, rate, of_head) in [
        ("bitfit", 2e-3, Some(1e-2)),
        ("layer_norm", 2e-3, Some(1e-2)),
        ("head", 1e-2, None),
        ("full", 5e-5, None),
        ("lora", 5e-4, None),
        ("adapter", 1e-4, None),
    ] {
        train(&scratch, name, &[&format!("method.name={name}"), "training.max_steps=1"]);
        let config = std::fs::read_to_string(scratch.path(name).join("config.toml")).unwrap();
        let config: toml::Table = toml::from_str(&config).unwrap();
        let training = &config["training"];
        assert_eq!(training["learning_rate"].as_float(), Some(rate), "{name}");
        let head = training.get("head_learning_rate").and_then(toml::Value::as_float);
        assert_eq!(head, of_head, "{name}");
        assert_eq!(training["lr_scheduler_type"].as_str(), Some("linear"), "{name}");
    }
}

#[test]
fn keys_of_another_method_are_refused() {
    let scratch = Scratch::new();
    for (sets, parts) in [
        (&["method.r=4"][..], &["method.r", "found 4", "\"bitfit\"", "\"lora\""][..]),
        (&["method.name=lora", "method.config=houlsby"], &["method.config", "\"adapter\""]),
        (&["method.name=adapter", "method.bias=all"], &["method.bias", "\"lora\""]),
        (&["method.name=full", "bitfit.layers=1-"], &["bitfit.layers", "\"full\""]),
        (
            &["method.name=lora", "bitfit.train_key_bias=false"],
            &["train_key_bias", "bias = \"all\""],
        ),
        (&["method.name=lora", "method.r=0"], &["method.r", "found 0", "1 to 4096"]),
        (&["method.name=lora", "method.lora_dropout=1"], &["method.lora_dropout", "below 1"]),
        (
            &["method.name=lora", "method.target_modules=[\"query\", \"quary\"]"],
            &["config.toml", "method.target_modules", "\"quary\"", "dense, key, query, value"],
        ),
        (
            &["method.name=lora", "method.target_modules=[\"classifier\"]"],
            &["\"classifier\"", "the new head trains without LoRA"],
        ),
        (&["method.name=adapter", "method.reduction_factor=0"], &["method.reduction_factor"]),
        (&["method.name=adapter", "method.non_linearity=sine"], &["sine", "swish"]),
        (&["method.name=loar"], &["loar", "did you mean `lora`?"]),
        (&["bitfit.freeze_all_weights=false"], &["method.name = \"full\""]),
    ] {
        let args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        refused(&scratch.train(&args), 2, parts);
        assert!(!scratch.path("run").exists(), "nothing is written");
    }
    // What has its default is no contradiction.
    train(&scratch, "run", &["method.r=8", "method.reduction_factor=16", "training.max_steps=1"]);
    train(
        &scratch,
        "run2",
        &["method.name=full", "bitfit.freeze_all_weights=false", "training.max_steps=1"],
    );
}

/// Comparisons are paired: one seed, one head, whatever the method; and what LoRA adds is nothing
/// at first.
#[test]
fn a_seed_draws_the_same_head_for_every_method() {
    let drawn = |name: &str, method: &Method, seed| {
        let mut base = tiny(name);
        let method = method.settled(base.config.architecture);
        base.initialize(seed).unwrap();
        method.add(&mut base).unwrap();
        method.initialize(&mut base, seed).unwrap();
        base
    };
    for name in TINY {
        let plain = drawn(name, &Method::Bitfit, 7);
        let expected = tch::no_grad(|| logits_of(&plain, name));
        for (case, method) in cases(name) {
            let base = drawn(name, &method, 7);
            let (own, other) = (base.store.variables(), plain.store.variables());
            for tensor in &plain.new {
                assert_eq!(own[tensor], other[tensor], "{name}, {case}");
            }
            let logits = tch::no_grad(|| logits_of(&base, name));
            let moved = largest(&(logits - &expected));
            assert_eq!(moved == 0.0, matches!(method, Method::Full | Method::Lora(_)), "{case}");
            let another = drawn(name, &method, 8);
            for tensor in &base.added {
                let (value, other) = (&own[tensor], &another.store.variables()[tensor]);
                if tensor.ends_with("lora_B.weight") || tensor.ends_with(".bias") {
                    assert_eq!(largest(value), 0.0, "{tensor}");
                    continue;
                }
                assert!(value != other, "{tensor}: another seed, other values");
                let bound = 1.0 / (value.size()[1] as f64).sqrt();
                let spread = value.std(true).double_value(&[]);
                if tensor.ends_with("lora_A.weight") {
                    assert!(largest(value) <= bound, "{tensor}");
                    // Uniform: the bound over the root of three.
                    assert!(
                        (spread * 3f64.sqrt() / bound - 1.0).abs() < 0.25,
                        "{tensor}: {spread}"
                    );
                } else {
                    assert!((spread / 0.02 - 1.0).abs() < 0.25, "{tensor}: {spread}");
                }
            }
        }
        // By its name alone: with more targets the same modules have the same values.
        let (few, many) =
            (drawn(name, &cases(name)[1].1, 7), drawn(name, &lora(4, 8.0, wide(name)), 7));
        let (few_of, many_of) = (few.store.variables(), many.store.variables());
        let both = few.added.iter().filter(|tensor| many_of.contains_key(*tensor));
        assert!(both.map(|tensor| assert_eq!(few_of[tensor], many_of[tensor])).count() > 3);
    }
}

/// LoRA's dropout is a function of seed, epoch and row like every other, and each layer has its
/// own.
#[test]
fn loras_dropout_belongs_to_the_row() {
    use bitfit::internal::data::{DropoutKeys, Example, Target};
    let dropped = |probability| {
        let Method::Lora(shape) = lora(3, 5.0, wide("tiny-bert")) else { unreachable!() };
        let method = Method::Lora(LoraConfig { lora_dropout: probability, ..shape });
        with_method("tiny-bert", "wide", &method).0
    };
    let examples: Vec<Example> = sequences(&golden("tiny-bert.safetensors"))
        .into_iter()
        .map(|tokens| Example { tokens: tokens.into(), target: Target::Class(0) })
        .collect();
    let _guard = tch::no_grad_guard();
    let logits = |base: &TaskModel, rows: &[usize], epoch| {
        let keys = DropoutKeys { seed: 9, epoch };
        let (packed, _) =
            Batch::from_examples(&examples, rows, Some(keys)).to_device(device()).unwrap();
        base.classifier.forward(&packed).unwrap()
    };
    let (without, with) = (dropped(0.0), dropped(0.5));
    let all = [0, 1, 2, 3, 4, 5, 6];
    let whole = logits(&with, &all, 2);
    let parts = [logits(&with, &all[..3], 2), logits(&with, &all[3..], 2)];
    assert!(largest(&(&whole - Tensor::cat(&parts, 0))) < 1e-5, "batches cut in two");
    assert!(largest(&(&whole - logits(&with, &all, 3))) > 1e-2, "another epoch, other masks");
    assert!(largest(&(&whole - logits(&without, &all, 2))) > 1e-2);
    assert!(largest(&(logits(&without, &all, 2) - logits(&without, &all, 3))) == 0.0);
    assert!(
        largest(&(logits_of(&with, "tiny-bert") - logits_of(&without, "tiny-bert"))) == 0.0,
        "none in evaluations"
    );
}

#[test]
fn a_merged_lora_predicts_what_it_predicted_beside_its_base() {
    for name in TINY {
        let scratch = Scratch::of(name);
        let targets = format!("method.target_modules={:?}", wide(name));
        let targets =
            targets.replace("layer.0.output", "output").replace("layer.1.output", "output");
        train(
            &scratch,
            "run",
            &["method.name=lora", "method.lora_alpha=24", &targets, "training.max_steps=16"],
        );
        succeeded(&scratch.bitfit(&["export", "--run", "run", "--format", "hf", "--output", "hf"]));
        let merged = Tensor::read_safetensors(scratch.path("hf/model.safetensors")).unwrap();
        assert!(merged.iter().all(|(name, _)| !name.contains("lora")), "a plain checkpoint");
        let scores = |what: [&str; 2]| -> Vec<f64> {
            let output = scratch.bitfit(&[
                "predict",
                what[0],
                what[1],
                "the film was great",
                "awful",
                "it was bad",
            ]);
            succeeded(&output);
            let lines = stdout(&output);
            let score = |line: &str| json(line.as_bytes())["scores"]["positive"].as_f64().unwrap();
            lines.lines().map(score).collect()
        };
        let (own, merged) = (scores(["--run", "run"]), scores(["--model", "hf"]));
        let worst = own.iter().zip(&merged).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-5, "{name}: {worst}");
        assert!(own.len() == 3 && own[0] != own[1]);
        // And as logits, where the head has random values that no softmax hides.
        let (base, _) = with_method(name, "wide", &lora(3, 5.0, wide(name)));
        let expected = tch::no_grad(|| logits_of(&base, name));
        let mut plain = tiny(name);
        let method = lora(3, 5.0, wide(name)).settled(base.config.architecture);
        for (name, tensor) in method.merged(&base).unwrap() {
            plain.set(&name, &tensor).unwrap();
        }
        let logits = tch::no_grad(|| logits_of(&plain, name));
        let worst = largest(&(logits - expected));
        println!("{name}: largest difference of a merged logit: {worst:.1e}");
        assert!(worst < 1e-5, "{name}: merged logits differ by {worst}");
    }
}

/// That PEFT loads it is for scripts/check_export.py to show.
#[test]
fn exports_hold_what_their_form_can() {
    let scratch = Scratch::new();
    train(&scratch, "lora", &["method.name=lora", "training.max_steps=4"]);
    succeeded(
        &scratch.bitfit(&["export", "--run", "lora", "--format", "peft", "--output", "peft"]),
    );
    let config = json(&std::fs::read(scratch.path("peft/adapter_config.json")).unwrap());
    assert_eq!(config["peft_type"], "LORA");
    assert_eq!(config["target_modules"], serde_json::json!(["query", "value"]));
    assert_eq!(config["modules_to_save"], serde_json::json!(["classifier"]));
    let adapter: BTreeSet<String> =
        Tensor::read_safetensors(scratch.path("peft/adapter_model.safetensors"))
            .unwrap()
            .into_iter()
            .map(|(name, _)| name.strip_prefix("base_model.model.").unwrap().to_owned())
            .collect();
    assert_eq!(adapter, delta(&scratch, "lora"));
    train(&scratch, "full", &["method.name=full", "training.max_steps=4"]);
    train(&scratch, "adapter", &["method.name=adapter", "training.max_steps=4"]);
    train(&scratch, "layer_norm", &["method.name=layer_norm", "training.max_steps=4"]);
    for (run, format, parts) in [
        ("full", "peft", &["every weight differs", "--format hf"]),
        ("adapter", "peft", &["no such adapters", "AdapterHub"]),
        ("adapter", "hf", &["cannot be merged", "AdapterHub"]),
    ] {
        let export = ["export", "--run", run, "--format", format, "--output", "refused"];
        refused(&scratch.bitfit(&export), 2, parts);
        assert!(!scratch.path("refused").exists(), "nothing is left");
    }
    for (run, format) in [("full", "hf"), ("layer_norm", "hf"), ("layer_norm", "peft")] {
        let output = format!("{run}-{format}");
        succeeded(
            &scratch.bitfit(&["export", "--run", run, "--format", format, "--output", &output]),
        );
    }
}

#[test]
fn a_run_starts_from_a_delta_of_its_own_method_or_of_one_that_adds_nothing() {
    let scratch = Scratch::new();
    train(&scratch, "bitfit", &["training.max_steps=4"]);
    train(&scratch, "lora", &["method.name=lora", "training.max_steps=4"]);
    let from = |run: &str| {
        format!("model.init_delta={}", scratch.path(run).join("delta.safetensors").display())
    };
    train(&scratch, "on", &["method.name=lora", &from("lora"), "training.max_steps=1"]);
    train(&scratch, "more", &["method.name=lora", &from("bitfit"), "training.max_steps=1"]);
    // What BitFit had trained is part of what now differs from the base.
    assert!(delta(&scratch, "more").contains("bert.encoder.layer.0.output.dense.bias"));
    let peft = ["export", "--run", "more", "--format", "peft", "--output", "peft"];
    refused(&scratch.bitfit(&peft), 2, &["differs from the base's", "--format hf"]);
    for sets in [&["method.name=bitfit"][..], &["method.name=lora", "method.r=2"]] {
        let from = from("lora");
        let sets = [sets, &["training.output_dir=other", &from]].concat();
        let args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        refused(&scratch.train(&args), 1, &["init_delta", "lora (r 8", "--format hf"]);
    }
}

/// Values that the script makes the same.
fn wave(shape: &[i64], bound: f64) -> Tensor {
    let value = |i: i64| (((i * 7919 + 12345) % 10007) as f64 / 5003.5 - 1.0) * bound;
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| value(i) as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// What a run predicts for the texts of a TSV: 1 for positive.
fn guesses(scratch: &Scratch, run: &str, rows: &Path) -> Vec<i64> {
    let rows = std::fs::read_to_string(rows).unwrap();
    let texts: Vec<&str> =
        rows.lines().skip(1).map(|line| line.split('\t').next().unwrap()).collect();
    scratch.write("texts.txt", texts.join("\n") + "\n");
    let predicted = scratch.bitfit(&["predict", "--run", run, "--input", "texts.txt"]);
    succeeded(&predicted);
    let is_positive = |line: &str| i64::from(json(line.as_bytes())["label"] == "positive");
    stdout(&predicted).lines().map(is_positive).collect()
}

/// The state that `method` starts from in the reference: the golden head, and added tensors by
/// [`wave`].
fn start_of(
    model: &Path,
    method: Method,
    golden: &HashMap<String, Tensor>,
) -> Vec<(String, Tensor)> {
    let shared = Base::read(model, None, device()).unwrap();
    let mut base = TaskModel::new(&shared, 2, Pooling::First, None).unwrap();
    method.settled(base.config.architecture).add(&mut base).unwrap();
    let shapes = base.shapes();
    let mut start: Vec<(String, Tensor)> = ["classifier.weight", "classifier.bias"]
        .map(|name| (name.to_owned(), golden[name].shallow_clone()))
        .into();
    for name in &base.added {
        let shape = &shapes[name];
        let bound = match name {
            name if name.ends_with("lora_A.weight") => 1.0 / (shape[1] as f64).sqrt(),
            name if name.ends_with("lora_B.weight") || name.ends_with(".bias") => 0.0,
            _ => 0.03,
        };
        start.push((name.clone(), wave(shape, bound)));
    }
    start
}

/// The loss of each step of the run `case`.
fn losses(scratch: &Scratch, case: &str) -> Vec<f64> {
    let records = std::fs::read_to_string(scratch.path(case).join("metrics.jsonl")).unwrap();
    let records = records.lines().map(|line| json(line.as_bytes()));
    records
        .filter(|record| record.get("grad_norm").is_some())
        .map(|record| record["loss"].as_f64().unwrap())
        .collect()
}

/// The whole way, from the TOML to the predictions, beside the Python way: the same rows, the same
/// start, no dropout.
#[test]
fn a_hundred_steps_have_the_references_losses_and_predictions() {
    let model = root().join("models/all-MiniLM-L6-v2");
    let data = root().join("data/movie-reviews");
    assert!(
        model.exists() && data.exists(),
        "run scripts/download_model.sh and scripts/download_movie_reviews.sh first"
    );
    let golden = golden("methods-minilm.safetensors");
    let scratch = Scratch::new();
    let text = std::fs::read_to_string(data.join("train.tsv")).unwrap();
    let rows: Vec<&str> = text.lines().skip(1).collect();
    let rows: Vec<&str> = (0..1600).map(|i| rows[i * 5003 % rows.len()]).collect();
    scratch.write("train.tsv", format!("text\tlabel\n{}\n", rows.join("\n")));
    for (case, method, rate, sets) in [
        ("full", Method::Full, 5e-5, &["method.name=full"][..]),
        ("lora", lora(8, 16.0, &[]), 1e-3, &["method.name=lora", "method.lora_alpha=16"]),
        (
            "houlsby",
            adapter(AdapterPlacement::Houlsby, 16.0),
            1e-3,
            &["method.name=adapter", "method.config=double_seq_bn"],
        ),
        ("pfeiffer", adapter(AdapterPlacement::Pfeiffer, 16.0), 3e-4, &["method.name=adapter"]),
    ] {
        let start = start_of(&model, method, &golden);
        Tensor::write_safetensors(&start, scratch.path("start.safetensors")).unwrap();
        let config = format!(
            "[model]\nmodel_name_or_path = {model:?}\npooling = \"first\"\ninit_delta = \"start.safetensors\"\nhidden_dropout_prob = 0.0\n\
             attention_probs_dropout_prob = 0.0\n[data]\ntrain = \"train.tsv\"\neval = {:?}\nshuffle = false\nmax_length = 64\n\
             [training]\noutput_dir = {case:?}\nlearning_rate = {rate:e}\nnum_train_epochs = 1\nlogging_steps = 1\n\
             eval_strategy = \"no\"\nsave_strategy = \"no\"\n",
            data.join("eval.tsv")
        );
        scratch.write("config.toml", config);
        let args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        succeeded(&scratch.train(&args));
        let losses = losses(&scratch, case);
        let expected: Vec<f64> =
            golden[&format!("{case}.losses")].to_kind(tch::Kind::Double).try_into().unwrap();
        assert_eq!(losses.len(), 100);
        let differences = losses.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let worst = differences.fold(0.0, f64::max);
        let guesses = guesses(&scratch, case, &data.join("eval.tsv"));
        let theirs = crate::common::ints(&golden[&format!("{case}.predictions")]);
        assert_eq!(guesses.len(), theirs.len());
        let same = guesses.iter().zip(&theirs).filter(|(a, b)| a == b).count();
        println!(
            "{case}: largest difference of a loss {worst:.1e}; {same} of {} predictions the same",
            theirs.len()
        );
        assert!(worst < 1e-4, "{case}: losses differ by {worst}");
        assert!(same as f64 >= 0.995 * theirs.len() as f64, "{case}: {same} predictions the same");
    }
}
