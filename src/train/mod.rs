//! Training. [`train`] is a whole run, and `Training::take_steps` is its loop.

mod advice;
mod cache;
mod calibrate;
pub mod data;
mod doubts;
mod events;
mod long_texts;
pub mod manifest;
mod metrics_file;
pub mod output;
pub mod plan;
mod policy;
mod probe;
mod profile;
mod progress;
mod run_dir;
pub mod session;
mod step;
mod summary;
mod tensorboard;
mod trainer;
pub mod watch;

pub use advice::Evidence;
pub use calibrate::Calibration;
pub use data::{RawRows, RunData};
pub use events::{Event, Listener, Listeners, MetricsRecord};
pub use manifest::Manifest;
pub use metrics_file::MetricsFile;
pub use output::Start;
pub use plan::ModelPlan;
pub use policy::{Actions, Policy};
pub use profile::Profiler;
pub use run_dir::{Evaluated, RunDir};
pub use session::Session;
pub use summary::Summary;
pub use tensorboard::TensorBoard;
pub use trainer::Trainer;

use crate::checkpoint::{Checkpoint, TrainerState};
use crate::config::{Interval, Run};
use crate::data::{DropoutKeys, Sampler};
use crate::error::{Error, Result};
use crate::eval::{Evaluation, evaluate};
use crate::methods::Method;
use crate::sources::Sources;
use crate::{checkpoint, escape, lock};
use cache::Cache;
use progress::RunProgress;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use step::Stepper;
use tch::Tensor;
use watch::{NonFinite, Watch};

/// Trains as `run` says, writes to its output directory and returns the summary.
///
/// `listener` gets every event. Once `stop` is set, the run ends with [`Error::Interrupted`] after
/// the current step, and its state is saved if it took a step.
pub fn train(
    run: &Run,
    start: Start,
    listener: &mut dyn Listener,
    stop: &AtomicBool,
) -> Result<Summary> {
    train_since(Duration::ZERO, run, start, listener, stop)
}

/// Like [`train`], with times that count from when this process was as old as `began`. A process
/// that did other work before the run needs this.
pub fn train_since(
    began: Duration,
    run: &Run,
    start: Start,
    listener: &mut dyn Listener,
    stop: &AtomicBool,
) -> Result<Summary> {
    output::check(run, start)?;
    let run = &output::pinned(run, start)?;
    let plan = read(run, listener, stop)?;
    let run = &plan.run.clone();
    let output_dir = run.output_dir();
    let mut session = Session::start(run, plan)?;
    let _ours_alone = output::claim(run, &session.plan, start)?;
    let sampler = session.plan.data.sampler(run);
    let policy = Policy::of(run, &sampler);
    let mut progress = RunProgress::new(&session.plan, &policy, began);
    let newest = if start == Start::Resume { Checkpoint::newest(output_dir)? } else { None };
    if let Some((path, checkpoint)) = &newest {
        progress.resume(run, &policy, &mut session, path, checkpoint)?;
    }
    // Nothing was changed so far, so a run that cannot be resumed loses nothing.
    output::begin(run, &session.plan, start)?;
    let manifest = Manifest::begin(output_dir, &session.plan, &progress.state, began)?;
    listener.on_event(&Event::Prepared(&session.plan))?;
    if start == Start::Resume {
        metrics_file::cut(output_dir, progress.state.metrics_bytes)?;
    }
    if let Some((path, checkpoint)) = &newest {
        if checkpoint.state.kept.is_some() {
            Checkpoint::restore_best(path, &run.delta_path())?;
        }
        let (TrainerState { step, evaluation_due, .. }, total) =
            (checkpoint.state.clone(), policy.total);
        listener.on_event(&Event::Resumed { checkpoint: path, step, evaluation_due, total })?;
    }
    let order = Order { sampler, epoch: None, order: vec![], starts: vec![] };
    let elsewhere;
    let whole = true;
    let mut training = Training { run, policy, order, session, progress, listener, stop, whole };
    let ended = match training.finish() {
        Err(Error::Moved { dir, now }) => {
            if let Some(place) = &now {
                elsewhere = run.clone().with_output_dir(place.clone());
                training.run = &elsewhere;
            }
            Err(training.end_moved(dir, now))
        }
        ended => ended,
    };
    let outcome = match &ended {
        Ok(_) => "finished",
        Err(Error::Interrupted(_)) => "interrupted",
        Err(_) => "failed",
    };
    // The error that ended the run is reported before an error of writing the manifest.
    let output_dir = training.run.output_dir();
    let noted = manifest.end(output_dir, training.progress.state.step, outcome);
    ended.and_then(|summary| noted.map(|()| summary))
}

/// Finds and reads the base and the data of `run`, and plans the model.
fn read(run: &Run, listener: &mut dyn Listener, stop: &AtomicBool) -> Result<ModelPlan> {
    let sources = Sources::find(run, &mut |file, done, total| {
        listener.on_event(&Event::Downloading { file, done, total })?;
        if stop.load(Ordering::SeqCst) {
            let kept = "the downloaded part is kept, and the next run continues from it";
            return Err(Error::Interrupted(kept.into()));
        }
        Ok(())
    })?;
    listener.on_event(&Event::Reading)?;
    let plan = ModelPlan::read(run, &sources)?;
    if stop.load(Ordering::SeqCst) {
        return Err(Error::Interrupted("no step was taken, and nothing was changed".into()));
    }
    Ok(plan)
}

/// A session and the state of its loop.
struct Training<'a> {
    run: &'a Run,
    policy: Policy,
    order: Order,
    session: Session,
    progress: RunProgress,
    listener: &'a mut dyn Listener,
    stop: &'a AtomicBool,
    /// Whether the steps taken so far are finished and logged, so that a run can resume from here.
    whole: bool,
}

impl Training<'_> {
    /// Takes the steps and writes `summary.json`. Saves the state of a run that is interrupted or
    /// diverges.
    fn finish(&mut self) -> Result<Summary> {
        let training = self.run.training();
        let output_dir = &training.output_dir;
        let ended = match &self.run.method {
            Method::Probe(settings) => probe::solve(self, settings),
            _ => self.take_steps(),
        };
        let mut interrupted = matches!(ended, Err(Error::Interrupted(_)));
        let saved = match &ended {
            Err(Error::Interrupted(_) | Error::Diverged { .. }) => {
                self.progress.save_once(self.run, &self.session)
            }
            _ => Ok(()),
        };
        // The error that ended the run is reported before an error of saving the state.
        if let Err(error) = if interrupted { saved } else { ended } {
            return Err(self.with_what_is_kept(error));
        }
        // An interrupted run may have no `delta.safetensors` yet, or one that is older than the
        // last state, which `load_best_model_at_end = false` asks for.
        let last_asked = !training.keeps_best();
        let state = &mut self.progress.state;
        let step = state.step;
        let behind = state.kept.as_ref().is_none_or(|(kept, _)| last_asked && *kept < step);
        if behind && step > 0 {
            self.session.delta(&BTreeMap::new())?.write(&self.run.delta_path())?;
            (state.kept, state.kept_constant, state.kept_checksum) = (None, None, None);
        }
        if !interrupted {
            match self.calibrate() {
                Err(Error::Interrupted(_)) => {
                    interrupted = true;
                    self.progress.save_once(self.run, &self.session)?;
                }
                ended => ended?,
            }
        }
        let summary = self.progress.summary(&self.session, interrupted)?;
        summary.write(output_dir)?;
        self.listener.on_event(&Event::Finished { summary: &summary, output_dir })?;
        if !interrupted {
            return Ok(summary);
        }
        let delta = self.run.delta_path().display().to_string();
        Err(Error::Interrupted(match summary.best_step {
            _ if summary.steps == 0 && !self.run.method.takes_steps() => {
                "the head was not solved, and nothing was saved; the same command with --resume begins again".into()
            }
            _ if summary.steps == 0 => "no step was taken, and nothing was saved".into(),
            Some(best) if !last_asked => {
                format!(
                    "the same command with --resume continues after step {step}; {delta} holds the best state so far, of step {best}"
                )
            }
            _ => format!(
                "the same command with --resume continues after step {step}; {delta} holds the state after that step"
            ),
        }))
    }

    /// Calibrates the task in `delta.safetensors`, if the configuration asks for it.
    ///
    /// A checkpoint has the task as it was before, so a run that is resumed calibrates it again.
    fn calibrate(&mut self) -> Result<()> {
        let Some(section) = self.run.calibration() else { return Ok(()) };
        let batch_size = self.run.training().per_device_eval_batch_size.size();
        let (listener, stop) = (&mut *self.listener, self.stop);
        let mut on_rows = |done, total| {
            listener.on_event(&Event::Evaluating { done, total })?;
            go_on(stop)
        };
        let path = self.run.delta_path();
        let before = self.progress.state.kept.as_ref().map(|(_, metrics)| metrics);
        let (found, evaluation) =
            self.session.calibrate(section, &path, before, batch_size, &mut on_rows)?;
        let state = &mut self.progress.state;
        let step = state.kept.as_ref().map_or(state.step, |(step, _)| *step);
        state.kept = Some((step, evaluation.metrics));
        state.kept_constant = Some(evaluation.constant);
        self.progress.calibration = Some(found);
        Ok(())
    }

    /// Returns the error that ends a run whose directory was moved from `dir` to `now`. Saves the
    /// state first, if `now` is known and the last step is finished.
    fn end_moved(&mut self, dir: PathBuf, now: Option<PathBuf>) -> Error {
        if now.is_none() {
            let kept = "kept: the files in the moved directory".into();
            return Error::Ended { problem: Box::new(Error::Moved { dir, now }), kept };
        }
        if self.whole
            && let Err(error) = self.progress.save_once(self.run, &self.session)
        {
            tracing::warn!("the state could not be saved: {error}");
        }
        self.with_what_is_kept(Error::Moved { dir, now })
    }

    /// Adds to `problem` a note of what is kept of the run that it ended.
    fn with_what_is_kept(&self, problem: Error) -> Error {
        // By now, the directory may belong to another run.
        if matches!(problem, Error::Moved { .. }) && lock::check(&self.run.delta_path()).is_err() {
            return problem;
        }
        let newest = checkpoint::steps(self.run.output_dir());
        let mut kept = match newest.ok().and_then(|mut steps| steps.pop()) {
            Some((step, path)) => {
                let again = match &problem {
                    // The same command would diverge again.
                    Error::Diverged { .. } => {
                        "another run can start from its delta.safetensors (model.init_delta)".into()
                    }
                    Error::Moved { now: Some(now), .. } => format!(
                        "the same command with --resume --set {} continues from there",
                        escape::shell(format!("training.output_dir={}", now.display()).as_ref())
                    ),
                    _ => "the same command with --resume continues from there".to_owned(),
                };
                format!("kept: {}, the state after step {step}; {again}", path.display())
            }
            None => "kept: nothing, because no checkpoint was saved yet".into(),
        };
        if let Some((step, _)) = &self.progress.state.kept {
            let delta = self.run.delta_path();
            kept += &format!(". {} holds the best state so far, of step {step}", delta.display());
        }
        Error::Ended { problem: Box::new(problem), kept }
    }

    /// Takes the steps of the run, evaluating and saving on the way.
    fn take_steps(&mut self) -> Result<()> {
        let training = self.run.training();
        let mut stepper = Stepper {
            at_once: training.batch_size(),
            windows: self.session.plan.data.windows(),
            watch: Watch::on(self.session.plan.model.device()),
            scale: self.progress.state.loss_scale,
            sparing: training.gradient_checkpointing,
            cache: self.cache()?,
        };
        // The run was interrupted in an evaluation.
        if self.progress.state.evaluation_due {
            self.evaluate_and_save()?;
        }
        while self.progress.state.step < self.policy.total && !self.progress.stops_early(training) {
            if self.stop.load(Ordering::SeqCst) {
                let non_finite = stepper.watch.flush(&mut self.session.optimizer)?;
                self.check(non_finite)?;
                return Err(Error::Interrupted(String::new()));
            }
            lock::check(&training.output_dir)?;
            let began = Instant::now();
            self.progress.begin_step(self.session.plan.model.device())?;
            self.whole = false;
            let step = self.progress.state.step + 1;
            let actions = self.policy.after(step);
            let keys = DropoutKeys { seed: training.seed, epoch: self.policy.cursor(step).0 };
            let factor = self.policy.schedule.factor(step);
            let rows = self.order.rows(&self.policy, step).to_vec();
            let lengths = &self.order.sampler.lengths;
            let mut output = stepper.take(&mut self.session, step, &rows, lengths, keys, factor)?;
            if output.non_finite.is_none() && (actions.evaluate || actions.save) {
                output.non_finite = stepper.watch.flush(&mut self.session.optimizer)?;
            }
            self.check(output.non_finite)?;
            // On a GPU, reading the loss makes the host wait, so the loss is read only when it is
            // logged. On the CPU reading is free.
            let loss = if actions.log || !self.session.plan.model.device().is_cuda() {
                Some(f64::try_from(&output.loss)?)
            } else {
                None
            };
            self.progress.state.loss_scale = stepper.scale;
            self.progress.end_step(began, output.tokens, loss);
            let (total, tokens) = (self.policy.total, output.tokens);
            self.listener.on_event(&Event::Step { step, total, loss, tokens })?;
            if let Some(loss) = loss.filter(|_| actions.log) {
                self.listener.on_event(&Event::Record(&MetricsRecord::Step {
                    step,
                    epoch: self.policy.epoch(step),
                    loss,
                    learning_rate: factor * self.run.head_learning_rate(),
                    grad_norm: f64::try_from(&output.grad_norm)?,
                    tokens_per_second: self.progress.tokens_per_second(),
                }))?;
            }
            self.progress.state.evaluation_due = actions.evaluate;
            self.whole = true;
            self.evaluate_and_save()?;
        }
        Ok(())
    }

    /// Fills the cache of the frozen layers' output; `None` without `training.cache_frozen_layers`.
    fn cache(&mut self) -> Result<Option<Cache>> {
        let training = self.run.training();
        if !training.cache_frozen_layers {
            return Ok(None);
        }
        let (batch, dir) = (training.per_device_eval_batch_size.size(), &training.output_dir);
        let limits = (training.cache_memory_mib, training.cache_disk_mib);
        let mut on_progress = |done, total| {
            self.listener.on_event(&Event::Caching { done, total })?;
            go_on(self.stop)
        };
        Cache::fill(&self.session.plan, batch, limits, dir, &mut on_progress).map(Some)
    }

    /// Errs with [`Error::Diverged`] if a step gave NaN or infinity. Sets the progress back to
    /// before that step.
    fn check(&mut self, non_finite: Option<NonFinite>) -> Result<()> {
        let Some(NonFinite { step, what }) = non_finite else { return Ok(()) };
        self.progress.state.step = step.saturating_sub(1);
        self.session.plan.model.base.check_unchanged()?;
        let advice = self.advice(self.progress.state.step)?;
        let rows = Some(self.session.plan.data.places(self.order.rows(&self.policy, step)));
        Err(Error::Diverged { what, step, rows, advice })
    }

    /// Returns advice for a run that gives NaN or infinity after `steps` steps.
    fn advice(&self, steps: u64) -> Result<String> {
        let nothing_changed = (1..=steps).all(|step| self.policy.schedule.factor(step) == 0.0);
        // Once a step changed the tensors that train, NaN in them need not be from the file.
        let own = |_: &str, tensor: &Tensor| nothing_changed || !tensor.requires_grad();
        if let Some(name) = self.session.plan.model.not_finite(own)? {
            let file = self.session.plan.model.base.file.display();
            let or = self.run.model().init_delta.as_ref().map(|_| " or model.init_delta");
            return Ok(format!(
                "{name} contained NaN or infinity before the first step; it was read from {file}{}, so use another file",
                or.unwrap_or_default()
            ));
        }
        if !self.run.method.takes_steps() {
            return Ok(
                "every value of the base is finite, so training.precision = \"fp32\" may help"
                    .into(),
            );
        }
        Ok(match (nothing_changed, &self.run.training().class_weights) {
            (false, _) => "a lower training.learning_rate usually helps",
            (true, Some(_)) => {
                "no earlier step changed a parameter, so the learning rate is not the cause; smaller training.class_weights may help"
            }
            (true, None) => "no earlier step changed a parameter, so the learning rate is not the cause",
        }
        .into())
    }

    /// Evaluates and saves when the policy says so.
    fn evaluate_and_save(&mut self) -> Result<()> {
        let (training, step) = (self.run.training(), self.progress.state.step);
        if self.progress.state.evaluation_due {
            let before = self.progress.state.clone();
            self.evaluate_and_keep().inspect_err(|_| self.progress.state = before)?;
            self.progress.state.evaluation_due = false;
        }
        let ends = self.progress.stops_early(training);
        if ends && step < self.policy.total {
            let (count, name) = (self.progress.state.without_gain, self.run.metric.name());
            tracing::info!(
                "early stopping: {name} did not improve in the last {count} evaluations"
            );
        }
        if self.policy.after(step).save || (ends && training.save_strategy != Interval::No) {
            let path = self.progress.save(self.run, &self.session)?;
            self.listener.on_event(&Event::Saved(&path))?;
        }
        Ok(())
    }

    /// Evaluates. Writes `delta.safetensors` if this state is the best so far, or with
    /// `load_best_model_at_end = false`.
    fn evaluate_and_keep(&mut self) -> Result<()> {
        let (run, training) = (self.run, self.run.training());
        let step = self.progress.state.step;
        let began = Instant::now();
        let (listener, stop) = (&mut *self.listener, self.stop);
        let Evaluation { metrics, constant, .. } = self.session.while_folded(|plan| {
            let total = plan.data.eval.len();
            let mut on_batch = |rows: Range<usize>, _: &[Vec<f32>]| {
                plan.model.base.check_unchanged()?;
                listener.on_event(&Event::Evaluating { done: rows.end, total })?;
                go_on(stop)
            };
            evaluate(
                &plan.model.classifier,
                plan.model.device(),
                &plan.data.eval,
                &plan.meta.task,
                training.per_device_eval_batch_size.size(),
                &mut on_batch,
            )
        })?;
        if let Some(&loss) = metrics.get("loss").filter(|loss| !loss.is_finite()) {
            let (what, advice) = (format!("the evaluation's loss is {loss}"), self.advice(step)?);
            return Err(Error::Diverged { what, step, rows: None, advice });
        }
        let key = run.metric.name();
        let value = *metrics.get(key).ok_or_else(|| Error::Bug(format!("no metric {key}")))?;
        let (state, greater) = (&mut self.progress.state, run.greater_is_better);
        let least = training.early_stopping_threshold.get();
        let gained = policy::gained(value, state.best, greater, least);
        state.without_gain = if gained { 0 } else { state.without_gain + 1 };
        let better = policy::better(value, state.best, greater);
        if better {
            state.best = Some(value).filter(|value| !value.is_nan());
        }
        let kept = better || !training.keeps_best();
        if kept {
            let checksum = self.session.delta(&metrics)?.write(&run.delta_path())?;
            state.kept = Some((step, metrics.clone()));
            state.kept_constant = Some(constant);
            state.kept_checksum = Some(checksum);
        }
        self.listener.on_event(&Event::Record(&MetricsRecord::Evaluation {
            step,
            epoch: self.policy.epoch(step),
            metrics: metrics.clone(),
            kept,
            seconds: began.elapsed().as_secs_f64(),
        }))?;
        self.progress.latest = Some((step, metrics));
        Ok(())
    }
}

/// Returns `Err(Interrupted)` once a stop was requested.
fn go_on(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::SeqCst) { Err(Error::Interrupted(String::new())) } else { Ok(()) }
}

/// The rows of each step.
struct Order {
    sampler: Sampler,
    epoch: Option<u64>,
    /// The rows of the epoch, in the order of its steps.
    order: Vec<usize>,
    /// Where each step begins in `order`, and where the last step ends.
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
