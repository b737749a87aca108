//! From a task's logits to the scores that a client asked for.

use super::problem::Problem;
use crate::models::{Task, TaskType, sigmoid, softmax};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What makes scores of logits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScoreFunction {
    /// What the task was trained with: softmax for one label, sigmoid for several, none for a
    /// regression.
    #[default]
    Auto,
    /// Scores that sum to 1.
    Softmax,
    /// A score between 0 and 1 for each label.
    Sigmoid,
    /// The logits.
    None,
}

/// The labels of a task with their scores, in the order of class numbers. A regression has one
/// label, `LABEL_0`.
#[derive(Debug)]
pub struct Scores<'a> {
    /// The labels.
    pub labels: Vec<&'a str>,
    /// The scores, `[L]`.
    pub scores: Vec<f32>,
}

/// The label of a regression, as Hugging Face's pipelines call it.
const NUMBER: &str = "LABEL_0";

impl ScoreFunction {
    /// The scores of `logits [L]` of `task`. Errs for a function that means nothing there.
    pub fn scores<'a>(self, task: &'a Task, logits: &[f32]) -> Result<Scores<'a>, Problem> {
        let scores = match (self, task.task_type) {
            (Self::Auto, task_type) => task_type.scores_of_row(logits),
            (Self::None, _) => logits.to_vec(),
            (_, TaskType::Regression) => {
                let problem = "softmax and sigmoid mean nothing for a regression; expected none";
                return Err(Problem::invalid(problem));
            }
            (Self::Softmax, _) => softmax(logits),
            (Self::Sigmoid, _) => sigmoid(logits),
        };
        let labels = match task.task_type {
            TaskType::Regression => vec![NUMBER],
            _ => task.labels.iter().map(String::as_str).collect(),
        };
        Ok(Scores { labels, scores })
    }
}

impl<'a> Scores<'a> {
    /// The `most` labels with the highest scores, or all, from the highest down.
    pub fn descending(&self, most: Option<usize>) -> Vec<(&'a str, f32)> {
        let mut pairs: Vec<_> =
            self.labels.iter().copied().zip(self.scores.iter().copied()).collect();
        pairs.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        pairs.truncate(most.unwrap_or(usize::MAX));
        pairs
    }
}
