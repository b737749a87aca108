//! The learning rate over a run, a pure function of the step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The learning rate after the warm-up. Names and arithmetic are those of
/// `transformers.get_scheduler`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedule {
    /// Constant, as in the paper.
    #[default]
    #[serde(alias = "constant_with_warmup")]
    #[schemars(extend("enum" = ["constant", "constant_with_warmup"]))]
    Constant,
    /// Linear decay to zero.
    Linear,
    /// Cosine decay to zero, over half a period.
    Cosine,
}

/// Formats the schedule's name in configurations.
impl std::fmt::Display for LrSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Constant => "constant",
            Self::Linear => "linear",
            Self::Cosine => "cosine",
        })
    }
}

/// The learning rate's schedule over the steps of a run.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The form of the schedule after the warm-up.
    pub lr_schedule: LrSchedule,
    /// Steps of the warm-up, in which the learning rate rises linearly from zero.
    pub warmup: u64,
    /// Steps of the whole run.
    pub total: u64,
}

impl Schedule {
    /// Returns the factor of the learning rate at `step`, counted from 1.
    pub fn factor(&self, step: u64) -> f64 {
        let done = step.saturating_sub(1);
        if done < self.warmup {
            return done as f64 / self.warmup as f64;
        }
        let progress =
            (done - self.warmup) as f64 / self.total.saturating_sub(self.warmup).max(1) as f64;
        match self.lr_schedule {
            LrSchedule::Constant => 1.0,
            LrSchedule::Linear => (1.0 - progress).max(0.0),
            LrSchedule::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0),
        }
    }
}
