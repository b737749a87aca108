//! When to log, evaluate and save: pure decisions.

use crate::config::{Interval, TrainingSection};
use crate::optim::Schedule;

/// What a run does after which step.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Steps of the whole run.
    pub total: u64,
    /// Rows in a step, but for the last of an epoch.
    pub rows_in_step: usize,
    /// The rate over the run.
    pub schedule: Schedule,
    steps_per_epoch: u64,
    logging_steps: u64,
    evaluate: (Interval, u64),
    save: (Interval, u64),
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
    /// The policy of a configuration, for `rows` training rows.
    pub fn new(training: &TrainingSection, rows: usize) -> Self {
        let rows_in_step = training
            .per_device_train_batch_size
            .saturating_mul(training.gradient_accumulation_steps);
        let steps_per_epoch = rows.div_ceil(rows_in_step).max(1) as u64;
        let by_epochs = steps_per_epoch.saturating_mul(training.num_train_epochs);
        let total = u64::try_from(training.max_steps).ok().filter(|&steps| steps > 0);
        let total = total.unwrap_or(by_epochs);
        let warmup = match training.warmup_steps {
            0 => (total as f64 * training.warmup_ratio).ceil() as u64,
            steps => steps,
        };
        Self {
            total,
            rows_in_step,
            schedule: Schedule { course: training.lr_scheduler_type, warmup, total },
            steps_per_epoch,
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
            Interval::Epoch => step.is_multiple_of(self.steps_per_epoch),
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
        (done / self.steps_per_epoch, done % self.steps_per_epoch)
    }

    /// How many epochs `step` steps are.
    pub fn epoch(&self, step: u64) -> f64 {
        step as f64 / self.steps_per_epoch as f64
    }
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
