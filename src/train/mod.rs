//! Training: [`train`] is the whole run, and its loop is on one screen.

mod events;
pub mod output;
mod policy;
pub mod setup;
mod step;

pub use events::{Event, Listener, Listeners, MetricsFile, Record, Terminal, list};
pub use policy::{Actions, Policy};
pub use setup::Prepared;

use crate::config::Run;
use crate::error::{Error, Result};
use crate::eval::evaluate;
use crate::sources::Sources;
use crate::{checkpoint, data, files, native};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a run was and what it cost; `summary.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// `bitfit`.
    pub method: &'static str,
    /// Parameters that train.
    pub trainable: u64,
    /// All parameters.
    pub all: u64,
    /// Steps taken.
    pub steps: u64,
    /// From the start of the process to the first step.
    pub seconds_to_first_step: f64,
    /// In steps: batch, forward, backward, optimizer.
    pub seconds_in_steps: f64,
    /// From the start of the process.
    pub seconds_in_all: f64,
    /// Of all steps but the first two, which warm up.
    pub median_step_seconds: f64,
    /// Real tokens: there is no padding.
    pub tokens_per_second: f64,
    /// Peak resident memory of the process.
    pub peak_rss_mib: u64,
    /// Peak memory of tensors on the GPU.
    pub peak_gpu_mib: Option<u64>,
    /// The metrics of what `delta.safetensors` holds.
    pub best: BTreeMap<String, f64>,
    /// The step that they were measured after.
    pub best_step: Option<u64>,
    /// Whether a signal ended the run early.
    pub interrupted: bool,
}

/// Runs what `run` says, into its directory; `listener` hears of everything, and `stop` ends the run after a step.
pub fn train(
    run: &Run,
    overwrite: bool,
    listener: &mut dyn Listener,
    stop: &AtomicBool,
) -> Result<Summary> {
    output::check(run, overwrite)?;
    let sources = Sources::find(run, &mut |file, done, total| {
        listener.hear(&Event::Downloading { file, done, total })?;
        if stop.load(Ordering::SeqCst) {
            let kept = "what was downloaded is kept, and the next run goes on from it";
            return Err(Error::Interrupted(kept.into()));
        }
        Ok(())
    })?;
    listener.hear(&Event::Reading)?;
    let mut prepared = Prepared::new(run, &sources)?;
    if stop.load(Ordering::SeqCst) {
        return Err(Error::Interrupted("no step was taken, and nothing was changed".into()));
    }
    let _ours_alone = output::begin(run, &prepared, overwrite)?;
    listener.hear(&Event::Prepared(&prepared))?;
    let mut progress = Progress::default();
    let outcome = run_steps(run, &mut prepared, &mut progress, listener, stop);
    let interrupted = matches!(outcome, Err(Error::Interrupted(_)));
    if !interrupted {
        outcome?;
    }
    // Interrupted before the first evaluation, or after it where the last state is asked for.
    let last_asked = !run.config.training.load_best_model_at_end;
    let behind =
        progress.kept.as_ref().is_none_or(|(step, _)| last_asked && *step < progress.steps());
    if behind && progress.steps() > 0 {
        prepared.delta(&BTreeMap::new())?.write(&run.delta_path())?;
        progress.kept = None;
    }
    let summary = progress.summary(&prepared, interrupted)?;
    let path = run.config.training.output_dir.join("summary.json");
    let text = serde_json::to_string_pretty(&summary).map_err(|e| Error::Bug(e.to_string()))?;
    files::replace_with(&path, (text + "\n").as_bytes())?;
    listener.hear(&Event::Finished {
        summary: &summary,
        output_dir: &run.config.training.output_dir,
    })?;
    if !interrupted {
        return Ok(summary);
    }
    let delta = run.delta_path().display().to_string();
    Err(Error::Interrupted(match summary.best_step {
        Some(step) if !last_asked => format!("{delta} holds the best so far, of step {step}"),
        _ if summary.steps > 0 => {
            format!("{delta} holds what was trained in {} steps", summary.steps)
        }
        _ => "no step was taken, and nothing was saved".into(),
    }))
}

/// The loop.
fn run_steps(
    run: &Run,
    prepared: &mut Prepared,
    progress: &mut Progress,
    listener: &mut dyn Listener,
    stop: &AtomicBool,
) -> Result<()> {
    let training = &run.config.training;
    let policy = Policy::new(training, prepared.train.len());
    'epochs: for epoch in 0.. {
        let order =
            data::epoch_order(prepared.train.len(), training.seed, epoch, run.config.data.shuffle);
        for rows in order.chunks(training.per_device_train_batch_size) {
            if stop.load(Ordering::SeqCst) {
                return Err(Error::Interrupted(String::new()));
            }
            let began = Instant::now();
            progress.seconds_to_first_step.get_or_insert_with(native::process_age);
            let keys = data::DropoutKeys { seed: training.seed, epoch };
            let taken = step::step(prepared, rows, keys)?;
            let number = progress.steps() + 1;
            let actions = policy.after(number);
            // Reading the loss waits for the device: at each step on the CPU, where it is free, else when it is logged.
            let loss = if actions.log || !prepared.base.device().is_cuda() {
                Some(f64::try_from(&taken.loss)?)
            } else {
                None
            };
            progress.bound_memory();
            progress.took(began.elapsed(), taken.tokens);
            listener.hear(&Event::Step {
                step: number,
                total: policy.total,
                loss,
                tokens: taken.tokens,
            })?;
            if let Some(loss) = loss.filter(|loss| !loss.is_finite()) {
                return Err(Error::Diverged { step: number, loss });
            }
            if let Some(loss) = loss.filter(|_| actions.log) {
                listener.hear(&Event::Record(&Record::Step {
                    step: number,
                    epoch: policy.epoch(number),
                    loss,
                    learning_rate: training.learning_rate,
                    grad_norm: f64::try_from(&taken.grad_norm)?,
                    tokens_per_second: progress.tokens_per_second(),
                }))?;
            }
            if actions.evaluate {
                evaluate_and_keep(run, prepared, progress, listener, stop, policy.epoch(number))?;
            }
            if actions.save {
                let metrics = progress
                    .latest
                    .clone()
                    .filter(|(step, _)| *step == number)
                    .map(|(_, m)| m)
                    .unwrap_or_default();
                let delta = prepared.delta(&metrics)?;
                let path = checkpoint::save(
                    &training.output_dir,
                    number,
                    &delta,
                    training.save_total_limit,
                )?;
                listener.hear(&Event::Saved(&path))?;
            }
            if number == policy.total {
                break 'epochs;
            }
        }
    }
    Ok(())
}

/// Evaluates, and writes `delta.safetensors` when it is the best so far, or the last is asked for.
fn evaluate_and_keep(
    run: &Run,
    prepared: &Prepared,
    progress: &mut Progress,
    listener: &mut dyn Listener,
    stop: &AtomicBool,
    epoch: f64,
) -> Result<()> {
    let (training, base) = (&run.config.training, &prepared.base);
    let (step, total) = (progress.steps(), prepared.eval.len());
    let began = Instant::now();
    let mut hear = |done| {
        listener.hear(&Event::Evaluating { done, total })?;
        if stop.load(Ordering::SeqCst) { Err(Error::Interrupted(String::new())) } else { Ok(()) }
    };
    let metrics = evaluate(
        &base.model,
        base.device(),
        &prepared.eval,
        prepared.task_type,
        &prepared.labels,
        training.per_device_eval_batch_size,
        &mut hear,
    )?
    .metrics;
    if let Some(&loss) = metrics.get("loss").filter(|loss| !loss.is_finite()) {
        return Err(Error::Diverged { step, loss });
    }
    let key = run.metric.name();
    let value = *metrics.get(key).ok_or_else(|| Error::Bug(format!("no metric {key}")))?;
    let best = progress.kept.as_ref().and_then(|(_, metrics)| metrics.get(key).copied());
    let keep =
        !training.load_best_model_at_end || policy::better(value, best, run.greater_is_better);
    if keep {
        prepared.delta(&metrics)?.write(&run.delta_path())?;
        progress.kept = Some((step, metrics.clone()));
    }
    let seconds = began.elapsed().as_secs_f64();
    listener.hear(&Event::Record(&Record::Evaluation {
        step,
        epoch,
        metrics: metrics.clone(),
        kept: keep,
        seconds,
    }))?;
    progress.latest = Some((step, metrics));
    Ok(())
}

/// What the loop counts.
#[derive(Default)]
struct Progress {
    seconds_to_first_step: Option<Duration>,
    step_times: Vec<Duration>,
    tokens: usize,
    /// The most resident memory after one of the first steps, in MiB.
    usual_rss_mib: u64,
    /// Step and metrics of what `delta.safetensors` holds.
    kept: Option<(u64, BTreeMap<String, f64>)>,
    /// Step and metrics of the last evaluation.
    latest: Option<(u64, BTreeMap<String, f64>)>,
}

impl Progress {
    fn took(&mut self, time: Duration, tokens: usize) {
        self.step_times.push(time);
        self.tokens += tokens;
    }

    /// Gives free memory back when it has become a quarter more than after the first ten steps: giving it back costs the next step
    /// a few hundredths of its time.
    fn bound_memory(&mut self) {
        let resident = native::rss_mib();
        if self.steps() < 10 {
            self.usual_rss_mib = self.usual_rss_mib.max(resident);
        } else if resident > self.usual_rss_mib * 5 / 4 {
            native::release_free_memory();
        }
    }

    fn steps(&self) -> u64 {
        self.step_times.len() as u64
    }

    fn seconds_in_steps(&self) -> f64 {
        self.step_times.iter().sum::<Duration>().as_secs_f64()
    }

    fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds_in_steps().max(1e-9)
    }

    fn summary(&self, prepared: &Prepared, interrupted: bool) -> Result<Summary> {
        let counts = prepared.plan.counts();
        let mut times = self
            .step_times
            .get(2..)
            .filter(|times| !times.is_empty())
            .unwrap_or(&self.step_times)
            .to_vec();
        times.sort();
        let (best_step, best) = self
            .kept
            .clone()
            .map_or((None, BTreeMap::new()), |(step, metrics)| (Some(step), metrics));
        Ok(Summary {
            method: "bitfit",
            trainable: counts.trainable,
            all: counts.all,
            steps: self.steps(),
            seconds_to_first_step: self.seconds_to_first_step.unwrap_or_default().as_secs_f64(),
            seconds_in_steps: self.seconds_in_steps(),
            seconds_in_all: native::process_age().as_secs_f64(),
            median_step_seconds: times
                .get(times.len() / 2)
                .copied()
                .unwrap_or_default()
                .as_secs_f64(),
            tokens_per_second: self.tokens_per_second(),
            peak_rss_mib: native::peak_rss_mib(),
            peak_gpu_mib: native::peak_gpu_mib(prepared.base.device())?,
            best,
            best_step,
            interrupted,
        })
    }
}
