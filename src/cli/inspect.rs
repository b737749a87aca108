//! `bitfit inspect`.

use super::terminal::list;
use super::{downloads, logging, print, print_json};
use crate::base::Base;
use crate::changes::Changes;
use crate::config::{Metric, Run};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::escape;
use crate::freeze::{FreezePlan, Group, Places, StepCost, Switches};
use crate::models::{LongTexts, Task};
use crate::nn::Pooling;
use crate::numbers::thousands;
use crate::sources::{Model, Sources};
use crate::task_model::TaskModel;
use crate::train::{ModelPlan, RunDir};
use clap::{ArgGroup, Args};
use indicatif::MultiProgress;
use serde_json::{Map, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

pub const EXAMPLES: &str = "Examples:
  bitfit inspect --model models/all-MiniLM-L6-v2
  bitfit inspect --config configs/movie-reviews.toml --set bitfit.train_attention_bias=false
  bitfit inspect --delta runs/movie-reviews/delta.safetensors --json
  bitfit inspect --delta runs/movie-reviews/delta.safetensors --against models/all-MiniLM-L6-v2
  bitfit inspect --delta runs/seed-2/delta.safetensors --against runs/seed-1/delta.safetensors
  bitfit inspect --runs runs";

#[derive(Args)]
#[command(group(ArgGroup::new("what").required(true).args(["model", "config", "delta", "runs"])))]
pub struct Inspect {
    /// A base: a directory, or the id of a model on the Hub.
    #[arg(long, value_name = "DIR|ID")]
    model: Option<PathBuf>,
    /// Branch, tag or commit of the model on the Hub [default: main].
    #[arg(long, value_name = "NAME", requires = "model")]
    revision: Option<String>,
    /// A run configuration; its base and its data are read too.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A task's delta.safetensors.
    #[arg(long, value_name = "FILE")]
    delta: Option<PathBuf>,
    /// Show how --delta differs from another delta of the same base, or from the base itself (a
    /// directory, or a Hub id).
    #[arg(long, value_name = "FILE|DIR|ID", requires = "delta")]
    against: Option<PathBuf>,
    /// Show past runs side by side: run directories, or directories that contain runs.
    #[arg(long, value_name = "DIR", num_args = 1..)]
    runs: Vec<PathBuf>,
    /// Override a key of the configuration; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", requires = "config")]
    overrides: Vec<String>,
    /// The model's weight file, or the index of a sharded model [default: the first of model.ot,
    /// model.safetensors and pytorch_model.bin; for a Hub model, safetensors first].
    #[arg(long, value_name = "NAME", requires = "model")]
    weights: Option<String>,
    /// Number of labels of the new head that --model is shown with.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(2..=10000))]
    num_labels: u16,
    /// Write the result to stdout as one line of JSON, with every tensor listed.
    #[arg(long)]
    pub json: bool,
}

impl Inspect {
    pub fn run(&self) -> Result<()> {
        let bars = logging::start(self.json);
        if !self.runs.is_empty() {
            return show_runs(&self.runs, self.json);
        }
        match (&self.model, &self.config, &self.delta) {
            (_, _, Some(path)) => match &self.against {
                Some(other) => show_changes(other, path, self.json, &bars),
                None => show_delta(path, self.json),
            },
            (_, Some(path), _) => show_plan(&Run::read(path, &self.overrides)?, self.json, &bars),
            (Some(dir), _, _) => self.show_model(dir, &bars),
            _ => Err(Error::Bug("nothing to inspect".into())),
        }
    }

    fn show_model(&self, path: &Path, bars: &MultiProgress) -> Result<()> {
        let weights = self.weights.as_deref();
        let model = Model::locate(path, self.revision.as_deref(), weights, &mut downloads(bars))?;
        let base = Base::read(&model.dir, model.weights.as_deref(), Device::Cpu)?;
        let labels = usize::from(self.num_labels);
        let over = TaskModel::new(&base, labels, Pooling::First, None)?;
        let plan = FreezePlan::new(
            over.config.architecture,
            &over.shapes(),
            &over.new,
            &Switches::default(),
        )?;
        let fingerprint = &base.info.fingerprint;
        if self.json {
            return print_json(&as_json(&model.dir, fingerprint, &plan, None));
        }
        let counts = plan.counts();
        let memory = counts.memory();
        print(&format!("base         {model}, fingerprint {fingerprint:.16}\n{counts}\n{memory}"))
    }
}

/// Prints what `run` would train, after everything is read and checked.
pub fn show_plan(run: &Run, json: bool, bars: &MultiProgress) -> Result<()> {
    let plan = ModelPlan::read(run, &Sources::find(run, &mut downloads(bars))?)?;
    if json {
        let base = &plan.model.base;
        let cost = Some(plan.cost());
        return print_json(&as_json(&base.dir, &base.fingerprint, &plan.freeze, cost));
    }
    print(&plan.to_string())
}

fn as_json(
    dir: &Path,
    fingerprint: &str,
    plan: &FreezePlan,
    cost: Option<StepCost>,
) -> serde_json::Value {
    json!({"base": dir, "fingerprint": fingerprint, "counts": plan.counts(), "parameters": plan.parameters(), "cost": cost})
}

/// Prints how the delta `path` differs from `other`, a delta or a base.
fn show_changes(other: &Path, path: &Path, json: bool, bars: &MultiProgress) -> Result<()> {
    let delta = Delta::read(path)?;
    let (expected, base) = (&delta.meta.base_fingerprint, &delta.meta.base_name);
    let file = other.is_file() || other.extension().is_some_and(|e| e == "safetensors");
    let (found, tensors) = if file {
        let other = Delta::read(other)?;
        (other.meta.base_fingerprint, other.tensors)
    } else {
        let model = Model::locate(other, None, None, &mut downloads(bars))?;
        let base = Base::read(&model.dir, model.weights.as_deref(), Device::Cpu)?;
        let of_delta = |(name, tensor): (&String, &Tensor)| {
            delta.tensors.contains_key(name).then(|| (name.clone(), tensor.shallow_clone()))
        };
        let tensors: BTreeMap<_, _> = base.tensors().iter().filter_map(of_delta).collect();
        (base.info.fingerprint.clone(), tensors)
    };
    if found != *expected {
        let problem = format!(
            "of another base than {}: expected fingerprint {expected} ({base}), found {found}",
            path.display()
        );
        return Err(Error::file(other, problem));
    }
    let changes = Changes::between(&tensors, &delta)?;
    if json {
        return print_json(&changes);
    }
    print(changes.to_string().trim_end())
}

/// Prints past runs side by side: each of `dirs` is a run, or contains runs.
fn show_runs(dirs: &[PathBuf], json: bool) -> Result<()> {
    let mut found = vec![];
    for dir in dirs {
        let runs = RunDir::below(dir)?;
        if runs.is_empty() {
            return Err(Error::file(dir, "no run there: no config.toml in it or below"));
        }
        found.extend(runs);
    }
    // A directory may be given twice, or be below another one.
    let mut seen = BTreeSet::new();
    found.retain(|dir| seen.insert(std::fs::canonicalize(dir).unwrap_or_else(|_| dir.clone())));
    let mut runs = vec![];
    for dir in &found {
        match RunDir::read(dir) {
            Ok(run) => runs.push(run),
            // Another program's config.toml must not hide the runs.
            Err(error) if found.len() > 1 => tracing::warn!("left out: {error}"),
            Err(error) => return Err(error),
        }
    }
    if json {
        let rows = runs.iter().map(|run| {
            let training = &run.config.training;
            let best = best_metric(run).map(|(name, value)| json!({"metric": name, "value": value}));
            json!({"dir": run.dir, "learning_rate": training.learning_rate, "seed": training.seed, "best": best, "summary": run.summary})
        });
        return print_json(&serde_json::Value::from_iter(rows));
    }
    let names: Vec<String> = runs.iter().map(|run| escape::line(run.dir.display())).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(3);
    let mut text = format!(
        "{:<width$} {:<10} {:>12} {:>18} {:>7} {:>9} {:>9} {:>9} {:>8} {:>6}",
        "run",
        "method",
        "trainable",
        "best",
        "steps",
        "s/step",
        "tokens/s",
        "peak MiB",
        "rate",
        "seed"
    );
    for (run, name) in runs.iter().zip(names) {
        text += &format!("\n{name:<width$} {}", columns(run));
    }
    print(&text)
}

/// The columns of a run after its name.
fn columns(run: &RunDir) -> String {
    let training = &run.config.training;
    let rate = training.learning_rate.map_or("-".into(), |rate| format!("{:e}", rate.get()));
    let seed = training.seed;
    let Some(summary) = &run.summary else {
        return format!("{:<80} {rate:>8} {seed:>6}", "not ended");
    };
    let best = best_metric(run).map_or("-".into(), |(name, value)| format!("{name} {value:.4}"));
    format!(
        "{:<10} {:>12} {best:>18} {:>7} {:>9.4} {:>9.0} {:>9} {rate:>8} {seed:>6}{}",
        summary.method,
        thousands(summary.trainable),
        summary.steps,
        summary.median_step_seconds,
        summary.tokens_per_second,
        summary.peak_rss_mib,
        if summary.interrupted { "  interrupted" } else { "" }
    )
}

/// The name and the value of the metric that decides which state is best.
fn best_metric(run: &RunDir) -> Option<(&'static str, f64)> {
    let default = Metric::of(run.config.model.task_type).first().copied();
    let metric = run.config.training.metric_for_best_model.or(default)?.name();
    Some((metric, *run.summary.as_ref()?.best.get(metric)?))
}

/// A line of the thresholds of `task`; empty if it has none.
fn thresholds(task: &Task) -> String {
    let shown = task.named_thresholds();
    let shown: Vec<String> =
        shown.map(|(label, value)| format!("{} {value:.4}", escape::quoted(label))).collect();
    if shown.is_empty() { String::new() } else { format!("\nthresholds   {}", shown.join(", ")) }
}

fn show_delta(path: &Path, json: bool) -> Result<()> {
    let delta = Delta::read(path)?;
    let meta = &delta.meta;
    if json {
        let shapes =
            delta.tensors.iter().map(|(name, tensor)| (name.clone(), json!(tensor.size())));
        return print_json(&json!({"meta": meta, "tensors": shapes.collect::<Map<_, _>>()}));
    }
    let mut text = format!(
        "base         {} ({}), fingerprint {}\nmethod       {}\ntask         {}{}\nmax_length   {}{}\nmetrics      {}\n\n{:<12} {:>8} {:>13}\n",
        escape::line(&meta.base_name),
        escape::line(&meta.architecture),
        escape::line(meta.base_fingerprint.get(..16).unwrap_or(&meta.base_fingerprint)),
        escape::line(&meta.method),
        meta.task.task_type.name(),
        if meta.task.labels.is_empty() {
            String::new()
        } else {
            format!(": {}", escape::line(meta.task.labels.join(", ")))
        },
        meta.task.max_length,
        match meta.task.long_texts {
            LongTexts::Cut => String::new(),
            long_texts => format!("\nlong texts   {long_texts}"),
        } + &thresholds(&meta.task),
        if meta.metrics.is_empty() { "none".into() } else { list(&meta.metrics) },
        "group",
        "tensors",
        "parameters",
    );
    let mut line = |name: &str, sizes: &[usize]| {
        let (count, sum) = (sizes.len(), thousands(sizes.iter().sum::<usize>() as u64));
        text += &format!("{name:<12} {count:>8} {sum:>13}\n");
    };
    let places = Places::new(meta.architecture()?)?;
    for group in Group::ALL {
        let of_group = delta
            .tensors
            .iter()
            .filter(|(name, _)| places.of(name).is_ok_and(|place| place.group == group));
        let sizes: Vec<_> = of_group.map(|(_, tensor)| tensor.numel()).collect();
        if !group.is_added() || !sizes.is_empty() {
            line(group.name(), &sizes);
        }
    }
    line("all", &delta.tensors.values().map(|tensor| tensor.numel()).collect::<Vec<_>>());
    print(text.trim_end())
}
