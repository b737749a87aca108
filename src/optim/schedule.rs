//! The learning rate's course over a run: a pure function of the step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the rate goes on after its warm-up; the names and the arithmetic are `transformers.get_scheduler`'s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// It stays, as in the paper.
    #[default]
    #[serde(alias = "constant_with_warmup")]
    #[schemars(extend("enum" = ["constant", "constant_with_warmup"]))]
    Constant,
    /// It falls to zero in a line.
    Linear,
    /// It falls to zero in half a cosine.
    Cosine,
}

/// A course over a run's steps.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The course.
    pub course: Course,
    /// Steps of the warm-up, in which the rate rises from zero in a line.
    pub warmup: u64,
    /// Steps in all.
    pub total: u64,
}

impl Schedule {
    /// What the rate of `step`, counted from 1, is multiplied by.
    pub fn factor(&self, step: u64) -> f64 {
        let done = step.saturating_sub(1);
        if done < self.warmup {
            return done as f64 / self.warmup as f64;
        }
        let progress =
            (done - self.warmup) as f64 / self.total.saturating_sub(self.warmup).max(1) as f64;
        match self.course {
            Course::Constant => 1.0,
            Course::Linear => (1.0 - progress).max(0.0),
            Course::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0),
        }
    }
}
