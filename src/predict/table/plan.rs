//! What a table of predictions has: its format and its columns, checked before a text is predicted.

use super::answers::{AnswerColumn, Asking, Extent};
use crate::data::{Original, packing_of};
use crate::error::{Error, Result};
use crate::escape::quoted;
use crate::models::{Task, TaskType};
use crate::predict::Input;
use std::collections::HashSet;
use std::path::Path;

/// The format of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFormat {
    /// Cells separated by commas, in quotes where necessary.
    Csv,
    /// Cells separated by tabs, without quotes.
    Tsv,
    /// Parquet.
    Parquet,
}

impl TableFormat {
    /// The format that the ending of `path` names; `None` if it names no table. Errs if the ending
    /// is that of a compressed table, or if the build cannot write the format.
    pub fn of(path: &Path) -> Result<Option<Self>> {
        let of = |path: &Path| match path.extension()?.to_string_lossy().to_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        };
        if packing_of(path).is_some() && of(&path.with_extension("")).is_some() {
            let problem = format!(
                "--output: found {}, a compressed table; expected a name that ends in .csv, .tsv or .parquet",
                path.display()
            );
            return Err(Error::Usage(problem));
        }
        match of(path) {
            Some(Self::Parquet) if !cfg!(feature = "parquet") => {
                let (what, instead) = (path.display().to_string(), "--output with a .csv or .tsv");
                Err(Error::Lacks { what, feature: "parquet", instead })
            }
            format => Ok(format),
        }
    }

    /// Checks that a cell can hold `text`. `place` is the cell, for the message.
    pub fn check(self, text: &str, place: impl FnOnce() -> String) -> Result<()> {
        match self {
            Self::Tsv if text.contains(['\t', '\n', '\r']) => Err(Error::Usage(format!(
                "{}: found a tab or a line end, which no cell of a .tsv can hold; expected --output with a .csv or .parquet",
                place()
            ))),
            _ => Ok(()),
        }
    }
}

/// How a table is written.
pub struct TableOptions {
    /// The format.
    pub format: TableFormat,
    /// How much there is of each prediction.
    pub extent: Extent,
    /// What the names of the predictions' columns begin with.
    pub prefix: String,
    /// What is between labels in one text.
    pub separator: String,
}

/// The columns of the inputs.
pub enum InputColumns {
    /// No columns.
    None,
    /// The column `text`.
    Text,
    /// The columns `text` and `text_pair`.
    Pair,
    /// The columns of the file that the inputs are from.
    File {
        /// The file.
        original: Box<Original>,
        /// Whether each of its columns is left out.
        left_out: Vec<bool>,
    },
}

impl InputColumns {
    /// The columns of a file, without those of the texts if `no_text` says so.
    pub fn of_file(original: Original, no_text: bool) -> Self {
        let columns = 0..original.columns().len();
        let left_out = columns.map(|column| no_text && original.is_text(column)).collect();
        Self::File { original: original.into(), left_out }
    }

    /// The names of the columns.
    fn names(&self) -> Vec<&str> {
        match self {
            Self::None => vec![],
            Self::Text => vec!["text"],
            Self::Pair => vec!["text", "text_pair"],
            Self::File { original, left_out } => {
                let kept = original.columns().iter().zip(left_out).filter(|(_, out)| !**out);
                kept.map(|(name, _)| name.as_str()).collect()
            }
        }
    }

    /// Calls `take` with each cell of the row of `input`, the next one; `None` is a missing value.
    pub fn row(
        &mut self,
        input: &Input,
        take: &mut dyn FnMut(Option<&str>) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Text => take(Some(&input.text)),
            Self::Pair => {
                take(Some(&input.text))?;
                take(input.text_pair.as_deref())
            }
            Self::File { original, left_out } => {
                let Some(cells) = original.next_row()? else {
                    let problem = "the file had fewer rows when it was read again";
                    return Err(Error::Bug(problem.into()));
                };
                let mut kept = cells.iter().zip(left_out).filter(|(_, out)| !**out);
                kept.try_for_each(|(cell, _)| take(cell.as_deref()))
            }
        }
    }
}

/// A table that can be written.
pub struct Table {
    pub(super) format: TableFormat,
    pub(super) input: InputColumns,
    pub(super) answers: Vec<AnswerColumn>,
    pub(super) separator: String,
}

impl Table {
    /// The table of the inputs with the predictions of the tasks of `asking`.
    ///
    /// Errs if two columns would have the same name, if a label contains the separator, and if the
    /// format cannot hold the columns of the inputs.
    pub fn new(input: InputColumns, asking: &Asking<'_>, options: TableOptions) -> Result<Self> {
        let TableOptions { format, extent, prefix, separator } = options;
        let lists = format == TableFormat::Parquet;
        let mut answers = AnswerColumn::of(asking, extent, lists)?;
        for column in &mut answers {
            column.name.insert_str(0, &prefix);
        }
        check_labels(asking, format, &separator)?;
        let mut table = Self { format, input, answers, separator };
        table.check_names()?;
        table.check_input()?;
        Ok(table)
    }

    /// Whether the columns of the inputs are copied from Parquet files.
    pub(super) fn copies(&self) -> bool {
        let InputColumns::File { original, .. } = &self.input else { return false };
        self.format == TableFormat::Parquet && original.parquet().is_some()
    }

    /// The names of all columns.
    pub(super) fn names(&self) -> Vec<&str> {
        let answers = self.answers.iter().map(|column| column.name.as_str());
        self.input.names().into_iter().chain(answers).collect()
    }

    /// Checks that no column of predictions has the name of another column.
    fn check_names(&self) -> Result<()> {
        let mut there: HashSet<&str> = HashSet::new();
        let mut again = None;
        for name in self.input.names() {
            again = again.or((!there.insert(name)).then_some(name));
        }
        let is_one = self.format == TableFormat::Parquet && !self.copies();
        if let Some(name) = again.filter(|_| is_one) {
            let name = quoted(name);
            let problem = format!(
                "the input has more than one column {name}, and a .parquet can have one; expected --output with a .csv or .tsv"
            );
            return Err(Error::Usage(problem));
        }
        let mut added: HashSet<&str> = HashSet::new();
        for AnswerColumn { name, .. } in &self.answers {
            let shown = quoted(name);
            if there.contains(name.as_str()) {
                let problem = format!(
                    "the input has a column {shown}, and the predictions would have one too; expected --prefix with what their columns begin with, such as --prefix pred_"
                );
                return Err(Error::Usage(problem));
            }
            if !added.insert(name) {
                let problem = format!(
                    "two columns of predictions would be {shown}; expected fewer tasks (--task), or a table without --scores and --top-k"
                );
                return Err(Error::Usage(problem));
            }
        }
        let place = |name: &str| format!("the name of the column {}", quoted(name));
        self.names().iter().try_for_each(|name| self.format.check(name, || place(name)))
    }

    /// Reads the columns of the inputs once, to find what is wrong with them before a text is
    /// predicted.
    fn check_input(&mut self) -> Result<()> {
        let (format, copies) = (self.format, self.copies());
        let InputColumns::File { original, left_out } = &mut self.input else { return Ok(()) };
        if copies {
            return Ok(());
        }
        original.check_texts()?;
        let (shown, names) = (original.path().display().to_string(), original.columns().to_vec());
        let mut number = 0;
        while let Some(cells) = original.next_row()? {
            number += 1;
            let kept = cells.iter().zip(&names).zip(&*left_out).filter(|(_, out)| !**out);
            for ((cell, name), _) in kept {
                let place = || format!("{shown}: row {number}, column {}", quoted(name));
                format.check(cell.as_deref().unwrap_or_default(), place)?;
            }
        }
        original.rewind();
        Ok(())
    }
}

/// Checks that labels in one text can be told apart, and that the format can hold each label.
fn check_labels(asking: &Asking<'_>, format: TableFormat, separator: &str) -> Result<()> {
    let (tasks, one_text): (Vec<&Task>, bool) = match asking {
        Asking::One(task) => (vec![task], false),
        Asking::Each(tasks) => (tasks.iter().map(|(_, task)| *task).collect(), false),
        Asking::OfRow(tasks) => (tasks.clone(), true),
    };
    let one_text = one_text || format != TableFormat::Parquet;
    for task in tasks {
        let joined = one_text && task.task_type == TaskType::MultiLabel;
        if joined && separator.is_empty() {
            return Err(Error::Usage("--label-separator: found nothing, expected a text".into()));
        }
        // With the separator behind it, the label must end where the separator begins.
        let is_cut = |label: &&String| {
            joined && format!("{label}{separator}").find(separator) != Some(label.len())
        };
        if let Some(label) = task.labels.iter().find(is_cut) {
            let problem = format!(
                "--label-separator: the label {} contains the separator {}, which is to be between labels; expected another",
                quoted(label),
                quoted(separator)
            );
            return Err(Error::Usage(problem));
        }
        let place = |label: &str| format!("the label {}", quoted(label));
        task.labels.iter().try_for_each(|label| format.check(label, || place(label)))?;
        if joined {
            format.check(separator, || "--label-separator".into())?;
        }
    }
    Ok(())
}
