//! Decides when to log, evaluate and save, by pure functions of the step.

use crate::bounds::{Count, Fraction};
use crate::config::{Interval, Run, TrainingSection};
use crate::data::{BatchSize, Sampler};
use crate::optim::Schedule;

/// The policy that decides what a run does after each step.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Steps of the whole run.
    pub total: u64,
    /// The learning rate over the run.
    pub schedule: Schedule,
    epochs: Epochs,
    logging_steps: u64,
    evaluate: (Interval, u64),
    save: (Interval, u64),
}

/// The lengths of a run's epochs, in steps.
#[derive(Debug, Clone)]
enum Epochs {
    /// The number of steps in every epoch.
    Same(u64),
    /// The last step of each epoch, counted from 1.
    Each(Vec<u64>),
}

impl Epochs {
    /// Returns the epoch that follows `done` steps, the number of steps before that epoch, and the
    /// number of steps in it.
    fn at(&self, done: u64) -> (u64, u64, u64) {
        match self {
            Self::Same(steps) => (done / steps, done / steps * steps, *steps),
            Self::Each(ends) => {
                let epoch = ends.partition_point(|&end| end <= done);
                let end = |epoch: Option<usize>| epoch.and_then(|e| ends.get(e)).copied();
                let start = end(epoch.checked_sub(1)).unwrap_or(0);
                (epoch as u64, start, end(Some(epoch)).map_or(1, |end| end - start))
            }
        }
    }
}

/// The actions after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actions {
    /// Log the step.
    pub log: bool,
    /// Evaluate.
    pub evaluate: bool,
    /// Save a checkpoint.
    pub save: bool,
}

impl Policy {
    /// The policy of the configuration `training`, for the steps of `sampler`.
    pub fn new(training: &TrainingSection, sampler: &Sampler) -> Self {
        let most = u64::try_from(training.max_steps).ok().filter(|&steps| steps > 0);
        let in_all = training.num_train_epochs.map_or(0, Count::get);
        let epochs = match sampler.step {
            BatchSize::Rows(_) => Epochs::Same(sampler.steps(0)),
            BatchSize::Tokens(_) => {
                let mut ends = vec![];
                let mut end = 0;
                // `max_steps` counts if it is set, else `num_train_epochs`.
                while most.map_or((ends.len() as u64) < in_all, |most| end < most) {
                    end += sampler.steps(ends.len() as u64);
                    ends.push(end);
                }
                Epochs::Each(ends)
            }
        };
        let total = most.unwrap_or(match &epochs {
            Epochs::Same(steps) => steps.saturating_mul(in_all),
            Epochs::Each(ends) => ends.last().copied().unwrap_or(0),
        });
        Self {
            total,
            schedule: schedule(training, total),
            epochs,
            logging_steps: training.logging_steps.get(),
            evaluate: (training.eval_strategy, training.eval_steps.get()),
            save: (training.save_strategy, training.save_steps.get()),
        }
    }

    /// The policy of `run`, whose method may take no steps: what it does once then counts as one
    /// step, and as one epoch.
    pub fn of(run: &Run, sampler: &Sampler) -> Self {
        let training = run.training();
        if run.method.takes_steps() {
            return Self::new(training, sampler);
        }
        Self {
            total: 1,
            schedule: schedule(training, 1),
            epochs: Epochs::Same(1),
            logging_steps: 1,
            evaluate: (Interval::Epoch, 1),
            save: (training.save_strategy, 1),
        }
    }

    /// Returns the actions after `step`, counted from 1. The last step is always logged and
    /// evaluated, and it is saved unless `save_strategy` is `"no"`.
    pub fn after(&self, step: u64) -> Actions {
        let last = step == self.total;
        let due = |(interval, steps): (Interval, u64)| match interval {
            Interval::Steps => step.is_multiple_of(steps),
            Interval::Epoch => self.epochs.at(step).1 == step,
            Interval::No => false,
        };
        Actions {
            log: step.is_multiple_of(self.logging_steps) || last,
            evaluate: due(self.evaluate) || last,
            save: due(self.save) || (last && self.save.0 != Interval::No),
        }
    }

    /// Returns the epoch of `step` and the place of `step` in that epoch, both counted from 0.
    pub fn cursor(&self, step: u64) -> (u64, u64) {
        let done = step.saturating_sub(1);
        let (epoch, before, _) = self.epochs.at(done);
        (epoch, done - before)
    }

    /// Returns the number of epochs in the first `step` steps, with a fraction.
    pub fn epoch(&self, step: u64) -> f64 {
        let (epoch, before, steps) = self.epochs.at(step);
        epoch as f64 + (step - before) as f64 / steps as f64
    }
}

/// Returns the learning rate's schedule over a run of `total` steps.
pub fn schedule(training: &TrainingSection, total: u64) -> Schedule {
    let warmup = match training.warmup_steps {
        0 => (total as f64 * training.warmup_ratio.map_or(0.0, Fraction::get)).ceil() as u64,
        steps => steps,
    };
    Schedule { lr_schedule: training.lr_scheduler_type.unwrap_or_default(), warmup, total }
}

/// Whether `value` beats `best` by more than `threshold`, as early stopping counts it. Every value
/// beats `None`.
pub fn gained(value: f64, best: Option<f64>, greater_is_better: bool, threshold: f64) -> bool {
    better(value, best, greater_is_better)
        && best.is_none_or(|best| (value - best).abs() > threshold)
}

/// Whether `value` is strictly better than `best`. NaN is better than `None` only, and every number
/// is better than NaN.
pub fn better(value: f64, best: Option<f64>, greater_is_better: bool) -> bool {
    match best {
        None => true,
        Some(best) if best.is_nan() => !value.is_nan(),
        Some(best) => {
            if greater_is_better {
                value > best
            } else {
                value < best
            }
        }
    }
}
