//! The task of a classifier.

use super::head::TaskType;
use super::long_texts::{LongTexts, Reading};
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
    /// Number of tokens that are read at once, special tokens included.
    pub max_length: usize,
    /// How the head reads a text from the base's output.
    #[serde(default, skip_serializing_if = "Pooling::is_first")]
    pub pooling: Pooling,
    /// What is done with inputs of more than `max_length` tokens.
    #[serde(default, skip_serializing_if = "LongTexts::is_cut")]
    pub long_texts: LongTexts,
}

impl Task {
    /// The number of outputs of the head, `L`.
    #[doc(hidden)]
    pub fn outputs(&self) -> usize {
        self.task_type.outputs(self.labels.len())
    }

    /// How the task turns inputs into token ids.
    #[doc(hidden)]
    pub fn reading(&self) -> Reading {
        Reading { max_length: self.max_length, long_texts: self.long_texts }
    }
}
