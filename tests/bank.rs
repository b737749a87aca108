//! Tasks of one base in mixed batches: each sequence has the logits that it has with its task
//! alone.

use crate::common::{TINY, golden_dir};
use bitfit::bank::{Bank, Task};
use bitfit::base::Base;
use bitfit::data::{Batch, Encoded};
use bitfit::delta::{Delta, Meta};
use bitfit::methods::Method;
use bitfit::models::{self, TaskType};
use bitfit::task_model::TaskModel;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

fn below(random: &mut ChaCha8Rng, count: usize) -> usize {
    random.next_u64() as usize % count
}

fn values(random: &mut ChaCha8Rng, shape: &[i64], scale: f64) -> Tensor {
    let mut value = || ((random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 - 0.5) * scale;
    let values: Vec<f32> = (0..shape.iter().product::<i64>()).map(|_| value() as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// A task that a seed makes: some of the vectors far from the base's, and a head.
fn task(base: &Base, seed: u64) -> Delta {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (task_type, labels) = match seed % 4 {
        0 => (TaskType::Regression, 0),
        1 => (TaskType::MultiLabel, 1 + below(&mut random, 9)),
        _ => (TaskType::Classification, 2 + below(&mut random, 9)),
    };
    let method = match seed % 3 {
        0 => Method::Bitfit,
        1 => Method::LayerNorm,
        _ => Method::Head,
    };
    let model = TaskModel::new(base, task_type.outputs(labels), None).unwrap();
    let mut tensors = BTreeMap::new();
    for (name, shape) in model.shapes() {
        let is_norm = name.contains("LayerNorm.") || name.contains("layer_norm.");
        let trains = match method {
            Method::Bitfit => name.ends_with(".bias") && below(&mut random, 4) > 0,
            Method::LayerNorm => is_norm,
            _ => false,
        };
        if model.new.contains(&name) || trains {
            let start = base.tensors().get(&name);
            let change = values(&mut random, &shape, 1.0);
            tensors.insert(name, start.map_or(change.shallow_clone(), |own| own + &change));
        }
    }
    let config = &base.info.config;
    let meta = Meta {
        architecture: config.architecture.class.into(),
        base_name: "tiny".into(),
        base_fingerprint: base.info.fingerprint.clone(),
        base_config: config.beside_tensors(),
        tokenizer_fingerprint: "none".into(),
        task: models::Task {
            task_type,
            labels: (0..labels).map(|i| format!("label {i}")).collect(),
            labels_declared: true,
            pairs: Some(false),
            max_length: 40,
        },
        method,
        freeze_plan: tensors.keys().cloned().collect(),
        metrics: BTreeMap::new(),
    };
    Delta::new(meta, tensors)
}

#[test]
fn a_mixed_batch_gives_each_sequence_its_tasks_logits() {
    for name in TINY {
        let base = Base::read(&golden_dir().join(name), None, Device::Cpu).unwrap();
        let path = Path::new("task.safetensors");
        let before: Vec<Tensor> = base.tensors().values().map(Tensor::copy).collect();
        let alone: Vec<TaskModel> = (0..12)
            .map(|seed| {
                let delta = task(&base, seed);
                let mut model = TaskModel::new(&base, delta.meta.task.outputs(), None).unwrap();
                delta.apply_with_method(path, &mut model).unwrap();
                model
            })
            .collect();
        let shared: Vec<Tensor> = base.tensors().values().map(Tensor::shallow_clone).collect();
        let deltas: Vec<Delta> = (0..12).map(|seed| task(&base, seed)).collect();
        let bank = Bank::new(base).unwrap();
        let tasks: Vec<Task> = deltas.into_iter().map(|d| bank.task(path, d).unwrap()).collect();
        let mut random = ChaCha8Rng::seed_from_u64(7);
        for _ in 0..4 {
            let count = 1 + below(&mut random, 40);
            let mut of = vec![];
            let texts: Vec<Encoded> = (0..count)
                .map(|_| {
                    of.push(below(&mut random, tasks.len()));
                    let length = 2 + below(&mut random, 30);
                    let ids = (0..length).map(|_| 5 + below(&mut random, 100) as u32).collect();
                    Encoded { ids, first: length }
                })
                .collect();
            let (packed, _) = Batch::new(&texts).to_device(Device::Cpu).unwrap();
            let chosen: Vec<&Task> = of.iter().map(|&i| &tasks[i]).collect();
            let mixed = bank.logits(packed, &chosen).unwrap();
            for ((text, &of), found) in texts.iter().zip(&of).zip(&mixed) {
                let (packed, _) = Batch::new([text]).to_device(Device::Cpu).unwrap();
                let expected = tch::no_grad(|| alone[of].classifier.forward(&packed).unwrap());
                assert_eq!(expected.numel(), found.len());
                let largest = expected.abs().max().double_value(&[]).max(1.0);
                let difference = (Tensor::from_slice(found) - expected.view([-1])).abs().max();
                assert!(
                    difference.double_value(&[]) < 1e-5 * largest,
                    "{name}, task {of}: {difference:?}"
                );
            }
            // Another task is another function.
            let other: Vec<&Task> = of.iter().map(|&i| &tasks[(i + 1) % tasks.len()]).collect();
            let (packed, _) = Batch::new(&texts).to_device(Device::Cpu).unwrap();
            assert_ne!(bank.logits(packed, &other).unwrap(), mixed);
        }
        // Nothing was written to the base's memory, by models alone or together.
        for (own, before) in shared.iter().zip(&before) {
            assert!(own == before, "{name}");
        }
    }
}

#[test]
fn what_is_no_row_is_refused() {
    let read = || Base::read(&golden_dir().join("tiny-bert"), None, Device::Cpu).unwrap();
    let bank = Bank::new(read()).unwrap();
    let path = Path::new("task.safetensors");
    let refused = |change: &dyn Fn(&mut Delta), parts: &[&str]| {
        let mut delta = task(&read(), 3);
        change(&mut delta);
        let error = bank.task(path, delta).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    refused(&|d| d.meta.method = Method::Full, &["the method full", "bitfit, head or layer_norm"]);
    refused(&|d| d.meta.base_fingerprint = "other".into(), &["another base"]);
    let weight = "bert.encoder.layer.0.output.dense.weight";
    refused(
        &|d| drop(d.tensors.insert(weight.into(), read().tensors()[weight].copy())),
        &[weight, "only vectors"],
    );
    refused(&|d| drop(d.tensors.remove("classifier.bias")), &["classifier.bias"]);
}

/// Weights that are the base's alone are not kept in fp32 too.
#[test]
fn a_base_of_half_precision_has_no_weights_of_another() {
    let mut base = Base::read(&golden_dir().join("tiny-bert"), None, Device::Cpu).unwrap();
    assert!(base.tensors().values().all(|tensor| !tensor.requires_grad()));
    base.keep_in(Kind::BFloat16).unwrap();
    for (name, tensor) in base.tensors() {
        let dense = name.contains(".layer.") && tensor.dim() == 2;
        let expected = if dense { Kind::BFloat16 } else { Kind::Float };
        assert_eq!(tensor.kind(), expected, "{name}");
        assert!(!tensor.requires_grad(), "{name}");
    }
    let model = TaskModel::new(&base, 2, None).unwrap();
    for (name, variable) in model.store.variables() {
        let shared = base.tensors().get(&name).map(|tensor| tensor.data_ptr());
        assert!(shared.is_none_or(|shared| shared == variable.data_ptr()), "{name} is a copy");
    }
}
