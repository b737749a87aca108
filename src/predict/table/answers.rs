//! The columns that a table has for predictions.

use crate::error::{Error, Result};
use crate::models::{Task, TaskType};
use crate::predict::Prediction;
use std::borrow::Cow;

/// The tasks that predict each input.
pub enum Asking<'a> {
    /// This task.
    One(&'a Task),
    /// Each of these tasks, by name.
    Each(Vec<(&'a str, &'a Task)>),
    /// The task that the row names, which is one of these.
    OfRow(Vec<&'a Task>),
}

/// How much a table has of each prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The label and its score.
    Label,
    /// The scores of all labels too.
    Scores,
    /// The most likely labels too, at most this number, each with its score.
    Top(usize),
}

/// A column of predictions.
pub struct AnswerColumn {
    /// Name of the column.
    pub name: String,
    /// The index of the task's prediction among those for a row.
    task: usize,
    part: Part,
}

/// What a column has of a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The label, or the labels in one text.
    Label,
    /// The labels as a list.
    Labels,
    Score,
    /// The score of the label with this number.
    ScoreOf(usize),
    /// The label at this place among the most likely.
    TopLabel(usize),
    TopScore(usize),
}

/// The type of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Texts.
    Text,
    /// Lists of texts.
    Texts,
    /// Numbers.
    Number,
}

/// A value of a column.
pub enum Value<'a> {
    /// A missing value.
    Null,
    /// A text.
    Text(Cow<'a, str>),
    /// A list of texts.
    Texts(&'a [String]),
    /// A number.
    Number(f32),
}

impl AnswerColumn {
    /// The columns for the predictions of the tasks of `asking`. Several labels are a list if
    /// `lists` says so, else one text.
    pub fn of(asking: &Asking<'_>, extent: Extent, lists: bool) -> Result<Vec<Self>> {
        let only = |(name, part): (String, Part)| Self { name, task: 0, part };
        Ok(match asking {
            Asking::One(task) if extent == Extent::Scores && task.labels.is_empty() => {
                let problem = "--scores: the task predicts a number, not labels";
                return Err(Error::Usage(problem.into()));
            }
            Asking::One(task) => parts(task, extent, lists).into_iter().map(only).collect(),
            Asking::Each(tasks) => {
                let mut columns = vec![];
                for (number, (name, task)) in tasks.iter().enumerate() {
                    let parts = parts(task, extent, lists).into_iter();
                    let named = |(part_name, part)| Self {
                        name: format!("{name}_{part_name}"),
                        task: number,
                        part,
                    };
                    columns.extend(parts.map(named));
                }
                columns
            }
            Asking::OfRow(tasks) => {
                let most = tasks.iter().map(|task| task.labels.len()).max().unwrap_or(0);
                let top = match extent {
                    Extent::Label => vec![],
                    Extent::Top(count) => top(count.min(most)),
                    Extent::Scores => {
                        let problem = "--scores: with --task-column, rows have the labels of different tasks, and a table has the same columns for all; expected --top-k K, or neither";
                        return Err(Error::Usage(problem.into()));
                    }
                };
                let parts = [("label".into(), Part::Label), ("score".into(), Part::Score)];
                parts.into_iter().chain(top).map(only).collect()
            }
        })
    }

    /// The type of the values.
    pub fn kind(&self) -> ValueKind {
        match self.part {
            Part::Label | Part::TopLabel(_) => ValueKind::Text,
            Part::Labels => ValueKind::Texts,
            Part::Score | Part::ScoreOf(_) | Part::TopScore(_) => ValueKind::Number,
        }
    }

    /// The value in the row of these `predictions`; labels in one text are joined by `separator`.
    pub fn value<'p>(&self, predictions: &'p [Prediction], separator: &str) -> Value<'p> {
        let Some(prediction) = predictions.get(self.task) else { return Value::Null };
        let scored = |place: usize| prediction.scores.get(place);
        let value = match self.part {
            Part::Label => match (&prediction.label, &prediction.labels) {
                (Some(label), _) => Some(Value::Text(label.into())),
                (None, Some(labels)) => Some(Value::Text(labels.join(separator).into())),
                (None, None) => None,
            },
            Part::Labels => prediction.labels.as_deref().map(Value::Texts),
            Part::Score => prediction.score.map(Value::Number),
            Part::ScoreOf(place) | Part::TopScore(place) => {
                scored(place).map(|(_, score)| Value::Number(*score))
            }
            Part::TopLabel(place) => scored(place).map(|(label, _)| Value::Text(label.into())),
        };
        value.unwrap_or(Value::Null)
    }
}

/// The columns of a task's prediction, by name.
fn parts(task: &Task, extent: Extent, lists: bool) -> Vec<(String, Part)> {
    let labels = if lists { Part::Labels } else { Part::Label };
    let mut parts = match task.task_type {
        TaskType::Classification => vec![("label".into(), Part::Label)],
        TaskType::MultiLabel => vec![("labels".into(), labels)],
        TaskType::Regression => vec![],
    };
    if task.task_type != TaskType::MultiLabel {
        parts.push(("score".into(), Part::Score));
    }
    match extent {
        Extent::Label => {}
        Extent::Top(count) => parts.extend(top(count.min(task.labels.len()))),
        Extent::Scores => {
            let score = |(number, label)| (format!("score_{label}"), Part::ScoreOf(number));
            parts.extend(task.labels.iter().enumerate().map(score));
        }
    }
    parts
}

/// The columns of the `count` most likely labels, by name.
fn top(count: usize) -> Vec<(String, Part)> {
    let pair = |place: usize| {
        let number = place + 1;
        [
            (format!("label_{number}"), Part::TopLabel(place)),
            (format!("score_{number}"), Part::TopScore(place)),
        ]
    };
    (0..count).flat_map(pair).collect()
}
