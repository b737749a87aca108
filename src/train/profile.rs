//! Profiles training steps: the seconds of each part, and the seconds that the matrix products take
//! alone.

use super::events::{Event, Listener};
use crate::error::{Error, Result};
use crate::files::say;
use crate::native;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Warm-up steps, which are not counted.
const WARM_UP: u64 = 2;

/// The parts of a step, with the prefixes of their operations' names.
const PARTS: [(&str, &[&str]); 6] = [
    (
        "products with weights",
        &["bitfit::packed_product", "bitfit::product", "mkldnn::", "aten::mm", "aten::addmm"],
    ),
    ("attention", &["bitfit::attention"]),
    ("activation", &["bitfit::activation"]),
    ("dropout, residual, LayerNorm", &["bitfit::residual_norm", "bitfit::dropout"]),
    ("sums of biases' gradients", &["aten::sum"]),
    ("embeddings", &["aten::index_select", "aten::native_layer_norm"]),
];

/// The mean time of a step, by part.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Profile {
    /// Steps that were counted.
    pub steps: u64,
    /// The level of the processor's instructions: `avx512`, `avx2`, `sse2` or `neon`.
    pub cpu_level: &'static str,
    /// Mean seconds of a step.
    pub seconds: f64,
    /// Name and seconds of each part, largest first. The last entry is the time outside all parts.
    pub parts: Vec<(String, f64)>,
    /// Seconds of the step's products with weights, and of those that give weights' gradients,
    /// timed alone at the same sizes.
    pub products_alone: f64,
    /// Seconds of attention's own products, also timed alone: scores, contexts, and the
    /// gradients of the four factors.
    pub attention_alone: f64,
}

/// A listener that profiles the steps of a run, without evaluations and saves.
#[derive(Debug, Default)]
pub struct Profiler {
    since: Option<Instant>,
    seconds: f64,
    steps: u64,
    seen: u64,
}

impl Listener for Profiler {
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Step { .. } => {
                self.seen += 1;
                match self.since {
                    Some(_) => self.steps += 1,
                    None if self.seen < WARM_UP => {}
                    None => {
                        native::profile_start()?;
                        self.since = Some(Instant::now());
                    }
                }
            }
            Event::Evaluating { .. } | Event::Saved(_) => self.pause()?,
            Event::Finished { .. } => {
                self.pause()?;
                say(&self.profile()?.to_string());
            }
            _ => {}
        }
        Ok(())
    }
}

impl Profiler {
    fn pause(&mut self) -> Result<()> {
        if let Some(since) = self.since.take() {
            self.seconds += since.elapsed().as_secs_f64();
            native::profile_stop()?;
        }
        Ok(())
    }

    /// Returns the profile of the steps so far, with `steps` 0 if no step was counted.
    pub fn profile(&self) -> Result<Profile> {
        if self.steps == 0 {
            return Ok(Profile::default());
        }
        let steps = self.steps as f64;
        let mut parts: BTreeMap<&str, f64> = BTreeMap::new();
        let (mut products_alone, mut attention_alone) = (0.0, 0.0);
        for (name, seconds, calls) in native::profile_report()? {
            let part = PARTS.iter().find(|(_, begin)| begin.iter().any(|b| name.starts_with(b)));
            let part = part.map_or("other operations", |(part, _)| part);
            *parts.entry(part).or_default() += seconds / steps;
            let calls = calls as f64 / steps;
            if let Some(sizes) = name.strip_prefix("bitfit::packed_product ") {
                let product = |x: &Tensor, weight: &Tensor| native::kept_product(x, weight, None);
                products_alone += calls * product_alone(sizes, product)?.unwrap_or(0.0);
            } else if let Some(sizes) = name.strip_prefix("bitfit::product ") {
                let product = |x: &Tensor, weight: &Tensor| native::product(x, weight, None);
                products_alone += calls * product_alone(sizes, product)?.unwrap_or(0.0);
            } else if let Some(sizes) = name.strip_prefix("aten::mm ") {
                let product = |left: &Tensor, right: &Tensor| Ok(left.f_mm(right)?);
                products_alone += calls * product_alone(sizes, product)?.unwrap_or(0.0);
            } else if let Some(sizes) = name.strip_prefix("bitfit::attention") {
                attention_alone += calls * attention_products_alone(sizes)?.unwrap_or(0.0);
            }
        }
        let mut parts: Vec<(String, f64)> =
            parts.into_iter().map(|(name, seconds)| (name.to_owned(), seconds)).collect();
        parts.sort_by(|a, b| b.1.total_cmp(&a.1));
        let seconds = self.seconds / steps;
        let rest = seconds - parts.iter().map(|(_, seconds)| seconds).sum::<f64>();
        parts.push(("between them, batches included".into(), rest));
        let cpu_level = native::cpu_level();
        Ok(Profile {
            steps: self.steps,
            cpu_level,
            seconds,
            parts,
            products_alone,
            attention_alone,
        })
    }
}

/// Returns the seconds of a product of two matrices of `sizes`, in which `T` marks a matrix that is
/// stored transposed. `None` if `sizes` cannot be read.
fn product_alone(
    sizes: &str,
    product: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Option<f64>> {
    let _guard = tch::no_grad_guard();
    let random = |sizes: &str| {
        let Some([rows, columns]) = size(sizes.trim_end_matches('T')) else { return Ok(None) };
        let options = (Kind::Float, Device::Cpu);
        Ok::<_, Error>(Some(match sizes.ends_with('T') {
            true => Tensor::f_randn([columns, rows], options)?.f_t_()?,
            false => Tensor::f_randn([rows, columns], options)?,
        }))
    };
    let Some((left, right)) = sizes.split_once(' ') else { return Ok(None) };
    let (Some(left), Some(right)) = (random(left)?, random(right)?) else { return Ok(None) };
    Ok(Some(fastest(|| product(&left, &right))?))
}

/// Returns the seconds of the products in one layer's attention, timed as batches of equal sizes.
/// `None` if `sizes` cannot be read.
///
/// `sizes` is the name of an operation `bitfit::attention` or `bitfit::attention_backward`, without
/// the prefix `bitfit::attention`. Our backward chooses to compute the scores again; that product
/// is not counted.
fn attention_products_alone(sizes: &str) -> Result<Option<f64>> {
    let backward = sizes.starts_with("_backward ");
    let mut sizes = sizes.split(' ').skip(1);
    let Some([heads, head_size]) = sizes.next().and_then(size) else { return Ok(None) };
    let _guard = tch::no_grad_guard();
    let random = |of: [i64; 3]| Tensor::f_randn(of, (Kind::Float, Device::Cpu));
    let mut seconds = 0.0;
    for sequences in sizes {
        let Some((sequence, count)) = sequences.split_once('*') else { return Ok(None) };
        let (Some([rows, tokens]), Ok(count)) = (size(sequence), count.parse::<i64>()) else {
            return Ok(None);
        };
        let (queries, keys) = (
            random([count * heads, rows, head_size])?,
            random([count * heads, tokens, head_size])?,
        );
        let scores = random([count * heads, rows, tokens])?;
        let (keys_turned, scores_turned) = (keys.f_transpose(1, 2)?, scores.f_transpose(1, 2)?);
        seconds += fastest(|| Ok(queries.f_bmm(&keys_turned)?))?;
        seconds += fastest(|| Ok(scores.f_bmm(&keys)?))?;
        if backward {
            seconds += 2.0 * fastest(|| Ok(scores_turned.f_bmm(&queries)?))?;
        }
    }
    Ok(Some(seconds))
}

fn size(text: &str) -> Option<[i64; 2]> {
    let (rows, columns) = text.split_once('x')?;
    Some([rows.parse().ok()?, columns.parse().ok()?])
}

/// Returns the seconds of the fastest of five calls.
fn fastest(make: impl Fn() -> Result<Tensor>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let began = Instant::now();
        let _made = make()?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(best)
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.steps == 0 {
            return writeln!(f, "too few steps for a profile");
        }
        writeln!(f, "{:<34}{:>10}{:>9}", "part of a step", "seconds", "share")?;
        let all = ("all".to_owned(), self.seconds);
        for (name, seconds) in self.parts.iter().chain([&all]) {
            writeln!(f, "{name:<34}{seconds:>10.5}{:>8.1}%", 100.0 * seconds / self.seconds)?;
        }
        let all = self.products_alone + self.attention_alone;
        for (name, seconds) in
            [("the products with weights", self.products_alone), ("with attention's own", all)]
        {
            let share = 100.0 * seconds / self.seconds;
            writeln!(f, "{name}, alone: {seconds:.5} s, {share:.1} % of the step")?;
        }
        writeln!(f, "{} steps, CPU level {}", self.steps, self.cpu_level)
    }
}
