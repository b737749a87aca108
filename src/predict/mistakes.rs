//! The rows that an evaluation got wrong.

use super::Prediction;
use crate::data::{Row, Target};
use crate::models::Task;
use serde::Serialize;

/// A row that a task predicts wrong. Each row of a regression counts, by its error.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mistake {
    /// The row's index.
    #[serde(skip)]
    pub row: usize,
    /// What the row is labelled.
    label: Answer,
    /// What the task predicts.
    predicted: Answer,
    /// The probability of what is predicted; of several labels, that of the surest wrong decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    /// The distance of the two numbers of a regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<f32>,
}

/// The answer to a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
enum Answer {
    Label(String),
    Labels(Vec<String>),
    Number(f32),
}

impl Mistake {
    /// The mistake in a row with the label `target`, of which `logits [L]` are the task's; `None`
    /// if the prediction is right.
    pub fn of(task: &Task, row: usize, target: &Target, logits: &[f32]) -> Option<Self> {
        let prediction = Prediction::new(task, &task.task_type.scores_of_row(logits));
        let label = Answer::of(task, target)?;
        let (predicted, score, error) = match (target, prediction) {
            (Target::Number(number), Prediction { score: Some(found), .. }) => {
                (Answer::Number(found), None, Some((found - number).abs()))
            }
            (Target::Labels { present, .. }, Prediction { labels: Some(found), scores, .. }) => {
                let sure = scores.iter().zip(0..).filter_map(|((_, score), number)| {
                    match (task.gives(number as usize, *score), present.contains(&number)) {
                        (true, false) => Some(*score),
                        (false, true) => Some(1.0 - score),
                        _ => None,
                    }
                });
                (Answer::Labels(found), Some(sure.max_by(f32::total_cmp)?), None)
            }
            (Target::Class(_), Prediction { label: Some(found), score, .. }) => {
                (Answer::Label(found), score, None)
            }
            _ => return None,
        };
        let is_wrong = error.is_some() || label != predicted;
        is_wrong.then_some(Self { row, label, predicted, score, error })
    }

    /// How sure the task is, or how far it is from the number.
    pub fn weight(&self) -> f32 {
        self.score.or(self.error).unwrap_or_default()
    }
}

impl Answer {
    fn of(task: &Task, target: &Target) -> Option<Self> {
        let name = |number: usize| task.labels.get(number).cloned();
        Some(match target {
            Target::Class(class) => Self::Label(name(*class)?),
            Target::Labels { present, .. } => {
                Self::Labels(present.iter().filter_map(|&label| name(label as usize)).collect())
            }
            Target::Number(number) => Self::Number(*number),
        })
    }
}

/// A line of `bitfit eval --errors`.
#[derive(Serialize)]
pub struct MistakeLine<'a> {
    /// The file of the row, and its line if it has one.
    place: String,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text_pair: Option<&'a str>,
    #[serde(flatten)]
    mistake: &'a Mistake,
}

impl<'a> MistakeLine<'a> {
    /// The line of `mistake` in `row`.
    pub fn new(row: &'a Row, mistake: &'a Mistake) -> Self {
        let (text, text_pair) = (row.text.as_str(), row.text_pair.as_deref());
        Self { place: row.place.to_string(), text, text_pair, mistake }
    }
}
