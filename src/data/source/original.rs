//! The columns of a data file as they stand in it, for a table that is written of them.
//!
//! The text of a file is kept, and its rows are found in it again one by one, so that no row takes
//! memory for the columns that are not read.

use super::csv::CsvReader;
use super::input::DataFormat;
use super::parquet::ParquetFile;
use super::parquet_table::ParquetTable;
use super::rows::{Cell, Columns};
use super::table::csv_text;
use crate::data::spelling::quoted;
use crate::error::{Error, Result};
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Maximum number of different fields in a JSON file. Without a limit, rows that share no field
/// would make a table of rows times rows.
const MOST_FIELDS: usize = 10_000;

/// The columns of a data file as they stand in it, row by row.
pub struct Original {
    path: PathBuf,
    columns: Vec<String>,
    /// Positions of the columns of the text and of the second text.
    texts: Vec<usize>,
    rows: RawRows,
}

/// The rows of an [`Original`].
enum RawRows {
    Text(TextRows),
    Parquet(ParquetTable),
}

/// Rows of a file of text.
struct TextRows {
    text: String,
    /// Where the first row begins.
    start: usize,
    /// Where the next row begins.
    at: usize,
    form: Form,
}

/// How the rows of a text are written.
enum Form {
    /// With this delimiter.
    Csv(char),
    /// With tabs; true for a table of one column, in which an empty line is a row.
    Tsv(bool),
    /// As objects, with the columns by name.
    Json(HashMap<String, usize>),
}

impl Original {
    /// The columns of the file `path`, whose rows were read from `text` without an error.
    pub(super) fn of_text(
        path: &Path,
        text: String,
        format: DataFormat,
        columns: &Columns,
    ) -> Result<Self> {
        let start = text.len() - text.trim_start_matches('\u{feff}').len();
        let rows = TextRows { text, start, at: start, form: Form::Csv(',') };
        let (names, rows) = match format {
            DataFormat::Json | DataFormat::JsonLines => json(path, rows)?,
            DataFormat::Tsv => tsv(rows, columns.header),
            _ => csv(path, rows, columns)?,
        };
        let by_number = !columns.header && !matches!(rows.form, Form::Json(_));
        let position = |name: &str| match by_number {
            true => name.parse().ok().and_then(|number: usize| number.checked_sub(1)),
            false => names.iter().position(|other| other == name),
        };
        let texts = [Some(&columns.text), columns.text_pair.as_ref()].into_iter().flatten();
        let texts = texts.filter_map(|name| position(name)).collect();
        Ok(Self { path: path.to_owned(), columns: names, texts, rows: RawRows::Text(rows) })
    }

    /// The columns of Parquet files, which are one table. Errs if their columns differ.
    pub(super) fn of_parquet(
        path: &Path,
        files: Vec<ParquetFile>,
        columns: &Columns,
    ) -> Result<Self> {
        let (table, names) = ParquetTable::new(files)?;
        let texts = [Some(&columns.text), columns.text_pair.as_ref()].into_iter().flatten();
        let position = |name: &String| names.iter().position(|other| other == name);
        let texts = texts.filter_map(position).collect();
        let rows = RawRows::Parquet(table);
        Ok(Self { path: path.to_owned(), columns: names, texts, rows })
    }

    /// The file, or the folder of Parquet files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the columns, in the order of the file. Columns without a header are named by
    /// their numbers, from 1.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Whether a column is the text or the second text.
    pub fn is_text(&self, column: usize) -> bool {
        self.texts.contains(&column)
    }

    /// The Parquet files, if the rows are from such.
    pub fn parquet(&self) -> Option<&ParquetTable> {
        match &self.rows {
            RawRows::Parquet(table) => Some(table),
            RawRows::Text(_) => None,
        }
    }

    /// Errs if a column has values that have no text.
    pub fn check_texts(&self) -> Result<()> {
        match &self.rows {
            RawRows::Parquet(table) => table.check_texts(),
            RawRows::Text(_) => Ok(()),
        }
    }

    /// Goes back to the first row.
    pub fn rewind(&mut self) {
        match &mut self.rows {
            RawRows::Text(rows) => rows.at = rows.start,
            RawRows::Parquet(table) => table.rewind(),
        }
    }

    /// The cells of the next row as texts, a cell for each column; `None` at the end.
    pub fn next_row(&mut self) -> Result<Option<Vec<Cell<'_>>>> {
        let width = self.columns.len();
        match &mut self.rows {
            RawRows::Parquet(table) => table.next_row(),
            RawRows::Text(rows) => rows.next_row(&self.path, width),
        }
    }
}

/// The names of the columns of a CSV, and its rows.
fn csv(path: &Path, mut rows: TextRows, columns: &Columns) -> Result<(Vec<String>, TextRows)> {
    let found = csv_text(path, rows.rest(), columns)?;
    let (start, delimiter) = (rows.text.len() - found.text.len(), found.delimiter);
    let mut reader = CsvReader::new(path, found.text, 1, delimiter);
    let first = reader.record()?.map_or(vec![], |first| first.cells);
    let names = named(first.iter().map(AsRef::as_ref), columns.header);
    let start = if columns.header { rows.text.len() - reader.rest().len() } else { start };
    drop(first);
    (rows.start, rows.at, rows.form) = (start, start, Form::Csv(delimiter));
    Ok((names, rows))
}

/// The names of the columns of a TSV, and its rows.
fn tsv(mut rows: TextRows, header: bool) -> (Vec<String>, TextRows) {
    let mut at = rows.at;
    let names = loop {
        let before = at;
        let Some(line) = line_at(&rows.text, &mut at) else { break vec![] };
        // Without a header, empty lines before the first row are none.
        if header || !line.is_empty() {
            at = if header { at } else { before };
            break named(line.split('\t'), header);
        }
    };
    (rows.start, rows.at, rows.form) = (at, at, Form::Tsv(names.len() == 1));
    (names, rows)
}

/// The names of columns: the cells of the header, or their numbers.
fn named<'a>(first: impl Iterator<Item = &'a str>, header: bool) -> Vec<String> {
    match header {
        true => first.map(str::to_owned).collect(),
        false => (1..=first.count()).map(|number| number.to_string()).collect(),
    }
}

/// The names of all fields in the order in which they first occur, and the rows.
fn json(path: &Path, mut rows: TextRows) -> Result<(Vec<String>, TextRows)> {
    let (mut names, mut by_name): (Vec<String>, HashMap<String, usize>) = Default::default();
    loop {
        let before = rows.at;
        let Some(fields) = rows.next_object(path)? else { break };
        for (name, _) in fields {
            by_name.entry(name).or_insert_with_key(|name| {
                names.push(name.clone());
                names.len() - 1
            });
        }
        if names.len() > MOST_FIELDS {
            let problem =
                format!("more than {MOST_FIELDS} different fields; expected rows of one table");
            return Err(Error::data(path, line_of(&rows.text, before), problem));
        }
    }
    (rows.at, rows.form) = (rows.start, Form::Json(by_name));
    Ok((names, rows))
}

/// The line that begins at `at`, which is moved behind it; `None` at the end.
fn line_at<'a>(text: &'a str, at: &mut usize) -> Option<&'a str> {
    let rest = text.get(*at..).filter(|rest| !rest.is_empty())?;
    let (line, behind) = rest.split_once('\n').unwrap_or((rest, ""));
    *at = text.len() - behind.len();
    Some(line.strip_suffix('\r').unwrap_or(line))
}

impl TextRows {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The cells of the next row of `width` columns; `None` at the end.
    fn next_row<'a>(&'a mut self, path: &'a Path, width: usize) -> Result<Option<Vec<Cell<'a>>>> {
        match self.form {
            Form::Csv(delimiter) => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let mut reader = CsvReader::new(path, rest, 1, delimiter);
                let record = reader.record()?;
                self.at = self.text.len() - reader.rest().len();
                Ok(record.map(|record| record.cells.into_iter().map(Some).collect()))
            }
            Form::Tsv(only) => Ok(self
                .next_line(only)
                .map(|line| line.split('\t').map(|cell| Some(Cow::Borrowed(cell))).collect())),
            Form::Json(_) => self.next_fields(path, width),
        }
    }

    /// The next line of a TSV that is a row. An empty line is one in a table of one column, unless
    /// it is the last and has no line end.
    fn next_line(&mut self, only: bool) -> Option<&str> {
        loop {
            let line = line_at(&self.text, &mut self.at)?;
            let ended = self.at < self.text.len() || self.text.ends_with('\n');
            if !line.is_empty() || (only && ended) {
                return Some(line);
            }
        }
    }

    /// The cells of the next object; a field that it lacks is an empty cell.
    fn next_fields(&mut self, path: &Path, width: usize) -> Result<Option<Vec<Cell<'_>>>> {
        let before = self.at;
        let wrong = |error: serde_json::Error| not_json(path, &self.text, before, &error);
        let Form::Json(by_name) = &self.form else { return Ok(None) };
        let Some((object, at)) = object(&self.text, before).map_err(wrong)? else {
            return Ok(None);
        };
        let mut cells = vec![None; width];
        for (name, value) in fields(object).map_err(wrong)? {
            if let Some(slot) = by_name.get(&name).and_then(|&i| cells.get_mut(i)) {
                *slot = cell(value).map_err(wrong)?;
            }
        }
        self.at = at;
        Ok(Some(cells))
    }

    /// The fields of the next object; `None` at the end. Errs on a field that occurs twice, because
    /// a table can keep only one of the two.
    fn next_object(&mut self, path: &Path) -> Result<Option<Vec<(String, &RawValue)>>> {
        let before = self.at;
        let wrong = |error: serde_json::Error| not_json(path, &self.text, before, &error);
        let Some((object, at)) = object(&self.text, before).map_err(wrong)? else {
            return Ok(None);
        };
        let fields = fields(object).map_err(wrong)?;
        let mut names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let twice = names.windows(2).find_map(|pair| match pair {
            [a, b] if a == b => Some(quoted(a)),
            _ => None,
        });
        if let Some(name) = twice {
            let problem = format!("more than one field {name}; a table keeps only one");
            return Err(Error::data(path, line_of(&self.text, before), problem));
        }
        self.at = at;
        Ok(Some(fields))
    }
}

/// The number of the line of the next object in `text` from `at` on.
fn line_of(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default().trim_start_matches(is_between);
    let before = text.get(..text.len() - rest.len()).unwrap_or_default();
    1 + before.bytes().filter(|byte| *byte == b'\n').count()
}

/// Whether a letter is between objects: in lines and in arrays.
fn is_between(letter: char) -> bool {
    letter.is_whitespace() || "[,]".contains(letter)
}

fn not_json(path: &Path, text: &str, at: usize, error: &serde_json::Error) -> Error {
    Error::data(path, line_of(text, at), format!("not JSON: {error}"))
}

/// The next object in `text` from `at` on, and where the text behind it begins; `None` at the end.
fn object(text: &str, at: usize) -> serde_json::Result<Option<(&str, usize)>> {
    let rest = text.get(at..).unwrap_or_default().trim_start_matches(is_between);
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
    let Some(value) = values.next().transpose()? else { return Ok(None) };
    Ok(Some((value.get(), text.len() - rest.len() + values.byte_offset())))
}

/// The fields of an object.
fn fields(object: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    struct Fields;
    impl<'de> Visitor<'de> for Fields {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "an object")
        }

        fn visit_map<A: MapAccess<'de>>(
            self,
            mut object: A,
        ) -> std::result::Result<Self::Value, A::Error> {
            let mut fields = vec![];
            while let Some(field) = object.next_entry()? {
                fields.push(field);
            }
            Ok(fields)
        }
    }
    serde_json::Deserializer::from_str(object).deserialize_map(Fields)
}

/// A value as a cell: a string's text, and any other value as JSON writes it; `None` for null.
fn cell(value: &RawValue) -> serde_json::Result<Cell<'_>> {
    let written = value.get();
    Ok(match written.as_bytes().first() {
        Some(b'"') => Some(serde_json::from_str::<String>(written)?.into()),
        Some(b'n') => None,
        _ => Some(written.into()),
    })
}
