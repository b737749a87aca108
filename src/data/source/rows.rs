//! Rows as the files have them, and the columns that they are made of.

use super::budget::{Budget, ENTRY, ROW};
use crate::data::spelling::{self, quoted, shortened};
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// The place that a row comes from, for messages.
#[derive(Debug, Clone)]
pub struct RowOrigin {
    /// The file.
    pub path: Arc<Path>,
    /// The line in the file, or the row in Parquet, counted from 1; `None` if the whole file is the
    /// row.
    pub line: Option<usize>,
}

impl RowOrigin {
    /// An error about the row.
    pub fn error(&self, problem: impl Into<String>) -> Error {
        Error::data(&self.path, self.line, problem)
    }
}

impl std::fmt::Display for RowOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.path.display()),
            None => write!(f, "{}", self.path.display()),
        }
    }
}

/// A row as it is in the file.
#[derive(Debug, Clone)]
pub struct Row {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub text_pair: Option<String>,
    /// The labels as written; `None` where they were not read.
    pub labels: Option<Vec<Label>>,
    /// Whether the labels are a list, or a text cut at a separator.
    pub list: bool,
    /// A list of 0 and 1, one for each label of the task, instead of names of labels. Set only if
    /// one of the two occurs twice, so that they cannot be names.
    pub flags: Box<[bool]>,
    /// The place that the row comes from.
    pub place: RowOrigin,
}

impl Row {
    /// The labels of the row; empty if they were not read.
    pub fn labels(&self) -> &[Label] {
        self.labels.as_deref().unwrap_or_default()
    }
}

/// A label as written in the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Name of the label.
    pub name: String,
    /// Class number, if the file's metadata names the classes.
    pub number: Option<i64>,
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.number {
            Some(number) => write!(f, "{number} ({})", quoted(&self.name)),
            None => f.write_str(&quoted(&self.name)),
        }
    }
}

/// The rows of a file or several.
#[derive(Debug)]
pub struct Dataset {
    /// The rows.
    pub rows: Vec<Row>,
    /// The names of the classes, by number, if the file's metadata has them (Hugging Face's
    /// `ClassLabel`).
    pub classes: Option<Vec<String>>,
}

/// Columns (CSV, TSV, Parquet) or fields (JSON) to read.
#[derive(Debug, Clone)]
pub struct Columns {
    /// Column of the text.
    pub text: String,
    /// Column of the second text, for pairs.
    pub text_pair: Option<String>,
    /// Columns of the labels.
    pub labels: LabelColumns,
    /// Whether the first line of a CSV or TSV names the columns. If not, columns are named by
    /// number, from 1.
    pub header: bool,
    /// Delimiter of a CSV; `None` to detect it from the first lines.
    pub delimiter: Option<char>,
    /// Whether an invalid row is left out, with a warning, instead of ending the run.
    pub skip_bad_rows: bool,
}

/// The columns that hold a row's labels.
#[derive(Debug, Clone)]
pub enum LabelColumns {
    /// Labels are not read.
    None,
    /// One column.
    One {
        /// Name of the column.
        name: String,
        /// Separator between several labels in a text.
        separator: Option<String>,
    },
    /// One column of 0 or 1 for each label.
    Each(Vec<String>),
    /// The column with the name of the row's task, in place of labels.
    Task(String),
}

impl Columns {
    /// Columns to read, each as its key in the configuration and its name.
    pub fn named(&self) -> Vec<(&'static str, &str)> {
        let mut named = vec![("text_column", self.text.as_str())];
        named.extend(self.text_pair.as_deref().map(|name| ("text_pair_column", name)));
        match &self.labels {
            LabelColumns::None => {}
            LabelColumns::One { name, .. } => named.push(("label_column", name)),
            LabelColumns::Each(names) => {
                named.extend(names.iter().map(|name| ("label_columns", name.as_str())));
            }
            LabelColumns::Task(name) => named.push(("task_column", name)),
        }
        named
    }

    /// Makes a row from the values of the columns, in the order of [`Columns::named`]. If `classes`
    /// are given, labels are numbers of these classes.
    fn row(
        &self,
        values: Vec<CellValue>,
        classes: Option<&[String]>,
        place: RowOrigin,
    ) -> Result<Row> {
        let mut values = values.into_iter().zip(self.named());
        let mut text = || match values.next() {
            Some((CellValue::Text(text), _)) => Ok(text),
            Some((cell, (key, name))) => {
                Err(place.error(format!("column {name:?} ({key}): found {cell}, expected a text")))
            }
            None => Err(Error::Bug("a row without its columns".into())),
        };
        let (first, text_pair) = (text()?, self.text_pair.is_some().then(&mut text).transpose()?);
        let (mut list, mut flags): (bool, Box<[bool]>) = (false, [].into());
        let labels = match &self.labels {
            LabelColumns::None => None,
            LabelColumns::Each(_) => Some(flagged(values, &place)?),
            LabelColumns::Task(_) => {
                let tasks = values.map(|(cell, column)| task(cell, column, classes, &place));
                Some(tasks.collect::<Result<_>>()?)
            }
            LabelColumns::One { separator, .. } => {
                let mut labels = vec![];
                for (cell, column) in values {
                    list |= separator.is_some() || matches!(cell, CellValue::Texts(_));
                    labels.extend(listed(cell, column, separator.as_deref(), &place)?);
                }
                if list && classes.is_none() {
                    flags = spelling::flags(&labels).unwrap_or_default().into();
                }
                // Labels are compared without white space around them.
                let trimmed = labels
                    .iter()
                    .map(|label| label.trim())
                    .filter(|label| !label.is_empty() && flags.is_empty());
                Some(trimmed.map(|label| named(label, classes, &place)).collect::<Result<_>>()?)
            }
        };
        Ok(Row { text: first, text_pair, labels, list, flags, place })
    }
}

/// The task that the cell of a column names. The column is given as its key and its name.
fn task(
    cell: CellValue,
    (key, name): (&str, &str),
    classes: Option<&[String]>,
    place: &RowOrigin,
) -> Result<Label> {
    match cell {
        CellValue::Text(text) if !text.trim().is_empty() => named(text.trim(), classes, place),
        CellValue::Null | CellValue::Text(_) => {
            Err(place.error(format!("no task in column {name:?} ({key})")))
        }
        cell => {
            let problem = format!("column {name:?} ({key}): found {cell}, expected a task's name");
            Err(place.error(problem))
        }
    }
}

/// The labels in the cell of a column, given as its key and its name.
fn listed(
    cell: CellValue,
    (key, name): (&str, &str),
    separator: Option<&str>,
    place: &RowOrigin,
) -> Result<Vec<String>> {
    let bad = |cell: &CellValue, expected: &str| {
        place.error(format!("column {name:?} ({key}): found {cell}, expected {expected}"))
    };
    match (cell, separator) {
        (CellValue::Texts(texts), _) => Ok(texts),
        (cell @ CellValue::Other(_), _) => Err(bad(&cell, "a label")),
        (CellValue::Null, Some(_)) => Ok(vec![]),
        (CellValue::Text(text), Some(separator)) if spelling::is_printed_list(&text) => {
            let expected = format!("labels separated by {separator:?}");
            Err(bad(&CellValue::Text(text), &expected))
        }
        (CellValue::Text(text), Some(separator)) => {
            Ok(text.split(separator).map(str::to_owned).collect())
        }
        (CellValue::Text(text), None) if !text.trim().is_empty() => Ok(vec![text]),
        (CellValue::Null | CellValue::Text(_), None) => Err(place.error("no label")),
    }
}

/// The labels whose columns hold 1. Each column is given as its key and its name.
fn flagged<'a>(
    columns: impl Iterator<Item = (CellValue, (&'static str, &'a str))>,
    place: &RowOrigin,
) -> Result<Vec<Label>> {
    let mut labels = vec![];
    for (cell, (key, name)) in columns {
        let flag = match &cell {
            CellValue::Text(text) => spelling::flag(text),
            _ => None,
        };
        match flag {
            Some(true) => labels.push(Label { name: name.to_owned(), number: None }),
            Some(false) => {}
            None => {
                let problem = format!("column {name:?} ({key}): found {cell}, expected 0 or 1");
                return Err(place.error(problem));
            }
        }
    }
    Ok(labels)
}

/// Makes a label. If the file names its `classes`, `label` must be the number of one.
fn named(label: &str, classes: Option<&[String]>, place: &RowOrigin) -> Result<Label> {
    let Some(classes) = classes else {
        return Ok(Label { name: label.to_owned(), number: None });
    };
    let number = label.parse::<i64>().ok();
    let name = number.and_then(|i| usize::try_from(i).ok()).and_then(|i| classes.get(i));
    match name {
        Some(name) => Ok(Label { name: name.clone(), number }),
        // The Hub marks rows without a label with -1.
        None if number == Some(-1) => Err(place.error("no label (-1)")),
        None => {
            let most = classes.len().saturating_sub(1);
            let label = quoted(label);
            Err(place.error(format!("label {label}: expected a class number from 0 to {most}, because the file names only these classes")))
        }
    }
}

/// A value of a column.
pub enum CellValue {
    /// A text, or a number or boolean as text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// A missing value.
    Null,
    /// Any other value, as shown in messages.
    Other(String),
}

impl std::fmt::Display for CellValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Texts(texts) => {
                let first: Vec<String> = texts.iter().take(80).map(|t| shortened(t)).collect();
                write!(f, "{}", shortened(&format!("{first:?}")))
            }
            Self::Null => write!(f, "nothing"),
            Self::Other(text) => write!(f, "{}", shortened(text)),
        }
    }
}

/// A cell as it stands in the file, as text; `None` for a missing value.
pub type Cell<'a> = Option<Cow<'a, str>>;

/// The rows read so far, and the number left out.
pub struct RowCollector<'a> {
    pub columns: &'a Columns,
    pub rows: Vec<Row>,
    skipped: usize,
    /// The limit on what the file may expand to; `None` if its size is the limit.
    pub budget: Option<Budget>,
    /// Bytes of the longest name of a class, which may replace a label's number.
    pub longest_name: u64,
}

impl<'a> RowCollector<'a> {
    pub fn new(columns: &'a Columns) -> Self {
        Self { columns, rows: vec![], skipped: 0, budget: None, longest_name: 0 }
    }

    /// Adds the row that the values of the columns make, as [`Columns::row`] does, and takes its
    /// size off the budget.
    pub fn add(
        &mut self,
        cells: Result<Vec<CellValue>>,
        classes: Option<&[String]>,
        place: RowOrigin,
    ) -> Result<()> {
        if let Some(budget) = &self.budget {
            let name = self.longest_name;
            let pieces = |text: &str| match &self.columns.labels {
                LabelColumns::One { separator: Some(separator), .. } => {
                    text.matches(separator.as_str()).count() as u64
                }
                _ => 0,
            };
            let size = |cell: &CellValue| match cell {
                CellValue::Text(text) => text.len() as u64 + name + pieces(text) * (name + ENTRY),
                CellValue::Texts(texts) => {
                    texts.iter().map(|text| text.len() as u64 + name + ENTRY).sum()
                }
                CellValue::Null | CellValue::Other(_) => 0,
            };
            let sizes: u64 = cells.iter().flatten().map(size).sum();
            budget.take(ROW + sizes, &place.path)?;
        }
        let row = cells.and_then(|cells| self.columns.row(cells, classes, place));
        self.take(row)
    }

    /// Adds a row. With `skip_bad_rows`, an error in the data is counted as a row left out; other
    /// errors are returned.
    pub fn take(&mut self, row: Result<Row>) -> Result<()> {
        match row {
            Ok(row) => self.rows.push(row),
            Err(error @ Error::Data { .. }) if self.columns.skip_bad_rows => {
                if self.skipped == 0 {
                    tracing::warn!("row left out: {error}");
                }
                self.skipped += 1;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub fn finish(self, path: &Path) -> Vec<Row> {
        if self.skipped > 0 {
            let (skipped, kept) = (self.skipped, self.rows.len());
            tracing::warn!(
                "{}: {skipped} rows left out (data.skip_bad_rows), {kept} read",
                path.display()
            );
        }
        self.rows
    }
}
