//! The training of one candidate on one split to the end of a rung.

use super::result::{QUARTERS, RUNGS, better};
use super::{Budget, TuneEvent, Tuning, with_keys};
use crate::bounds::Count;
use crate::compare::left;
use crate::config::{Interval, Run};
use crate::error::{Error, Result};
use crate::train::{Event, Listener, MetricsFile, MetricsRecord, RunDir, Start, train};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The time that a tuning took, over all its processes.
pub struct Clock {
    began: Instant,
    before: f64,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { began: Instant::now(), before: 0.0 }
    }

    /// The clock with the seconds of earlier processes.
    pub fn with(self, before: f64) -> Self {
        Self { before, ..self }
    }

    /// Seconds so far.
    pub fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }
}

/// The end of a training to a rung.
pub enum Advance {
    /// The rung is reached, with this score; `None` is NaN.
    Score(Option<f64>),
    /// The budget of time ended before.
    OutOfTime,
}

/// Errs with [`Error::Interrupted`] once `stop` is set, before anything is trained.
pub fn go_on(stop: &AtomicBool) -> Result<()> {
    if !stop.load(Ordering::SeqCst) {
        return Ok(());
    }
    Err(Error::Interrupted("nothing was tried yet; the same command begins again".into()))
}

/// Whether `error` is a failure of the candidate, and not of the machine or of the files. An error
/// of the configuration itself (`is_own`) is a failure only if the training gave NaN or infinity.
pub fn is_of_candidate(error: &Error, is_own: bool) -> bool {
    match error {
        Error::Ended { problem, .. } => is_of_candidate(problem, is_own),
        Error::Diverged { .. } | Error::NotFinite(_) => true,
        Error::Toml { .. } | Error::Config { .. } | Error::Usage(_) | Error::Data { .. } => !is_own,
        _ => false,
    }
}

/// Steps between evaluations of a run of `total` steps: each rung ends with one.
fn between(total: u64) -> u64 {
    total.div_ceil(4).max(1)
}

/// The step that ends `rung` of a run of `total` steps.
fn end_of(total: u64, rung: usize) -> u64 {
    let quarters = QUARTERS.get(rung).copied().unwrap_or(4);
    if quarters == 4 { total } else { (quarters * between(total)).min(total) }
}

/// Why a run was ended by its listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The rung is reached.
    Reached,
    /// The user asked for it.
    Asked,
    /// The budget of time is used.
    OutOfTime,
}

/// A listener that ends a run when its rung is reached.
struct RungListener<'a, 'b> {
    /// The step that ends the rung.
    target: u64,
    /// The flag that ends the run after its step.
    end: &'a AtomicBool,
    /// The flag of the user.
    stop: &'a AtomicBool,
    cause: Option<Cause>,
    clock: &'a Clock,
    /// Seconds after which no step is taken; `None` without such a limit.
    limit: Option<f64>,
    files: MetricsFile,
    /// Calls a function with the number of steps taken, and of all steps.
    on_step: &'a mut (dyn FnMut(u64, u64) -> Result<()> + 'b),
}

impl RungListener<'_, '_> {
    fn end(&mut self, cause: Cause) {
        self.cause.get_or_insert(cause);
        self.end.store(true, Ordering::SeqCst);
    }
}

impl Listener for RungListener<'_, '_> {
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        match *event {
            Event::Resumed { step, evaluation_due, .. }
                if step >= self.target && !evaluation_due =>
            {
                self.end(Cause::Reached);
            }
            Event::Step { step, total, .. } => (self.on_step)(step, total)?,
            Event::Record(MetricsRecord::Evaluation { step, .. }) if *step >= self.target => {
                self.files.on_event(event)?;
                self.end(Cause::Reached);
                return Ok(());
            }
            _ => {}
        }
        if self.stop.load(Ordering::SeqCst) {
            self.end(Cause::Asked);
        } else if self.limit.is_some_and(|limit| self.clock.seconds() > limit) {
            self.end(Cause::OutOfTime);
        }
        self.files.on_event(event)
    }
}

impl Tuning<'_> {
    /// The run of a candidate on a split. The run evaluates and saves at the end of each rung.
    fn run_of(&self, place: usize, split: usize) -> Result<(Run, u64)> {
        let missing = || Error::Bug("a candidate or a split that is not there".into());
        let tried = self.state.candidates.get(place).ok_or_else(missing)?;
        let rows = self.splits.all.get(split).ok_or_else(missing)?;
        let config = with_keys(self.run.written(), &tried.keys)?;
        let mut config = self.splits.apply(config, rows)?;
        let total = rows.steps(&self.run.again(config.clone())?)?;
        let steps: Count = between(total).try_into()?;
        let training = &mut config.training;
        training.output_dir = self.run_dir(place, split);
        training.save_strategy = Interval::Steps;
        if config.method.name.takes_steps() {
            training.eval_strategy = Interval::Steps;
            (training.eval_steps, training.save_steps) = (steps, steps);
            training.save_total_limit = 1_u64.try_into()?;
            training.early_stopping_patience = None;
        }
        Ok((self.run.again(config)?.with_data(rows.size)?, total))
    }

    /// Trains a candidate on a split to the end of `rung`.
    pub(super) fn advance(
        &mut self,
        place: usize,
        rung: usize,
        split: usize,
        bounded: bool,
    ) -> Result<Advance> {
        let (run, total) = self.run_of(place, split)?;
        let spent = self.spent()?;
        let target = end_of(total, rung);
        let before = if rung == 0 { 0 } else { end_of(total, rung - 1) };
        let weight = self.weight(place)?;
        let limit = match self.options.budget {
            Budget::Minutes(minutes) => Some(60.0 * minutes),
            Budget::Runs(_) => None,
        };
        let Self { on_event, state, clock, stop, options, .. } = self;
        let candidate = state.candidates.get(place).map(|tried| &*tried.name).unwrap_or_default();
        let mut on_step = |step: u64, total: u64| {
            let part = step.saturating_sub(before) as f64 / total.max(1) as f64;
            let (done, left) = pace(options.budget, clock, spent + weight * part);
            on_event(&TuneEvent::Step { candidate, step, total, done, left })
        };
        let end = AtomicBool::new(false);
        let mut listener = RungListener {
            target,
            end: &end,
            stop,
            cause: None,
            clock,
            limit: limit.filter(|_| bounded),
            files: MetricsFile::new(run.output_dir(), false),
            on_step: &mut on_step,
        };
        // Warnings about base and data are the same for every run, so the first alone shows them.
        let first = place == 0 && rung == 0 && split == 0;
        let ended = match first {
            true => train(&run, Start::Resume, &mut listener, &end),
            false => {
                let silent = tracing::subscriber::NoSubscriber::default();
                tracing::subscriber::with_default(silent, || {
                    train(&run, Start::Resume, &mut listener, &end)
                })
            }
        };
        match (ended, listener.cause) {
            (Ok(_), _) | (Err(Error::Interrupted(_)), Some(Cause::Reached)) => {
                score(&run, target).map(Advance::Score)
            }
            (Err(Error::Interrupted(_)), Some(Cause::OutOfTime)) => Ok(Advance::OutOfTime),
            (Err(Error::Interrupted(_)), _) => Err(Error::Interrupted(
                "the state is saved; the same command with --resume continues".into(),
            )),
            (Err(error), _) => Err(error),
        }
    }

    /// The length of a candidate's run, in runs of the configuration.
    pub(super) fn weight(&self, place: usize) -> Result<f64> {
        let Some(split) = self.splits.all.first() else { return Ok(1.0) };
        let epochs = |place| split.epochs(&self.run_of(place, 0)?.0);
        Ok(epochs(place)? / epochs(0)?)
    }

    /// Runs of the configuration on one split that have as many steps as all candidates took.
    pub(super) fn spent(&self) -> Result<f64> {
        (0..self.state.candidates.len()).map(|place| self.spent_on(place)).sum()
    }

    /// The same of one candidate.
    pub(super) fn spent_on(&self, place: usize) -> Result<f64> {
        let tried = self.state.candidates.get(place).filter(|tried| !tried.rungs.is_empty());
        let Some(tried) = tried else { return Ok(0.0) };
        let rungs = tried.rungs.iter().enumerate();
        let shares: f64 = rungs.map(|(rung, scores)| share_of(rung) * scores.len() as f64).sum();
        Ok(self.weight(place)? * shares)
    }

    /// Whether the budget has room for a candidate's `rung` on the splits that are left.
    pub(super) fn affords(&self, place: usize, rung: usize) -> Result<bool> {
        let tried = self.state.candidates.get(place);
        let done = tried.and_then(|tried| tried.rungs.get(rung)).map_or(0, Vec::len);
        let splits = self.splits.all.len() - done.min(self.splits.all.len());
        Ok(match self.options.budget {
            Budget::Minutes(minutes) => self.clock.seconds() < 60.0 * minutes,
            Budget::Runs(runs) => {
                let cost = self.weight(place)? * share_of(rung) * splits as f64;
                // Sums of quarters and of ratios of steps have rounding errors.
                self.spent()? + cost <= runs + 1e-9
            }
        })
    }
}

/// The share of a run's steps that `rung` takes.
fn share_of(rung: usize) -> f64 {
    let quarters = |rung: usize| QUARTERS.get(rung).copied().unwrap_or(0);
    let before = rung.checked_sub(1).map_or(0, quarters);
    (quarters(rung.min(RUNGS - 1)) - before) as f64 / 4.0
}

/// The share of the budget that is used, and the time left. `spent` is in runs.
fn pace(budget: Budget, clock: &Clock, spent: f64) -> (f64, Option<String>) {
    let seconds = clock.seconds();
    let (used, all) = match budget {
        Budget::Minutes(minutes) => (seconds, 60.0 * minutes),
        Budget::Runs(runs) => (spent, runs),
    };
    ((used / all.max(f64::MIN_POSITIVE)).min(1.0), left(seconds, used, all - used))
}

/// The score of `run` at `step`: the best evaluation so far, or the last one with
/// `load_best_model_at_end = false`; `None` is NaN.
fn score(run: &Run, step: u64) -> Result<Option<f64>> {
    let dir: &Path = run.output_dir();
    let found = RunDir::evaluations(dir)?;
    let key = run.metric.name();
    let values = found.iter().filter(|found| found.step <= step);
    let mut values =
        values.map(|found| found.metrics.get(key).copied().filter(|it| it.is_finite()));
    if run.training().load_best_model_at_end == Some(false) {
        return Ok(values.next_back().flatten());
    }
    let greater = run.greater_is_better;
    Ok(values.fold(None, |best, it| if better(it, best, greater) { it } else { best }))
}
