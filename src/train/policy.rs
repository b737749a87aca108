//! When to log, evaluate and save: pure decisions.

use crate::config::{Interval, TrainingSection};
use crate::data::{BatchSize, Sampler};
use crate::optim::Schedule;

/// What a run does after which step.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Steps of the whole run.
    pub total: u64,
    /// The rate over the run.
    pub schedule: Schedule,
    epochs: Epochs,
    logging_steps: u64,
    evaluate: (Interval, u64),
    save: (Interval, u64),
}

/// Where epochs end.
#[derive(Debug, Clone)]
enum Epochs {
    /// All after so many steps.
    Same(u64),
    /// Each after the step of this number.
    Each(Vec<u64>),
}

impl Epochs {
    /// The epoch that `done` steps lead into, the steps before it, and its own.
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

/// What to do after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actions {
    /// Write a line of the log.
    pub log: bool,
    /// Evaluate.
    pub evaluate: bool,
    /// Save a checkpoint.
    pub save: bool,
}

impl Policy {
    /// The policy of a configuration, for the steps of a sampler.
    pub fn new(training: &TrainingSection, sampler: &Sampler) -> Self {
        let most = u64::try_from(training.max_steps).ok().filter(|&steps| steps > 0);
        let epochs = match sampler.step {
            BatchSize::Rows(_) => Epochs::Same(sampler.steps(0)),
            BatchSize::Tokens(_) => {
                let mut ends = vec![];
                let mut end = 0;
                // By steps where they are given, else by epochs.
                while most.map_or((ends.len() as u64) < training.num_train_epochs, |m| end < m) {
                    end += sampler.steps(ends.len() as u64);
                    ends.push(end);
                }
                Epochs::Each(ends)
            }
        };
        let total = most.unwrap_or(match &epochs {
            Epochs::Same(steps) => steps.saturating_mul(training.num_train_epochs),
            Epochs::Each(ends) => ends.last().copied().unwrap_or(0),
        });
        Self {
            total,
            schedule: schedule(training, total),
            epochs,
            logging_steps: training.logging_steps,
            evaluate: (training.eval_strategy, training.eval_steps),
            save: (training.save_strategy, training.save_steps),
        }
    }

    /// What to do after `step`, counted from 1. The last step is logged and evaluated in any case, and saved if any is.
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

    /// The epoch of `step`, and its place in it, both counted from 0.
    pub fn cursor(&self, step: u64) -> (u64, u64) {
        let done = step.saturating_sub(1);
        let (epoch, before, _) = self.epochs.at(done);
        (epoch, done - before)
    }

    /// How many epochs `step` steps are.
    pub fn epoch(&self, step: u64) -> f64 {
        let (epoch, before, steps) = self.epochs.at(step);
        epoch as f64 + (step - before) as f64 / steps as f64
    }
}

/// The rate over a run of `total` steps.
pub fn schedule(training: &TrainingSection, total: u64) -> Schedule {
    let warmup = match training.warmup_steps {
        0 => (total as f64 * training.warmup_ratio).ceil() as u64,
        steps => steps,
    };
    Schedule { course: training.lr_scheduler_type, warmup, total }
}

/// Whether `value` gains more than `threshold` on the best so far, as early stopping counts it.
pub fn gained(value: f64, best: Option<f64>, greater_is_better: bool, threshold: f64) -> bool {
    better(value, best, greater_is_better)
        && best.is_none_or(|best| (value - best).abs() > threshold)
}

/// Whether `value` beats the best so far. No number beats nothing, and nothing beats a number it equals.
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
