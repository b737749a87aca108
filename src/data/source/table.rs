//! CSV and TSV files.

use super::csv::{self, CsvReader, CsvRecord, MOST_COLUMNS};
use super::rows::{CellValue, Columns, RowCollector, RowOrigin};
use crate::data::spelling::listed;
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// Characters above which a column's name is likely a text.
const LONG_NAME: usize = 24;

/// What would help if the first line is no header.
const NO_HEADER: &str = "; if the first line is a row, set data.header = false (--no-header) and name the columns by number, \"1\" the first";

/// Positions in a line of the columns to read.
struct Positions {
    positions: Vec<usize>,
    width: Option<usize>,
    /// Cells of the header for the columns to read.
    header: Vec<String>,
}

impl Positions {
    /// Finds the columns by name in the header, which is on line `line`. `hint` is added to the
    /// error for a missing column.
    fn in_header<T: AsRef<str>>(
        path: &Path,
        line: usize,
        header: &[T],
        rows: &RowCollector<'_>,
        hint: &str,
    ) -> Result<Self> {
        // The position of each name, and whether the name occurs again.
        let mut by_name: HashMap<&str, (usize, bool)> = HashMap::new();
        for (i, name) in header.iter().enumerate() {
            let found = by_name.entry(name.as_ref());
            found.and_modify(|(_, again)| *again = true).or_insert((i, false));
        }
        let find = |(key, name): (&str, &str)| match by_name.get(name) {
            Some((position, false)) => Ok(*position),
            Some((_, true)) => {
                Err(Error::data(path, line, format!("more than one column {name:?} ({key})")))
            }
            None => {
                let there = match listed(header.iter().map(AsRef::as_ref)) {
                    there if there.is_empty() => "the header is empty".into(),
                    there => format!("the header has {there}{hint}"),
                };
                let row = header.iter().any(|name| name.as_ref().chars().count() > LONG_NAME);
                let first = if row { NO_HEADER } else { "" };
                Err(Error::data(path, line, format!("no column {name:?} ({key}); {there}{first}")))
            }
        };
        let positions = rows.columns.named().into_iter().map(find).collect::<Result<Vec<_>>>()?;
        let names = positions.iter().filter_map(|&i| header.get(i));
        let names = names.map(|name| name.as_ref().to_owned()).collect();
        Ok(Self { positions, width: Some(header.len()), header: names })
    }

    /// Finds the columns by number, from 1.
    fn by_number(path: &Path, rows: &RowCollector<'_>) -> Result<Self> {
        let number = |(key, name): (&str, &str)| match name.parse::<usize>() {
            Ok(number) if number >= 1 => Ok(number - 1),
            _ => {
                let problem = format!(
                    "{key}: found {name:?}, expected a column number, counted from 1, because data.header is false"
                );
                Err(Error::data(path, None, problem))
            }
        };
        let positions = rows.columns.named().into_iter().map(number).collect::<Result<_>>()?;
        Ok(Self { positions, width: None, header: vec![] })
    }

    /// Adds the row of these cells to `rows`; `found` is the number of cells in the line.
    fn take(
        &mut self,
        cells: &[impl AsRef<str>],
        found: usize,
        place: RowOrigin,
        rows: &mut RowCollector<'_>,
    ) -> Result<()> {
        // Without a header, the first line gives the number of columns.
        let width = *self.width.get_or_insert(found);
        let is_header =
            |(&i, name): (&usize, &String)| cells.get(i).is_some_and(|c| c.as_ref() == name);
        // In a table of one column, a text may equal the column's name.
        let is_header = width > 1
            && !self.header.is_empty()
            && self.positions.iter().zip(&self.header).all(is_header);
        let cells = if is_header {
            Err(place.error("the header occurs again; were files joined that each have a header?"))
        } else if found == width {
            let cell = |&i: &usize| match cells.get(i) {
                Some(cell) => Ok(CellValue::Text(cell.as_ref().to_owned())),
                None => Err(place.error(format!("no column {}; there are {width} columns", i + 1))),
            };
            self.positions.iter().map(cell).collect()
        } else {
            let as_where = if rows.columns.header { "header" } else { "first line" };
            Err(place.error(format!("{found} columns, expected {width} as in the {as_where}")))
        };
        rows.add(cells, None, place)
    }
}

/// Reads a CSV with quotes as in RFC 4180. The delimiter is detected from the first lines unless
/// the file or the configuration gives it.
pub fn read_csv(path: &Path, text: &str, rows: &mut RowCollector<'_>) -> Result<()> {
    let file: Arc<Path> = path.into();
    let CsvText { line, text, delimiter, detected } = csv_text(path, text, rows.columns)?;
    if delimiter != ',' && rows.columns.delimiter.is_none() {
        let name = csv::name(delimiter);
        tracing::info!("{}: columns are separated by {name} (data.delimiter)", path.display());
    }
    let mut reader = CsvReader::new(path, text, line, delimiter);
    let delimiter = detected.then_some(delimiter);
    let mut positions = if rows.columns.header {
        let header = reader.record()?;
        let (line, cells) = header.map_or((1, vec![]), |header| (header.first, header.cells));
        Positions::in_header(path, line, &cells, rows, &separated_by(&cells, delimiter))?
    } else {
        Positions::by_number(path, rows)?
    };
    while let Some(CsvRecord { cells, first, last }) = reader.record()? {
        // An unclosed quote swallows rows, so this ends the run even with `skip_bad_rows`.
        if let Some(width) = positions.width.filter(|width| last > first && *width != cells.len()) {
            let problem = format!(
                "lines {first} to {last} are one row of {} columns, expected {width}; is a quote not closed?",
                cells.len()
            );
            return Err(Error::file(path, problem));
        }
        let place = RowOrigin { path: file.clone(), line: Some(first) };
        positions.take(&cells, cells.len(), place, rows)?;
    }
    reader.warn_of_long_cells();
    Ok(())
}

/// The rows of a CSV as text, header included, and how to read them.
pub struct CsvText<'a> {
    /// Line that the text begins on.
    line: usize,
    /// The text, without a first line for Excel.
    pub text: &'a str,
    /// Delimiter between cells.
    pub delimiter: char,
    /// Whether the delimiter was detected, because neither file nor configuration gives it.
    detected: bool,
}

/// Finds the rows of a CSV and their delimiter.
pub fn csv_text<'a>(path: &Path, text: &'a str, columns: &Columns) -> Result<CsvText<'a>> {
    let (line, said, text) = match csv::said_for_excel(text) {
        Some((delimiter, rest)) => (2, Some(delimiter), rest),
        None => (1, None, text),
    };
    let told = columns.delimiter;
    if let (Some(said), Some(told)) = (said, told)
        && said != told
    {
        let problem = format!("the first line is sep={said}, but data.delimiter is {told:?}");
        return Err(Error::data(path, 1, problem));
    }
    let found = told.or(said);
    let delimiter = found.map_or_else(|| detected(path, text, columns), Ok)?;
    Ok(CsvText { line, text, delimiter, detected: found.is_none() })
}

/// Detects the delimiter: the first with which the first lines have the columns to read, else the
/// one that makes the most columns of the first line. Without a header, two that fit are an error.
fn detected(path: &Path, text: &str, columns: &Columns) -> Result<char> {
    let first = |delimiter| -> Option<Vec<CsvRecord<'_>>> {
        let mut reader = CsvReader::new(path, text, 1, delimiter);
        let lines = if columns.header { 1 } else { 20 };
        std::iter::from_fn(|| reader.record().transpose()).take(lines).collect::<Result<_>>().ok()
    };
    let width = |records: &[CsvRecord<'_>]| records.first().map_or(0, |record| record.cells.len());
    let fits = |records: &[CsvRecord<'_>]| {
        let width = width(records);
        let header = records.first().filter(|_| columns.header);
        let cells: Option<HashSet<&str>> =
            header.map(|header| header.cells.iter().map(AsRef::as_ref).collect());
        records.iter().all(|record| record.cells.len() == width)
            && columns.named().iter().all(|(_, name)| match &cells {
                Some(cells) => cells.contains(name),
                None => name.parse().is_ok_and(|number: usize| number <= width),
            })
    };
    let tried: Vec<(char, Vec<CsvRecord<'_>>)> = csv::DELIMITERS
        .iter()
        .filter_map(|&delimiter| Some((delimiter, first(delimiter)?)))
        .collect();
    let is_fitting = |(delimiter, records): &&(char, Vec<CsvRecord<'_>>)| {
        // Without a header, a delimiter that never occurs would fit, with one column.
        fits(records) && (width(records) > 1 || (columns.header && *delimiter == ','))
    };
    let mut fitting = tried.iter().filter(is_fitting);
    let first_fitting = fitting.next();
    if let (Some((a, _)), Some((b, _)), false) = (first_fitting, fitting.next(), columns.header) {
        let problem = format!(
            "columns can be separated by {} or by {}, and there is no header to tell; set data.delimiter (--delimiter)",
            csv::name(*a),
            csv::name(*b)
        );
        return Err(Error::data(path, 1, problem));
    }
    // `rev` gives the first of several with equally many columns.
    let widest = || tried.iter().rev().max_by_key(|(_, records)| width(records));
    Ok(first_fitting.or_else(widest).map_or(',', |(delimiter, _)| *delimiter))
}

/// Suffix about the detected delimiter, for the error for a missing column.
fn separated_by(header: &[Cow<'_, str>], found: Option<char>) -> String {
    match found {
        Some(delimiter) if delimiter != ',' => {
            format!(", separated by {} (data.delimiter)", csv::name(delimiter))
        }
        Some(_) if header.len() == 1 => {
            "; if columns are not separated by commas, semicolons, tabs or bars, set data.delimiter"
                .into()
        }
        _ => String::new(),
    }
}

/// Reads a TSV, in which quotes are ordinary letters: no field can hold a tab or a line end, and a
/// reader that interprets quotes loses rows.
pub fn read_tsv(path: &Path, text: &str, rows: &mut RowCollector<'_>) -> Result<()> {
    if let Some(delimiter) = rows.columns.delimiter.filter(|delimiter| *delimiter != '\t') {
        let problem = format!(
            "data.delimiter: found {delimiter:?}, but columns of a .tsv are separated by tabs; rename the file to .csv"
        );
        return Err(Error::data(path, None, problem));
    }
    let file: Arc<Path> = path.into();
    let mut lines =
        text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).enumerate().peekable();
    let cells = |line: &str| line.split('\t').count();
    let mut positions = if rows.columns.header {
        let (_, header) = lines.next().unwrap_or_default();
        if cells(header) > MOST_COLUMNS {
            return Err(Error::data(path, 1, format!("more than {MOST_COLUMNS} columns")));
        }
        let header: Vec<&str> = header.split('\t').collect();
        let in_quotes =
            |name: &&str| name.len() > 1 && name.starts_with('"') && name.ends_with('"');
        let hint = if header.iter().any(in_quotes) {
            "; quotes are ordinary characters in a .tsv; if they enclose cells, rename the file to .csv"
        } else if header.len() == 1 && header.iter().any(|name| name.contains([',', ';', '|'])) {
            "; columns of a .tsv are separated by tabs; if these are not, rename the file to .csv"
        } else {
            ""
        };
        Positions::in_header(path, 1, &header, rows, hint)?
    } else {
        Positions::by_number(path, rows)?
    };
    let most = positions.positions.iter().max().map_or(0, |most| most + 1);
    while let Some((i, line)) = lines.next() {
        // An empty line is a row only in a table of one column. The empty piece after the last line
        // end never is.
        if line.is_empty() && (positions.width != Some(1) || lines.peek().is_none()) {
            continue;
        }
        let place = RowOrigin { path: file.clone(), line: Some(i + 1) };
        let mut all = line.split('\t');
        let first: Vec<&str> = all.by_ref().take(most).collect();
        let count = first.len() + all.count();
        positions.take(&first, count, place, rows)?;
    }
    Ok(())
}
