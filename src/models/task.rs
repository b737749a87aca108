//! The task of a classifier.

use super::head::TaskType;
use crate::nn::Pooling;
use serde::{Deserialize, Serialize};

/// A task: what the head predicts, and from which inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What the head predicts.
    pub task_type: TaskType,
    /// Label names, by class number; empty for a regression.
    pub labels: Vec<String>,
    /// Whether the order of the labels was declared; otherwise they are sorted by name.
    pub labels_declared: bool,
    /// Whether the inputs are pairs of texts; `None` if a saved classifier does not say.
    pub pairs: Option<bool>,
    /// Number of tokens that an input is truncated to, special tokens included.
    pub max_length: usize,
    /// How the head reads a text from the base's output.
    #[serde(default, skip_serializing_if = "Pooling::is_first")]
    pub pooling: Pooling,
}

impl Task {
    /// The number of outputs of the head, `L`.
    #[doc(hidden)]
    pub fn outputs(&self) -> usize {
        self.task_type.outputs(self.labels.len())
    }
}
