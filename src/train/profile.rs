//! Where a step's time goes: seconds by part, and how much of them its matrix products would take alone.

use super::{Event, Listener};
use crate::error::Result;
use crate::native;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Steps that warm up, and are not counted.
const WARM_UP: u64 = 2;

/// The parts of a step, and what the names of their operations begin with.
const PARTS: [(&str, &[&str]); 6] = [
    ("products with weights", &["bitfit::product", "mkldnn::", "aten::mm", "aten::addmm"]),
    ("attention", &["bitfit::attention"]),
    ("activation", &["bitfit::activation"]),
    ("dropout, residual, LayerNorm", &["bitfit::residual_norm", "bitfit::dropout"]),
    ("sums of biases' gradients", &["aten::sum"]),
    ("embeddings", &["aten::index_select", "aten::native_layer_norm"]),
];

/// Seconds of one step, by part.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Profile {
    /// Steps that were counted.
    pub steps: u64,
    /// A step.
    pub seconds: f64,
    /// Its parts, largest first; what is left is the last.
    pub parts: Vec<(String, f64)>,
    /// Its products with weights, made again alone, at their sizes.
    pub products_alone: f64,
}

/// Watches the steps of a run, evaluations left out.
#[derive(Debug, Default)]
pub struct Profiler {
    since: Option<Instant>,
    seconds: f64,
    steps: u64,
    seen: u64,
}

impl Listener for Profiler {
    fn hear(&mut self, event: &Event<'_>) -> Result<()> {
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
                eprint!("{}", self.profile()?);
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

    /// What was seen.
    pub fn profile(&self) -> Result<Profile> {
        if self.steps == 0 {
            return Ok(Profile::default());
        }
        let steps = self.steps as f64;
        let mut parts: BTreeMap<&str, f64> = BTreeMap::new();
        let mut products_alone = 0.0;
        for (name, seconds, calls) in native::profile_report()? {
            let part = PARTS.iter().find(|(_, begin)| begin.iter().any(|b| name.starts_with(b)));
            let part = part.map_or("other operations", |(part, _)| part);
            *parts.entry(part).or_default() += seconds / steps;
            if let Some(sizes) = name.strip_prefix("bitfit::product ") {
                products_alone += alone(sizes)?.unwrap_or(0.0) * calls as f64 / steps;
            }
        }
        let mut parts: Vec<(String, f64)> =
            parts.into_iter().map(|(name, seconds)| (name.to_owned(), seconds)).collect();
        parts.sort_by(|a, b| b.1.total_cmp(&a.1));
        let seconds = self.seconds / steps;
        let rest = seconds - parts.iter().map(|(_, seconds)| seconds).sum::<f64>();
        parts.push(("between them, batches included".into(), rest));
        Ok(Profile { steps: self.steps, seconds, parts, products_alone })
    }
}

/// Seconds of a product of these sizes, the fastest of a few; a weight that lay the other way is marked.
fn alone(sizes: &str) -> Result<Option<f64>> {
    let size = |text: &str| {
        let (rows, columns) = text.split_once('x')?;
        Some([rows.parse::<i64>().ok()?, columns.parse::<i64>().ok()?])
    };
    let turned = sizes.ends_with('T');
    let Some((x, weight)) = sizes.trim_end_matches('T').split_once(' ') else { return Ok(None) };
    let (Some(x), Some(weight)) = (size(x), size(weight)) else { return Ok(None) };
    let _guard = tch::no_grad_guard();
    let options = (Kind::Float, Device::Cpu);
    let x = Tensor::f_randn(x, options)?;
    let weight = match turned {
        true => Tensor::f_randn([weight[1], weight[0]], options)?.f_t_()?,
        false => Tensor::f_randn(weight, options)?,
    };
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let began = Instant::now();
        let _ = native::product(&x, &weight, None)?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(Some(best))
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
        let share = 100.0 * self.products_alone / self.seconds;
        writeln!(
            f,
            "the products with weights, alone: {:.5} s, {share:.1} % of the step; {} steps",
            self.products_alone, self.steps
        )
    }
}
