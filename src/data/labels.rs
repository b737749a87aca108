//! What the rows are to be predicted as: the classes, and each row's target.

use super::source::{Label, Row, Table};
use crate::error::{Error, Result};
use crate::models::TaskType;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// The classes: their names, by number. A regression has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// Names by class number.
    pub names: Vec<String>,
    /// Whether somebody said which name has which number; else they are sorted, and a number says nothing.
    pub declared: bool,
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
    /// The labels that the data has: by number where the file says so, in the order of numbers where all are numbers, else of names.
    pub fn of(task: TaskType, path: &Path, data: &Table) -> Result<Self> {
        if task == TaskType::Regression {
            return Ok(Self::default());
        }
        let found = || data.rows.iter().flat_map(Row::labels).map(|label| label.name.as_str());
        let mut names: Vec<String> =
            found().collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect();
        if names.iter().all(|name| name.parse::<u64>().is_ok()) {
            names.sort_by_key(|name| name.parse::<u64>().ok());
        }
        let declared = data.classes.is_some();
        if let (Some(classes), true) =
            (&data.classes, names.len() > 1 || task == TaskType::MultiLabel)
        {
            names.clone_from(classes);
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
            _ => Ok(Self { names, declared }),
        }
    }

    /// Each row's target. A label is a name; where names have declared numbers, it may be a number too.
    pub fn targets(&self, task: TaskType, rows: &[Row]) -> Result<Vec<Target>> {
        let target = self.target(task);
        rows.iter().map(target).collect()
    }

    /// What makes a row's target.
    pub fn target(&self, task: TaskType) -> impl Fn(&Row) -> Result<Target> + '_ {
        let by_name: HashMap<&str, usize> =
            self.names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let by_number = self.declared && self.names.iter().all(|name| name.parse::<f64>().is_err());
        let class = move |row: &Row, label: &Label| {
            let written = || label.name.parse().ok().filter(|_| by_number);
            let of_file = || label.number.and_then(|number| usize::try_from(number).ok());
            let numbered = || of_file().or_else(written).filter(|&i| i < self.names.len());
            by_name.get(label.name.as_str()).copied().or_else(numbered).ok_or_else(|| {
                let number = if by_number {
                    format!(", or 0 to {}", self.names.len().saturating_sub(1))
                } else {
                    String::new()
                };
                row.place.error(format!(
                    "label {label}: expected one of {self}{number} (the training data's, or model.label_names)"
                ))
            })
        };
        move |row| {
            Ok(match (task, row.labels()) {
                (TaskType::MultiLabel, labels) => {
                    let mut has = vec![false; self.names.len()];
                    for label in labels {
                        if let Some(has) = has.get_mut(class(row, label)?) {
                            *has = true;
                        }
                    }
                    Target::Labels(has)
                }
                (_, []) => return Err(row.place.error("no label")),
                (TaskType::Classification, [label]) => Target::Class(class(row, label)?),
                (TaskType::Regression, [label]) => Target::Number(number(row, label)?),
                (_, labels) => {
                    let problem = format!(
                        "{} labels, expected one; several are model.task_type = \"multi_label\"",
                        labels.len()
                    );
                    return Err(row.place.error(problem));
                }
            })
        }
    }
}

/// The number that a label is.
fn number(row: &Row, label: &Label) -> Result<f32> {
    let number = label.number.map(|number| number as f32).or_else(|| label.name.parse().ok());
    number.filter(|number| number.is_finite()).ok_or_else(|| {
        row.place.error(format!(
            "label {label}: expected a number within 3.4e38 (model.task_type is \"regression\")"
        ))
    })
}

/// The first names, for people.
impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 20;
        let names = self.names.iter().take(SHOWN);
        let names: Vec<String> = names.map(|name| name.escape_debug().take(60).collect()).collect();
        let more = if self.names.len() > SHOWN { ", ..." } else { "" };
        write!(f, "{}{more}", names.join(", "))
    }
}
