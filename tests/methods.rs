//! The methods that BitFit is compared with, against transformers, peft and AdapterHub's adapters (scripts/make_golden_methods.py).

use crate::common::{
    Scratch, TINY, golden, refused, root, sequences, stderr, stdout, succeeded, tiny,
};
use bitfit::base::Base;
use bitfit::data::Batch;
use bitfit::freeze::{FreezePlan, Switches};
use bitfit::methods::{Adapter, AdapterConfig, Lora, LoraBias, Method};
use bitfit::models::{Shaping, TaskType};
use bitfit::nn::NonLinearity;
use std::collections::{BTreeMap, HashMap};
use tch::{Device, Tensor};

fn lora(r: i64, lora_alpha: f64, targets: &[&str]) -> Method {
    let target_modules = targets.iter().map(|&name| name.into()).collect();
    Method::Lora(Lora { r, lora_alpha, target_modules, ..Lora::default() })
}

fn adapter(config: AdapterConfig, reduction_factor: f64) -> Method {
    Method::Adapter(Adapter { reduction_factor, ..Adapter::new(config) })
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
fn with_method(name: &str, case: &str, method: &Method) -> (Base, FreezePlan) {
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

fn logits_of(base: &Base, name: &str) -> Tensor {
    let sequences = sequences(&golden(&format!("{name}.safetensors")));
    let (packed, _) = Batch::new(&sequences).to_device(Device::Cpu).unwrap();
    base.model.forward(&packed).unwrap()
}

fn largest(tensor: &Tensor) -> f64 {
    tensor.abs().max().double_value(&[])
}

fn cases(name: &str) -> Vec<(&'static str, Method)> {
    vec![
        ("full", Method::Full),
        ("lora", lora(4, 8.0, &[])),
        ("wide", lora(3, 5.0, wide(name))),
        ("houlsby", adapter(AdapterConfig::Houlsby, 4.0)),
        ("pfeiffer", adapter(AdapterConfig::Pfeiffer, 4.0)),
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
        let shape = Adapter {
            reduction_factor: 12.0,
            non_linearity,
            ..Adapter::new(AdapterConfig::Pfeiffer)
        };
        let (base, _) = with_method("tiny-bert", case, &Method::Adapter(shape));
        let logits = tch::no_grad(|| logits_of(&base, "tiny-bert"));
        let worst = largest(&(logits - &expected[&format!("{case}.logits")]));
        assert!(worst < 2e-5, "{case}: logits differ by {worst}");
    }
}
