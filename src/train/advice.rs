//! Advice for a run that has not learned.

use crate::stats::Course;

/// What the advice for a run that has not learned follows from.
pub struct Evidence<'a> {
    /// The training loss over the steps.
    pub losses: &'a Course,
    /// The evaluation's loss.
    pub eval_loss: Option<f64>,
    /// The key that decides how many steps the run takes, with its value.
    pub more_steps: String,
    /// The value of `training.learning_rate`.
    pub learning_rate: Option<f64>,
}

impl Evidence<'_> {
    /// What to change, in a sentence that begins with "try".
    pub fn advice(&self) -> String {
        let more_steps = &self.more_steps;
        let rate = self.learning_rate.map(|rate| format!(" (found {rate:e})"));
        let rate = format!("training.learning_rate{}", rate.unwrap_or_default());
        let Some([first, before, last]) = self.losses.tenths() else {
            return format!("try more steps, {more_steps}, or another learning rate, {rate}");
        };
        match self.eval_loss {
            Some(others) if last < 0.5 * others => format!(
                "try more training rows: those of the run are learned (loss {last:.4}), and others are not (loss {others:.4})"
            ),
            _ if last < 0.95 * before => format!(
                "try more steps, {more_steps}: the training loss was still falling at the end (from {before:.4} to {last:.4})"
            ),
            _ if (last - first).abs() <= 0.05 * first => format!(
                "try another learning rate, {rate}: the training loss did not move (from {first:.4} to {last:.4})"
            ),
            _ => format!("try more steps, {more_steps}, or another learning rate, {rate}"),
        }
    }
}
