//! Rows from a file, whose ending gives its format, or from a folder of class folders or of Parquet
//! files.

mod budget;
mod csv;
mod folder;
mod input;
mod json;
mod pages;
mod parquet;
mod shards;
mod table;

pub use csv::{DELIMITER, can_delimit};
pub use input::{has_ending, is_rows, is_table, packing_of, unpack, unreadable};
pub use shards::{place_of, whole};

use super::spelling::{self, listed, quoted, shortened};
use crate::error::{Error, Result};
use budget::{Budget, ENTRY, ROW};
use input::Format;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The place that a row comes from, for messages.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file.
    pub path: Arc<Path>,
    /// The line in the file, or the row in Parquet, counted from 1; `None` if the whole file is the
    /// row.
    pub line: Option<usize>,
}

impl Place {
    /// An error about the row.
    pub fn error(&self, problem: impl Into<String>) -> Error {
        Error::data(&self.path, self.line, problem)
    }
}

impl std::fmt::Display for Place {
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
    pub place: Place,
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
pub struct Table {
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
}

impl Columns {
    /// Columns to read, each as its key in the configuration and its name.
    fn named(&self) -> Vec<(&'static str, &str)> {
        let mut named = vec![("text_column", self.text.as_str())];
        named.extend(self.text_pair.as_deref().map(|name| ("text_pair_column", name)));
        match &self.labels {
            LabelColumns::None => {}
            LabelColumns::One { name, .. } => named.push(("label_column", name)),
            LabelColumns::Each(names) => {
                named.extend(names.iter().map(|name| ("label_columns", name.as_str())));
            }
        }
        named
    }

    /// Makes a row from the values of the columns, in the order of [`Columns::named`]. If `classes`
    /// are given, labels are numbers of these classes.
    fn row(&self, values: Vec<Cell>, classes: Option<&[String]>, place: Place) -> Result<Row> {
        let mut values = values.into_iter().zip(self.named());
        let mut text = || match values.next() {
            Some((Cell::Text(text), _)) => Ok(text),
            Some((cell, (key, name))) => {
                Err(place.error(format!("column {name:?} ({key}): found {cell}, expected a text")))
            }
            None => Err(Error::Bug("a row without its columns".into())),
        };
        let (first, text_pair) = (text()?, self.text_pair.is_some().then(&mut text).transpose()?);
        let (mut list, mut flags): (bool, Box<[bool]>) = (false, [].into());
        let labels = match &self.labels {
            LabelColumns::None => None,
            LabelColumns::One { separator, .. } => {
                let mut labels = vec![];
                for (cell, (key, name)) in values {
                    list |= separator.is_some() || matches!(cell, Cell::Texts(_));
                    labels.extend(match (cell, separator) {
                        (Cell::Texts(texts), _) => texts,
                        (Cell::Text(text), Some(separator)) if spelling::is_printed_list(&text) => {
                            let cell = Cell::Text(text);
                            return Err(place.error(format!(
                                "column {name:?} ({key}): found {cell}, expected labels with {separator:?} between them"
                            )));
                        }
                        (Cell::Text(text), Some(separator)) => {
                            text.split(separator.as_str()).map(str::to_owned).collect()
                        }
                        (Cell::Null, Some(_)) => vec![],
                        (Cell::Null, None) => return Err(place.error("no label")),
                        (Cell::Text(text), None) if text.trim().is_empty() => {
                            return Err(place.error("no label"));
                        }
                        (Cell::Text(text), None) => vec![text],
                        (cell @ Cell::Other(_), _) => {
                            let problem =
                                format!("column {name:?} ({key}): found {cell}, expected a label");
                            return Err(place.error(problem));
                        }
                    });
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
            LabelColumns::Each(_) => {
                let mut labels = vec![];
                for (cell, (key, name)) in values {
                    let has = match &cell {
                        Cell::Text(text) => spelling::flag(text),
                        _ => None,
                    };
                    match has {
                        Some(true) => labels.push(Label { name: name.to_owned(), number: None }),
                        Some(false) => {}
                        None => {
                            return Err(place.error(format!(
                                "column {name:?} ({key}): found {cell}, expected 0 or 1"
                            )));
                        }
                    }
                }
                Some(labels)
            }
        };
        Ok(Row { text: first, text_pair, labels, list, flags, place })
    }
}

/// Makes a label. If the file names its `classes`, `label` must be the number of one.
fn named(label: &str, classes: Option<&[String]>, place: &Place) -> Result<Label> {
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
            Err(place.error(format!("label {label}: the file has names for 0 to {most} alone")))
        }
    }
}

/// Maximum number of columns. Without a limit, a line of commas could take all memory.
const MOST_COLUMNS: usize = 1 << 20;

/// A value of a column.
enum Cell {
    /// A text, or a number or boolean as text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// A missing value.
    Null,
    /// Any other value, as shown in messages.
    Other(String),
}

impl std::fmt::Display for Cell {
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

/// The rows read so far, and the number left out.
struct Rows<'a> {
    columns: &'a Columns,
    rows: Vec<Row>,
    skipped: usize,
    /// The limit on what the file may expand to; `None` if its size is the limit.
    budget: Option<Budget>,
    /// Bytes of the longest name of a class, which may replace a label's number.
    longest_name: u64,
}

impl<'a> Rows<'a> {
    fn new(columns: &'a Columns) -> Self {
        Self { columns, rows: vec![], skipped: 0, budget: None, longest_name: 0 }
    }

    /// Adds the row that the values of the columns make, as [`Columns::row`] does, and takes its
    /// size off the budget.
    fn add(
        &mut self,
        cells: Result<Vec<Cell>>,
        classes: Option<&[String]>,
        place: Place,
    ) -> Result<()> {
        if let Some(budget) = &self.budget {
            let name = self.longest_name;
            let pieces = |text: &str| match &self.columns.labels {
                LabelColumns::One { separator: Some(separator), .. } => {
                    text.matches(separator.as_str()).count() as u64
                }
                _ => 0,
            };
            let size = |cell: &Cell| match cell {
                Cell::Text(text) => text.len() as u64 + name + pieces(text) * (name + ENTRY),
                Cell::Texts(texts) => {
                    texts.iter().map(|text| text.len() as u64 + name + ENTRY).sum()
                }
                Cell::Null | Cell::Other(_) => 0,
            };
            let sizes: u64 = cells.iter().flatten().map(size).sum();
            budget.take(ROW + sizes, &place.path)?;
        }
        let row = cells.and_then(|cells| self.columns.row(cells, classes, place));
        self.take(row)
    }

    /// Adds a row. With `skip_bad_rows`, an error in the data is counted as a row left out; other
    /// errors are returned.
    fn take(&mut self, row: Result<Row>) -> Result<()> {
        match row {
            Ok(row) => self.rows.push(row),
            Err(error @ Error::Data { .. }) if self.columns.skip_bad_rows => {
                if self.skipped == 0 {
                    tracing::warn!("left out: {error}");
                }
                self.skipped += 1;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn finish(self, path: &Path) -> Vec<Row> {
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

/// Formats that [`read`] supports, for messages.
pub const FORMATS: &str = ".csv, .tsv, .jsonl, .json (each also as .gz, .zst, .bz2 or .xz), .parquet, or a folder of class folders or of Parquet \
     files";

/// Reads all rows of a file or a folder. Errs if there are none, or if one is invalid and not to be
/// skipped.
pub fn read(path: &Path, columns: &Columns) -> Result<Table> {
    if path.is_dir() {
        if let Some(files) = shards::of_folder(path)? {
            return read_all(&files, columns);
        }
        let mut rows = Rows::new(columns);
        folder::read(path, &mut rows)?;
        return Ok(Table { rows: rows.finish(path), classes: None });
    }
    read_file(path, columns, &Budget::of(&[path]))
}

/// Reads all rows of a file. Decompressed bytes are taken off the budget.
fn read_file(path: &Path, columns: &Columns, budget: &Budget) -> Result<Table> {
    let Some((format, packing)) = input::format_of(path) else {
        std::fs::metadata(path).map_err(Error::io("read", path))?;
        let problem = format!("cannot tell what it is by its ending; expected {FORMATS}");
        return Err(Error::data(path, None, problem));
    };
    let mut rows = Rows::new(columns);
    let classes = match (format, packing) {
        (Format::Parquet, None) => {
            rows.budget = Some(budget.clone());
            parquet::read(path, &mut rows, budget)?
        }
        (Format::Parquet, Some(_)) => {
            let problem = "a .parquet is compressed inside; unpack it, and name the .parquet";
            return Err(Error::data(path, None, problem));
        }
        (format, packing) => {
            rows.budget = packing.map(|_| budget.clone());
            let text = input::read_text(path, packing, budget)?;
            let text = text.trim_start_matches('\u{feff}');
            match format {
                Format::Tsv => table::read_tsv(path, text, &mut rows)?,
                Format::JsonLines => json::read_lines(path, text, &mut rows)?,
                Format::Json => json::read(path, text, &mut rows)?,
                _ => table::read_csv(path, text, &mut rows)?,
            }
            None
        }
    };
    let rows = rows.finish(path);
    if rows.is_empty() {
        return Err(Error::data(path, None, "no rows"));
    }
    Ok(Table { rows, classes })
}

/// Reads all rows of several files as one table, or of one file or folder. Errs if the files name
/// different classes.
pub fn read_all(paths: &[PathBuf], columns: &Columns) -> Result<Table> {
    if let [path] = paths {
        return read(path, columns);
    }
    let budget = Budget::of(paths);
    let mut all = Table { rows: vec![], classes: None };
    for path in paths {
        let table = read_file(path, columns, &budget)?;
        all.rows.extend(table.rows);
        match (&all.classes, table.classes) {
            (None, found) => all.classes = found,
            (Some(classes), Some(found)) if *classes != found => {
                let [found, before] =
                    [&found, classes].map(|names| listed(names.iter().map(String::as_str)));
                let problem = format!("classes {found}, and {before} in the files before it");
                return Err(Error::data(path, None, problem));
            }
            _ => {}
        }
    }
    Ok(all)
}
