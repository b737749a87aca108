//! The task of a classifier.

use super::head::TaskType;
use super::long_texts::{LongTexts, Reading};
use crate::nn::Pooling;
use serde::{Deserialize, Serialize};

/// A task: what the head predicts, and from which inputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// The probability from which a label is given, by label number; of a classification with two
    /// classes, that of the second class alone. Empty where a half decides, or the highest
    /// probability of a class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<f32>,
}

/// The index of the largest value, of the first one if several are equal.
pub fn largest(values: &[f32]) -> usize {
    values.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(index, _)| index)
}

impl Task {
    /// The class that the probabilities `scores [L]` give.
    #[doc(hidden)]
    pub fn class(&self, scores: &[f32]) -> usize {
        match (&self.thresholds[..], scores) {
            ([threshold], [_, second]) => usize::from(second >= threshold),
            _ => largest(scores),
        }
    }

    /// Whether a multi-label task gives the label number `label` with the probability `score`.
    #[doc(hidden)]
    pub fn gives(&self, label: usize, score: f32) -> bool {
        score >= self.thresholds.get(label).copied().unwrap_or(0.5)
    }

    /// The labels that can have a threshold: all of several labels, the second of two classes, none
    /// of more classes or of a number.
    pub(crate) fn labels_of_thresholds(&self) -> &[String] {
        match (self.task_type, &self.labels[..]) {
            (TaskType::MultiLabel, all) => all,
            (TaskType::Classification, [_, second]) => std::slice::from_ref(second),
            _ => &[],
        }
    }

    /// The thresholds, each with its label; empty without thresholds.
    #[doc(hidden)]
    pub fn named_thresholds(&self) -> impl Iterator<Item = (&String, f32)> {
        self.labels_of_thresholds().iter().zip(self.thresholds.iter().copied())
    }

    /// Checks the thresholds against the labels. The error is what was expected.
    pub(crate) fn check_thresholds(&self) -> std::result::Result<(), String> {
        let (count, found) = (self.labels_of_thresholds().len(), self.thresholds.len());
        if found != 0 && found != count {
            return Err(format!("{count} thresholds, not {found}"));
        }
        match self.thresholds.iter().find(|threshold| !(0.0..=1.0).contains(*threshold)) {
            Some(threshold) => Err(format!("numbers from 0 to 1, not {threshold}")),
            None => Ok(()),
        }
    }

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
