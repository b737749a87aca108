//! The candidates: the configuration as it is, and what may be better.

use super::keys::{Keys, table_of, with_keys};
use super::splits::Splits;
use crate::bounds::{Count, ProbeC};
use crate::compare::rate_name;
use crate::config::{MethodName, Run, RunConfig};
use crate::error::{Error, Result};
use crate::methods::{Method, ProbeConfig};
use crate::models::{TaskType, declared_pooling};
use crate::nn::Pooling;
use std::collections::BTreeSet;
use std::path::Path;

/// Learning rates of the head, the default first.
const HEAD_RATES: [f64; 3] = [1e-2, 3e-3, 3e-2];

/// Learning rates of biases and LayerNorms, the default first.
const BIAS_RATES: [f64; 2] = [2e-3, 5e-3];

/// Factors of the learning rate of other methods.
const FACTORS: [f64; 3] = [1.0, 0.3, 3.0];

/// Factors of the `c` of a probe.
const PENALTIES: [f64; 3] = [1.0, 10.0, 0.1];

/// Factors of the length of a run.
const LENGTHS: [f64; 3] = [1.0, 2.0, 0.5];

/// The name of the first candidate.
pub const AS_CONFIGURED: &str = "as configured";

/// Label smoothing, where it is tried.
const SMOOTHING: f64 = 0.1;

/// From this ratio of the largest class to the smallest, weights of the classes are tried.
const UNEVEN: f64 = 1.5;

/// A configuration to try.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The name for people, which tells what is changed.
    pub name: String,
    /// The keys that differ from the configuration.
    pub keys: Keys,
}

/// A choice of a method, with the place in the order in which choices are tried.
struct Choice {
    tier: usize,
    candidate: Candidate,
}

/// The methods that are tried: those that a user asked for, or else that of the configuration.
pub fn methods(run: &Run, asked: &[MethodName]) -> Vec<MethodName> {
    let mut methods = vec![];
    for method in asked {
        if !methods.contains(method) {
            methods.push(*method);
        }
    }
    if methods.is_empty() { vec![run.written().method.name] } else { methods }
}

/// The candidates, the configuration itself first, then in the order in which they are likely to
/// be good: each method's own rates, other rates, other lengths, and both.
pub fn candidates(run: &Run, splits: &Splits, methods: &[MethodName]) -> Result<Vec<Candidate>> {
    let own = run.written().method.name;
    let mut by_method: Vec<Vec<Choice>> = vec![];
    for &method in methods {
        by_method.push(choices(run, splits, method, methods != [own])?);
    }
    let mut all = vec![Candidate { name: AS_CONFIGURED.into(), keys: vec![] }];
    for tier in 0..4 {
        let of_tier: Vec<Vec<&Candidate>> = by_method
            .iter()
            .map(|choices| {
                let here = choices.iter().filter(|choice| choice.tier == tier);
                here.map(|choice| &choice.candidate).collect()
            })
            .collect();
        let longest = of_tier.iter().map(Vec::len).max().unwrap_or(0);
        for place in 0..longest {
            all.extend(of_tier.iter().filter_map(|of| of.get(place)).map(|it| (*it).clone()));
        }
    }
    different(run, splits, all)
}

/// The candidates without those that train as an earlier one does.
fn different(run: &Run, splits: &Splits, all: Vec<Candidate>) -> Result<Vec<Candidate>> {
    let mut seen = BTreeSet::new();
    let mut kept = vec![];
    for candidate in all {
        let changed = run.again(with_keys(run.written(), &candidate.keys)?)?;
        let changed = changed.with_data(splits.size)?;
        let mut config = changed.written().clone();
        // The rates and the length as they count, however they are written.
        let training = &mut config.training;
        (training.learning_rate, training.head_learning_rate) = (None, None);
        config.bitfit.bias_learning_rate = None;
        training.num_train_epochs = changed.training().num_train_epochs;
        training.lr_scheduler_type = changed.training().lr_scheduler_type;
        training.warmup_ratio = changed.training().warmup_ratio;
        if seen.insert(format!("{:?} {}", changed.adamw.rates, config.to_toml()?)) {
            kept.push(candidate);
        }
    }
    Ok(kept)
}

/// The choices of one method.
fn choices(run: &Run, splits: &Splits, method: MethodName, several: bool) -> Result<Vec<Choice>> {
    let to_method = if run.written().method.name == method {
        vec![]
    } else {
        keys_of_method(run.written(), method)?
    };
    let its = run.again(with_keys(run.written(), &to_method)?)?.with_data(splits.size)?;
    let rates = if method == MethodName::Probe { penalties(&its) } else { rates(&its, method)? };
    let mut choices = vec![];
    let lengths = if method.takes_steps() { &LENGTHS[..] } else { &[1.0] };
    for (l, &factor) in lengths.iter().enumerate() {
        let (length, length_keys) = length(&its, factor)?;
        for (r, (rate, rate_keys)) in rates.iter().enumerate() {
            let tier = match (l, r) {
                (0, 0) => 0,
                (0, _) => 1,
                (_, 0) => 2,
                _ => 3,
            };
            let method = several.then(|| its.method.name().to_owned());
            let length = length.clone().filter(|_| factor != 1.0);
            let name: Vec<String> =
                [method, Some(rate.clone()), length].into_iter().flatten().collect();
            let keys = [&to_method[..], rate_keys, &length_keys].concat();
            choices.push(Choice { tier, candidate: Candidate { name: name.join(", "), keys } });
        }
    }
    Ok(choices)
}

/// The keys that change the method of `config` to `method`, with that method's defaults.
fn keys_of_method(config: &RunConfig, method: MethodName) -> Result<Keys> {
    let table = table_of(config)?;
    let names = |section: &str| -> Vec<String> {
        let section = table.get(section).and_then(toml::Value::as_table);
        section.into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let others = names("method").into_iter().filter(|name| name != "name");
    let mut keys: Keys = others.map(|name| (format!("method.{name}"), None)).collect();
    let name = toml::Value::try_from(method).map_err(Error::bug)?;
    keys.push(("method.name".into(), Some(name)));
    if method != MethodName::Bitfit {
        let tutorials = ["freeze_all_weights", "train_bias_only"];
        let switches = names("bitfit").into_iter();
        let switches = switches.filter(|name| !tutorials.contains(&name.as_str()));
        keys.extend(switches.map(|name| (format!("bitfit.{name}"), None)));
    }
    if !method.takes_steps() {
        keys.extend(config.training.of_steps()?.into_iter().map(|(key, _)| (key, None)));
        if config.model.pooling.fixed() == Some(Pooling::First) {
            keys.push(("model.pooling".into(), None));
        }
        return Ok(keys);
    }
    keys.push(("training.learning_rate".into(), None));
    keys.push(("training.head_learning_rate".into(), None));
    Ok(keys)
}

/// The choices of learning rates for `run`, which has the method `method`: their names and keys,
/// the run's own rates first.
fn rates(run: &Run, method: MethodName) -> Result<Vec<(String, Keys)>> {
    let (rate, head) = (run.learning_rate().unwrap_or_default(), run.head_learning_rate());
    let own = |name: String| (name, vec![]);
    let bias = run.written().bitfit.bias_learning_rate.map_or(rate, |rate| rate.get());
    let pairs = |bias: &str, set: &dyn Fn(f64, f64) -> Result<Keys>| -> Result<Vec<_>> {
        let mut all = vec![];
        for b in BIAS_RATES {
            for h in HEAD_RATES {
                all.push((format!("head {}, {bias} {}", rate_name(h), rate_name(b)), set(h, b)?));
            }
        }
        Ok(all)
    };
    let head_key = |rate: f64| ("training.head_learning_rate".to_owned(), Some(rate.into()));
    let mut all = vec![];
    match method {
        MethodName::Bitfit => {
            all.push(own(format!("head {}, biases {}", rate_name(head), rate_name(bias))));
            all.extend(pairs("biases", &|head, bias| {
                Ok(vec![("bitfit.bias_learning_rate".into(), Some(bias.into())), head_key(head)])
            })?);
        }
        MethodName::LayerNorm => {
            all.push(own(format!("head {}, LayerNorms {}", rate_name(head), rate_name(rate))));
            all.extend(pairs("LayerNorms", &|head, rate| {
                Ok([with_schedule(run, rate)?, vec![head_key(head)]].concat())
            })?);
        }
        MethodName::Head => {
            all.push(own(format!("head {}", rate_name(head))));
            let one = |rate: f64| (format!("head {}", rate_name(rate)), vec![head_key(rate)]);
            all.extend(HEAD_RATES.map(one));
        }
        MethodName::Probe => {}
        MethodName::Full | MethodName::Lora | MethodName::Adapter => {
            for factor in FACTORS {
                // Two digits, because 5e-5 x 3 is 1.5000000000000001e-4.
                let rate = if factor == 1.0 { rate } else { two_digits(rate * factor) };
                let keys = if factor == 1.0 { vec![] } else { with_schedule(run, rate)? };
                all.push((format!("rate {}", rate_name(rate)), keys));
            }
        }
    }
    Ok(all)
}

/// The choices of `method.c` for `run`, whose method is a probe: their names and keys, the run's
/// own first.
fn penalties(run: &Run) -> Vec<(String, Keys)> {
    let Method::Probe(ProbeConfig { c }) = run.method else { return vec![] };
    let choice = |factor: f64| {
        let changed = two_digits(c * factor);
        let keys =
            if factor == 1.0 { vec![] } else { vec![("method.c".into(), Some(changed.into()))] };
        (format!("c {}", if factor == 1.0 { c } else { changed }), keys)
    };
    PENALTIES.into_iter().filter(|factor| ProbeC::contains(c * factor)).map(choice).collect()
}

fn two_digits(rate: f64) -> f64 {
    format!("{rate:.1e}").parse().unwrap_or(rate)
}

/// The keys that set the learning rate of `run` and keep its schedule, which would be another one
/// with a rate that is written.
fn with_schedule(run: &Run, rate: f64) -> Result<Keys> {
    let (written, resolved) = (&run.written().training, run.training());
    let mut keys: Keys = vec![("training.learning_rate".into(), Some(rate.into()))];
    if written.learning_rate.is_some() {
        return Ok(keys);
    }
    if let (None, Some(schedule)) = (written.lr_scheduler_type, resolved.lr_scheduler_type) {
        let schedule = toml::Value::try_from(schedule).map_err(Error::bug)?;
        keys.push(("training.lr_scheduler_type".into(), Some(schedule)));
    }
    if let (None, Some(ratio)) = (written.warmup_ratio, resolved.warmup_ratio) {
        keys.push(("training.warmup_ratio".into(), Some(ratio.get().into())));
    }
    Ok(keys)
}

/// The length of `run` times `factor`: its name, if `run` has a length, and its keys.
fn length(run: &Run, factor: f64) -> Result<(Option<String>, Keys)> {
    let training = run.training();
    let times = |count: u64| ((count as f64 * factor).ceil() as u64).max(1);
    let (key, what, count) = match (u64::try_from(training.max_steps), training.num_train_epochs) {
        (Ok(steps @ 1..), _) => ("training.max_steps", "steps", times(steps)),
        (_, epochs) => ("training.num_train_epochs", "epochs", times(epochs.map_or(1, Count::get))),
    };
    if factor == 1.0 {
        return Ok((None, vec![]));
    }
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    Ok((Some(format!("{count} {what}")), vec![(key.into(), Some(count.into()))]))
}

/// What else may pay, tried on top of `winner`: label smoothing, class weights, another pooling.
/// `base` is the directory of the base.
pub fn extras(
    run: &Run,
    splits: &Splits,
    base: &Path,
    winner: &Candidate,
) -> Result<Vec<Candidate>> {
    let (model, training) = (run.model(), run.training());
    let its = run.again(with_keys(run.written(), &winner.keys)?)?;
    let takes_steps = its.method.takes_steps();
    let classes = model.task_type == TaskType::Classification;
    let mut extras: Vec<(String, &str, toml::Value)> = vec![];
    if takes_steps && classes && training.label_smoothing_factor.get() == 0.0 {
        let name = format!("label smoothing {SMOOTHING}");
        extras.push((name, "training.label_smoothing_factor", SMOOTHING.into()));
    }
    if classes && training.class_weights.is_none() && uneven(splits) {
        let name = "balanced class weights".to_owned();
        extras.push((name, "training.class_weights", "balanced".into()));
    }
    if takes_steps && model.pooling.fixed().is_none() && model.init_delta.is_none() {
        let (name, value) = match declared_pooling(base)?.unwrap_or_default() {
            Pooling::First => ("pooling by the mean", "mean"),
            Pooling::Mean => ("pooling by the first token", "first"),
        };
        extras.push((name.to_owned(), "model.pooling", value.into()));
    }
    let on_top = |(name, key, value): (String, &str, toml::Value)| Candidate {
        name: format!("{}, {name}", winner.name),
        keys: [&winner.keys[..], &[(key.to_owned(), Some(value))]].concat(),
    };
    Ok(extras.into_iter().map(on_top).collect())
}

/// Whether some class has clearly more rows than another, and each has a row in every split.
fn uneven(splits: &Splits) -> bool {
    let counts = splits.all.iter().map(|split| &split.rows_by_label);
    let least = counts.clone().flatten().min().copied().unwrap_or(0);
    let uneven = |counts: &Vec<usize>| {
        let (least, most) = (counts.iter().min(), counts.iter().max());
        least.zip(most).is_some_and(|(least, most)| *most as f64 >= UNEVEN * *least as f64)
    };
    least > 0 && counts.clone().all(uneven)
}
