//! What the rows are to be predicted as: the classes, and each row's target.

use super::source::Row;
use crate::error::{Error, Result};
use crate::models::TaskType;
use std::collections::BTreeSet;
use std::path::Path;

/// The classes: their names, by number. A regression has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// Names by class number.
    pub names: Vec<String>,
}

/// What a row is to be predicted as.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A class number.
    Class(usize),
    /// Whether it has each label.
    Labels(Vec<bool>),
    /// A number.
    Number(f32),
}

/// More are likely a column of something else.
const MOST: usize = 10_000;

impl Labels {
    /// The labels that the rows have: in the order of numbers where all are numbers, else of names.
    pub fn from_rows(task: TaskType, path: &Path, rows: &[Row]) -> Result<Self> {
        if task == TaskType::Regression {
            return Ok(Self::default());
        }
        let found: BTreeSet<&str> = rows.iter().flat_map(Row::labels).map(String::as_str).collect();
        let mut names: Vec<String> = found.into_iter().map(str::to_owned).collect();
        if names.iter().all(|name| name.parse::<u64>().is_ok()) {
            names.sort_by_key(|name| name.parse::<u64>().ok());
        }
        if names.len() > MOST {
            let problem = format!(
                "{} different labels, at most {MOST} are allowed; is data.label_column the right one, or is it a number to predict (model.task_type = \"regression\")?",
                names.len()
            );
            return Err(Error::data(path, None, problem));
        }
        match (&names[..], task) {
            ([], _) => Err(Error::data(path, None, "no labels")),
            ([only], TaskType::Classification) => {
                let problem = format!("one class only, {only:?}; a classifier needs two or more");
                Err(Error::data(path, None, problem))
            }
            _ => Ok(Self { names }),
        }
    }

    /// Each row's target. A label is a name; where no name is a number, it may be a class number too.
    pub fn targets(&self, task: TaskType, rows: &[Row]) -> Result<Vec<Target>> {
        let by_name: std::collections::HashMap<&str, usize> =
            self.names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let by_number = self.names.iter().all(|name| name.parse::<u64>().is_err());
        let class = |row: &Row, label: &str| {
            let numbered =
                || label.parse().ok().filter(|&i: &usize| by_number && i < self.names.len());
            by_name.get(label).copied().or_else(numbered).ok_or_else(|| {
                let number =
                    if by_number { format!(", or 0 to {}", self.names.len() - 1) } else { String::new() };
                row.place.error(format!(
                    "label {label:?}: expected one of {self}{number} (the training data's, or model.label_names)"
                ))
            })
        };
        let target = |row: &Row| {
            Ok(match (task, row.labels()) {
                (TaskType::MultiLabel, labels) => {
                    let mut has = vec![false; self.names.len()];
                    for label in labels {
                        let class = class(row, label)?;
                        has[class] = true;
                    }
                    Target::Labels(has)
                }
                (_, []) => return Err(row.place.error("no label")),
                (TaskType::Classification, [label]) => Target::Class(class(row, label)?),
                (TaskType::Regression, [label]) => {
                    let number = label.parse().ok().filter(|number: &f32| number.is_finite());
                    Target::Number(number.ok_or_else(|| {
                        row.place.error(format!(
                            "label {label:?}: expected a number (model.task_type is \"regression\")"
                        ))
                    })?)
                }
                (_, labels) => {
                    let problem = format!(
                        "{} labels, expected one; several are model.task_type = \"multi_label\"",
                        labels.len()
                    );
                    return Err(row.place.error(problem));
                }
            })
        };
        rows.iter().map(target).collect()
    }
}

/// The first names, for people.
impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 20;
        let names: Vec<&str> = self.names.iter().take(SHOWN).map(String::as_str).collect();
        let more = if self.names.len() > SHOWN { ", ..." } else { "" };
        write!(f, "{}{more}", names.join(", "))
    }
}
