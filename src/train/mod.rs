//! Training: [`train`] is the whole run, and its loop is on one screen.

mod cache;
mod events;
pub mod manifest;
pub mod output;
mod past;
mod policy;
mod profile;
pub mod setup;
mod step;
mod tensorboard;
pub mod watch;

pub use events::{Event, Listener, Listeners, MetricsFile, Record, Terminal, list};
pub use manifest::Manifest;
pub use past::{Evaluated, Figures, Past};
pub use policy::{Actions, Policy};
pub use profile::{Profile, Profiler};
pub use setup::Prepared;
pub use tensorboard::TensorBoard;

use crate::checkpoint::{Checkpoint, State};
use crate::config::{Interval, Precision, Run, TrainingSection};
use crate::data::Sampler;
use crate::error::{Error, Result};
use crate::eval::evaluate;
use crate::optim::{Course, LossScale};
use crate::sources::Sources;
use crate::{checkpoint, data, files, native};
use cache::Cache;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use step::Stepper;
use watch::{Spoilt, Watch};

/// What a run was and what it cost; `summary.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// `bitfit`, `full`, `lora`, `adapter`, `head` or `layer_norm`.
    pub method: &'static str,
    /// Parameters that train.
    pub trainable: u64,
    /// All parameters.
    pub all: u64,
    /// Steps taken.
    pub steps: u64,
    /// From the start of this process to its first step.
    pub seconds_to_first_step: f64,
    /// In steps: batch, forward, backward, optimizer.
    pub seconds_in_steps: f64,
    /// In saving.
    pub seconds_saving: f64,
    /// Of the run, with the processes that it was resumed from.
    pub seconds_in_all: f64,
    /// Of the steps of this process but the first two, which warm up.
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

/// What to do with a run that the directory holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Refuse.
    Fresh,
    /// Replace it.
    Overwrite,
    /// Go on with it.
    Resume,
}

/// What the runs of one process hand on to each other.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    /// The age of the process when the run began, from which its times count.
    pub began: Duration,
}

impl Shared {
    /// Makes a run ready. What several runs read alike, base and rows, is read here, and nowhere else.
    fn prepare(&mut self, run: &Run, sources: &Sources) -> Result<Prepared> {
        Prepared::new(run, sources)
    }
}

/// Runs what `run` says, into its directory; `listener` hears of everything, and `stop` ends the run after a step.
pub fn train(
    run: &Run,
    start: Start,
    listener: &mut dyn Listener,
    stop: &AtomicBool,
) -> Result<Summary> {
    train_among(run, start, &mut Shared::default(), listener, stop)
}

/// [`train`] as one of several runs of this process.
pub fn train_among(
    run: &Run,
    start: Start,
    shared: &mut Shared,
    listener: &mut dyn Listener,
    stop: &AtomicBool,
) -> Result<Summary> {
    output::check(run, start)?;
    let run = &output::pinned(run, start)?;
    let sources = Sources::find(run, &mut |file, done, total| {
        listener.hear(&Event::Downloading { file, done, total })?;
        if stop.load(Ordering::SeqCst) {
            let kept = "what was downloaded is kept, and the next run goes on from it";
            return Err(Error::Interrupted(kept.into()));
        }
        Ok(())
    })?;
    listener.hear(&Event::Reading)?;
    let mut prepared = shared.prepare(run, &sources)?;
    if stop.load(Ordering::SeqCst) {
        return Err(Error::Interrupted("no step was taken, and nothing was changed".into()));
    }
    let output_dir = &run.config.training.output_dir;
    let _ours_alone = output::claim(run, &prepared, start)?;
    let sampler = prepared.sampler(run);
    let policy = Policy::new(&run.config.training, &sampler);
    let mut progress = Progress::new(&prepared, &policy, shared.began);
    let newest = if start == Start::Resume { Checkpoint::newest(output_dir)? } else { None };
    if let Some((path, checkpoint)) = &newest {
        progress.go_on_from(run, &policy, &mut prepared, path, checkpoint)?;
    }
    // Until here nothing was changed: a run that cannot go on loses nothing.
    output::begin(run, &prepared, start)?;
    let manifest = Manifest::begin(output_dir, &prepared, &progress.state, shared.began)?;
    listener.hear(&Event::Prepared(&prepared))?;
    if start == Start::Resume {
        events::cut(output_dir, progress.state.metrics_bytes)?;
    }
    if let Some((path, checkpoint)) = &newest {
        if checkpoint.state.kept.is_some() {
            Checkpoint::restore_best(path, &run.delta_path())?;
        }
        let (State { step, evaluation_due, .. }, total) = (checkpoint.state.clone(), policy.total);
        listener.hear(&Event::Resumed { checkpoint: path, step, evaluation_due, total })?;
    }
    let ended = finish(run, &policy, sampler, &mut prepared, &mut progress, listener, stop);
    let outcome = match &ended {
        Ok(_) => "finished",
        Err(Error::Interrupted(_)) => "interrupted",
        Err(_) => "failed",
    };
    // Why the run ended comes before why that could not be noted.
    let noted = manifest.end(output_dir, progress.state.step, outcome);
    ended.and_then(|summary| noted.map(|()| summary))
}

/// Takes the steps, and writes down what came of them.
fn finish(
    run: &Run,
    policy: &Policy,
    sampler: Sampler,
    prepared: &mut Prepared,
    progress: &mut Progress,
    listener: &mut dyn Listener,
    stop: &AtomicBool,
) -> Result<Summary> {
    let output_dir = &run.config.training.output_dir;
    let ended = run_steps(run, policy, sampler, prepared, progress, listener, stop);
    let interrupted = matches!(ended, Err(Error::Interrupted(_)));
    let saved = match &ended {
        Err(Error::Interrupted(_) | Error::Diverged { .. }) => progress.save_once(run, prepared),
        _ => Ok(()),
    };
    // Why it ended comes before why that could not be saved.
    if let Err(error) = if interrupted { saved } else { ended } {
        return Err(kept(run, progress, error));
    }
    // Interrupted before the first evaluation, or after it where the last state is asked for.
    let last_asked = !run.config.training.load_best_model_at_end;
    let step = progress.state.step;
    let behind = progress.state.kept.as_ref().is_none_or(|(kept, _)| last_asked && *kept < step);
    if behind && step > 0 {
        prepared.delta(&BTreeMap::new())?.write(&run.delta_path())?;
        progress.state.kept = None;
    }
    let summary = progress.summary(prepared, interrupted)?;
    let path = output_dir.join("summary.json");
    let text = serde_json::to_string_pretty(&summary).map_err(|e| Error::Bug(e.to_string()))?;
    files::replace_with(&path, (text + "\n").as_bytes())?;
    listener.hear(&Event::Finished { summary: &summary, output_dir })?;
    if !interrupted {
        return Ok(summary);
    }
    let delta = run.delta_path().display().to_string();
    Err(Error::Interrupted(match summary.best_step {
        _ if summary.steps == 0 => "no step was taken, and nothing was saved".into(),
        Some(best) if !last_asked => {
            format!(
                "the same command with --resume goes on after step {step}; {delta} holds the best so far, of step {best}"
            )
        }
        _ => format!(
            "the same command with --resume goes on after step {step}; {delta} holds what was trained until then"
        ),
    }))
}

/// `problem`, with what is kept of the run that it ended.
fn kept(run: &Run, progress: &Progress, problem: Error) -> Error {
    let output_dir = &run.config.training.output_dir;
    let mut kept = match checkpoint::steps(output_dir).ok().and_then(|steps| steps.last().cloned())
    {
        Some((step, path)) => {
            let again = match problem {
                // The same again would end the same.
                Error::Diverged { .. } => {
                    "another run can start from its delta.safetensors (model.init_delta)"
                }
                _ => "the same command with --resume goes on from there",
            };
            format!("kept: {}, the state after step {step}; {again}", path.display())
        }
        None => "kept: nothing, since no state had been saved yet".into(),
    };
    if let Some((step, _)) = &progress.state.kept {
        kept += &format!(". {} holds the best so far, of step {step}", run.delta_path().display());
    }
    Error::Ended { problem: Box::new(problem), kept }
}

/// The loop.
fn run_steps(
    run: &Run,
    policy: &Policy,
    sampler: Sampler,
    prepared: &mut Prepared,
    progress: &mut Progress,
    listener: &mut dyn Listener,
    stop: &AtomicBool,
) -> Result<()> {
    let training = &run.config.training;
    let mut stepper = Stepper {
        at_once: training.batch_size(),
        watch: Watch::on(prepared.base.device()),
        scale: progress.state.loss_scale,
        sparing: training.gradient_checkpointing,
        cache: None,
    };
    if training.cache_frozen_layers {
        let (batch, dir) = (training.per_device_eval_batch_size, &training.output_dir);
        let limits = (training.cache_memory_mib, training.cache_disk_mib);
        stepper.cache = Some(Cache::fill(prepared, batch, limits, dir, &mut |done, total| {
            listener.hear(&Event::Caching { done, total })?;
            if stop.load(Ordering::SeqCst) {
                Err(Error::Interrupted(String::new()))
            } else {
                Ok(())
            }
        })?);
    }
    let mut order = Order { sampler, epoch: None, order: vec![], starts: vec![] };
    // Where the run was interrupted in an evaluation.
    if progress.state.evaluation_due {
        after_step(run, policy, prepared, progress, listener, stop)?;
    }
    while progress.state.step < policy.total && !progress.gains_nothing(training) {
        if stop.load(Ordering::SeqCst) {
            let spoilt = stepper.watch.settle(&mut prepared.optimizer)?;
            check(spoilt, policy, prepared, progress, &mut order)?;
            return Err(Error::Interrupted(String::new()));
        }
        let began = Instant::now();
        if progress.seconds_to_first_step.is_none() {
            progress.seconds_to_first_step = Some(progress.age());
        }
        let step = progress.state.step + 1;
        let actions = policy.after(step);
        let keys = data::DropoutKeys { seed: training.seed, epoch: policy.cursor(step).0 };
        let factor = policy.schedule.factor(step);
        let rows = order.rows(policy, step).to_vec();
        let lengths = &order.sampler.lengths;
        let mut taken = stepper.take(prepared, step, &rows, lengths, keys, factor)?;
        if taken.spoilt.is_none() && (actions.evaluate || actions.save) {
            taken.spoilt = stepper.watch.settle(&mut prepared.optimizer)?;
        }
        check(taken.spoilt, policy, prepared, progress, &mut order)?;
        // Reading the loss waits for the device: at each step on the CPU, where it is free, else when it is logged.
        let loss = if actions.log || !prepared.base.device().is_cuda() {
            Some(f64::try_from(&taken.loss)?)
        } else {
            None
        };
        progress.state.loss_scale = stepper.scale;
        progress.bound_memory();
        progress.took(began.elapsed(), taken.tokens);
        listener.hear(&Event::Step { step, total: policy.total, loss, tokens: taken.tokens })?;
        if let Some(loss) = loss.filter(|_| actions.log) {
            listener.hear(&Event::Record(&Record::Step {
                step,
                epoch: policy.epoch(step),
                loss,
                learning_rate: factor * run.learning_rate(),
                grad_norm: f64::try_from(&taken.grad_norm)?,
                tokens_per_second: progress.tokens_per_second(),
            }))?;
        }
        progress.state.evaluation_due = actions.evaluate;
        after_step(run, policy, prepared, progress, listener, stop)?;
    }
    Ok(())
}

/// Ends the run where a step gave no numbers; its progress is then what it was before that step.
fn check(
    spoilt: Option<Spoilt>,
    policy: &Policy,
    prepared: &Prepared,
    progress: &mut Progress,
    order: &mut Order,
) -> Result<()> {
    let Some(Spoilt { step, what }) = spoilt else { return Ok(()) };
    progress.state.step = step.saturating_sub(1);
    let rows = Some(prepared.places(order.rows(policy, step)));
    Err(Error::Diverged { what, step, rows })
}

/// Evaluates and saves, where that is due.
fn after_step(
    run: &Run,
    policy: &Policy,
    prepared: &Prepared,
    progress: &mut Progress,
    listener: &mut dyn Listener,
    stop: &AtomicBool,
) -> Result<()> {
    let (training, step) = (&run.config.training, progress.state.step);
    if progress.state.evaluation_due {
        evaluate_and_keep(run, prepared, progress, listener, stop, policy.epoch(step))?;
        progress.state.evaluation_due = false;
    }
    let ends = progress.gains_nothing(training);
    if ends && step < policy.total {
        let (count, name) = (progress.state.without_gain, run.metric.name());
        tracing::info!("{count} evaluations in a row gained nothing in {name}: the run ends here");
    }
    if policy.after(step).save || (ends && training.save_strategy != Interval::No) {
        let path = progress.save(run, prepared)?;
        listener.hear(&Event::Saved(&path))?;
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
    let (step, total) = (progress.state.step, prepared.eval.len());
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
        let what = format!("the evaluation's loss is {loss}");
        return Err(Error::Diverged { what, step, rows: None });
    }
    let key = run.metric.name();
    let value = *metrics.get(key).ok_or_else(|| Error::Bug(format!("no metric {key}")))?;
    let state = &mut progress.state;
    let gained =
        policy::gained(value, state.best, run.greater_is_better, training.early_stopping_threshold);
    state.without_gain = if gained { 0 } else { state.without_gain + 1 };
    let better = policy::better(value, state.best, run.greater_is_better);
    if better {
        state.best = Some(value).filter(|value| !value.is_nan());
    }
    let keep = better || !training.load_best_model_at_end;
    if keep {
        prepared.delta(&metrics)?.write(&run.delta_path())?;
        state.kept = Some((step, metrics.clone()));
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

/// The rows of each step.
struct Order {
    sampler: Sampler,
    epoch: Option<u64>,
    /// The epoch's rows, and where its steps begin and the last ends in them.
    order: Vec<usize>,
    starts: Vec<usize>,
}

impl Order {
    fn rows(&mut self, policy: &Policy, step: u64) -> &[usize] {
        let (epoch, place) = policy.cursor(step);
        if self.epoch != Some(epoch) {
            self.order = self.sampler.order(epoch);
            let steps = self.sampler.step.cut(&self.order, &self.sampler.lengths);
            self.starts = vec![0];
            self.starts.extend(steps.scan(0, |end, rows| {
                *end += rows.len();
                Some(*end)
            }));
            self.epoch = Some(epoch);
        }
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        let step = self.starts.get(place).zip(self.starts.get(place.saturating_add(1)));
        step.and_then(|(&start, &end)| self.order.get(start..end)).unwrap_or_default()
    }
}

/// Where the run stands, and what this process saw of it.
struct Progress {
    state: State,
    /// The age of the process when the run began.
    began: Duration,
    /// Seconds of the processes before this one.
    seconds_before: f64,
    seconds_to_first_step: Option<Duration>,
    step_times: Vec<Duration>,
    /// The most resident memory after one of the first steps, in MiB.
    usual_rss_mib: u64,
    /// Step and metrics of the last evaluation.
    latest: Option<(u64, BTreeMap<String, f64>)>,
}

impl Progress {
    fn new(prepared: &Prepared, policy: &Policy, began: Duration) -> Self {
        let precision = prepared.resolved.training.precision;
        let mut computed_on = match prepared.base.device() {
            tch::Device::Cpu => format!("cpu, {} threads", tch::get_num_threads()),
            device => format!("{device:?}"),
        };
        if precision != Precision::Fp32 {
            computed_on += &format!(", {precision:?}");
        }
        Self {
            state: State {
                total: policy.total,
                data_fingerprint: prepared.data_fingerprint(),
                computed_on,
                loss_scale: (precision == Precision::Fp16).then(LossScale::default),
                ..State::default()
            },
            began,
            seconds_before: 0.0,
            seconds_to_first_step: None,
            step_times: vec![],
            usual_rss_mib: 0,
            latest: None,
        }
    }

    /// Goes on from a checkpoint: model and optimizer are then as they were.
    fn go_on_from(
        &mut self,
        run: &Run,
        policy: &Policy,
        prepared: &mut Prepared,
        path: &Path,
        checkpoint: &Checkpoint,
    ) -> Result<()> {
        let state = &checkpoint.state;
        if state.step > policy.total {
            let key =
                if run.config.training.max_steps > 0 { "max_steps" } else { "num_train_epochs" };
            let expected = format!("{} steps or more, which the run has taken", state.step);
            return Err(run.error(
                &format!("training.{key}"),
                &format!("{} steps", policy.total),
                &expected,
            ));
        }
        prepared.go_on_from(path, checkpoint)?;
        let now = std::mem::replace(&mut self.state, state.clone());
        if now.computed_on != state.computed_on {
            let (before, now) = (&state.computed_on, &now.computed_on);
            tracing::warn!("begun on {before} and now on {now}: the last bits may be others");
        }
        if now.total != state.total && policy.schedule.course != Course::Constant {
            let (before, now) = (state.total, now.total);
            tracing::warn!(
                "the rate fell towards step {before}, and from here falls towards step {now}"
            );
        }
        (self.state.computed_on, self.state.total) = (now.computed_on, now.total);
        self.state.loss_scale = now.loss_scale.map(|new| state.loss_scale.unwrap_or(new));
        self.seconds_before = state.seconds_in_all;
        Ok(())
    }

    /// Saves where the run stands.
    fn save(&mut self, run: &Run, prepared: &Prepared) -> Result<PathBuf> {
        let began = Instant::now();
        let training = &run.config.training;
        self.state.metrics_bytes = events::flushed(&training.output_dir)?;
        self.state.seconds_in_all = self.seconds_in_all();
        let step = self.state.step;
        let latest = self.latest.as_ref().filter(|(at, _)| *at == step);
        let metrics = latest.map(|(_, metrics)| metrics.clone()).unwrap_or_default();
        let checkpoint = Checkpoint {
            state: self.state.clone(),
            delta: prepared.delta(&metrics)?,
            memories: prepared.optimizer.memories()?,
        };
        let best = self.state.kept.is_some().then(|| run.delta_path());
        let path =
            checkpoint.save(&training.output_dir, best.as_deref(), training.save_total_limit)?;
        self.state.seconds_saving += began.elapsed().as_secs_f64();
        Ok(path)
    }

    /// Saves where the run stands, unless that is saved already.
    fn save_once(&mut self, run: &Run, prepared: &Prepared) -> Result<()> {
        let step = self.state.step;
        let steps = checkpoint::steps(&run.config.training.output_dir)?;
        if step == 0 || steps.iter().any(|(saved, _)| *saved == step) {
            return Ok(());
        }
        self.save(run, prepared).map(drop)
    }

    /// Whether it is time to stop early.
    fn gains_nothing(&self, training: &TrainingSection) -> bool {
        training.early_stopping_patience.is_some_and(|most| self.state.without_gain >= most)
    }

    fn took(&mut self, time: Duration, tokens: usize) {
        self.step_times.push(time);
        self.state.step += 1;
        self.state.tokens += tokens as u64;
        self.state.seconds_in_steps += time.as_secs_f64();
    }

    /// Gives free memory back when it has become a quarter more than after the first ten steps: giving it back costs the next step
    /// a few hundredths of its time.
    fn bound_memory(&mut self) {
        let resident = native::rss_mib();
        if self.step_times.len() < 10 {
            self.usual_rss_mib = self.usual_rss_mib.max(resident);
        } else if resident > self.usual_rss_mib * 5 / 4 {
            native::release_free_memory();
        }
    }

    fn seconds_in_all(&self) -> f64 {
        self.seconds_before + self.age().as_secs_f64()
    }

    /// How long ago this process began with the run; of the only run, how long ago the process itself began.
    fn age(&self) -> Duration {
        native::process_age().saturating_sub(self.began)
    }

    fn tokens_per_second(&self) -> f64 {
        self.state.tokens as f64 / self.state.seconds_in_steps.max(1e-9)
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
            .state
            .kept
            .clone()
            .map_or((None, BTreeMap::new()), |(step, metrics)| (Some(step), metrics));
        Ok(Summary {
            method: prepared.method().name(),
            trainable: counts.trainable,
            all: counts.all,
            steps: self.state.step,
            seconds_to_first_step: self.seconds_to_first_step.unwrap_or_default().as_secs_f64(),
            seconds_in_steps: self.state.seconds_in_steps,
            seconds_saving: self.state.seconds_saving,
            seconds_in_all: self.seconds_in_all(),
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
