//! Tasks that a seed makes, far from their base and from each other.

use bitfit::internal::base::Base;
use bitfit::internal::delta::{Delta, Meta};
use bitfit::internal::methods::{LoraConfig, Method};
use bitfit::internal::models::{LongTexts, Task, TaskType, WindowSettings};
use bitfit::internal::nn::{Pooling, WindowPooling};
use bitfit::internal::task_model::TaskModel;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use tch::Tensor;

pub fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

pub fn below(random: &mut ChaCha8Rng, count: usize) -> usize {
    random.next_u64() as usize % count
}

fn values(random: &mut ChaCha8Rng, shape: &[i64], scale: f64) -> Tensor {
    let mut value = || ((random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 - 0.5) * scale;
    let values: Vec<f32> = (0..shape.iter().product::<i64>()).map(|_| value() as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// What a made task does with long texts.
fn long_texts(seed: u64) -> LongTexts {
    let window_pooling =
        if seed.is_multiple_of(2) { WindowPooling::Mean } else { WindowPooling::Max };
    match seed % 5 {
        1 => LongTexts::Windows(WindowSettings {
            window_stride: seed.is_multiple_of(3).then_some(7),
            most_windows: 5,
            window_pooling,
        }),
        4 => LongTexts::HeadTail,
        _ => LongTexts::Cut,
    }
}

/// The thresholds of a made task: none, or one for each label that can have one.
fn thresholds(task_type: TaskType, labels: usize, seed: u64) -> Vec<f32> {
    let count = match task_type {
        TaskType::MultiLabel if seed.is_multiple_of(3) => labels,
        TaskType::Classification if labels == 2 => 1,
        _ => 0,
    };
    (0..count).map(|label| 0.25 + (label % 7) as f32 / 16.0).collect()
}

/// A task of `base`, whose tokenizer has `fingerprint`: any type, 2 to 150 labels, with or
/// without thresholds, one text or pairs, any length, any reading of long texts, a head on first
/// tokens or on means, and one of the freeze plans of the methods that share a batch.
pub fn task(base: &Base, fingerprint: &str, seed: u64) -> Delta {
    let mut random = random(seed);
    let (task_type, labels) = match seed % 4 {
        0 => (TaskType::Regression, 0),
        1 => (TaskType::MultiLabel, 1 + below(&mut random, 150)),
        _ => (TaskType::Classification, 2 + below(&mut random, 149)),
    };
    let config = &base.info.config;
    let layers = config.num_hidden_layers as usize;
    let pooling = if seed % 3 == 2 { Pooling::Mean } else { Pooling::First };
    let mut model = TaskModel::new(base, task_type.outputs(labels), pooling, None).unwrap();
    let (plan, first) = (below(&mut random, 9), below(&mut random, layers));
    // Biases of every kind, of upper layers, of queries, at random; LayerNorm; LoRA, also with
    // biases; the head alone.
    let lora = LoraConfig { r: 1 + below(&mut random, 8) as i64, ..LoraConfig::default() };
    let method = match plan {
        0..=3 => Method::Bitfit,
        4 => Method::LayerNorm,
        5 | 6 => Method::Lora(lora).settled(config.architecture),
        _ => Method::Head,
    };
    if let Method::Lora(_) = method {
        method.add(&mut model).unwrap();
    }
    let layer = |name: &str| name.split('.').find_map(|part| part.parse::<usize>().ok());
    let mut trains = |name: &str| match (plan, name.ends_with(".bias")) {
        (0 | 6, true) => true,
        (1, true) => layer(name).is_some_and(|layer| layer >= first),
        (2, true) => name.contains("quer") || name.contains("q_lin"),
        (3, true) => below(&mut random, 4) > 0,
        (4, _) => name.contains("LayerNorm.") || name.contains("layer_norm."),
        _ => false,
    };
    let named: Vec<String> = model.shapes().into_keys().filter(|name| trains(name)).collect();
    let mut tensors = BTreeMap::new();
    for (name, shape) in model.shapes() {
        let own = base.tensors().get(&name).filter(|_| named.contains(&name));
        if model.new.contains(&name) || model.added.contains(&name) || own.is_some() {
            let change = values(&mut random, &shape, if own.is_some() { 0.5 } else { 1.0 });
            tensors.insert(name, own.map_or(change.shallow_clone(), |own| own + &change));
        }
    }
    let meta = Meta {
        architecture: config.architecture.class.into(),
        base_name: "base".into(),
        base_fingerprint: base.info.fingerprint.clone(),
        base_config: config.beside_tensors(),
        tokenizer_fingerprint: fingerprint.into(),
        task: Task {
            task_type,
            labels: (0..labels).map(|i| format!("label {i}")).collect(),
            labels_declared: true,
            pairs: Some(config.type_vocab_size > 1 && below(&mut random, 3) == 0),
            max_length: 16 + below(&mut random, config.max_length() as usize - 15),
            pooling,
            long_texts: long_texts(seed),
            thresholds: thresholds(task_type, labels, seed),
        },
        method,
        freeze_plan: tensors.keys().cloned().collect(),
        metrics: BTreeMap::new(),
    };
    Delta::new(meta, tensors)
}
