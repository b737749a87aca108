//! CSV, TSV and JSONL.

use super::{Cell, Place, Rows};
use crate::error::{Error, Result};
use crate::files::read_text;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Where the columns that are read stand in a line.
struct Positions {
    positions: Vec<usize>,
    width: Option<usize>,
}

impl Positions {
    /// By the names in the first line.
    fn in_header(path: &Path, header: &[&str], rows: &Rows<'_>) -> Result<Self> {
        let find = |(key, name): (&str, &str)| {
            let mut found = header.iter().enumerate().filter(|(_, h)| **h == name).map(|(i, _)| i);
            match (found.next(), found.next()) {
                (Some(position), None) => Ok(position),
                (Some(_), Some(_)) => {
                    Err(Error::data(path, 1, format!("more than one column {name:?} ({key})")))
                }
                _ if header.join("").is_empty() => Err(Error::data(
                    path,
                    1,
                    format!("no column {name:?} ({key}); the header is empty"),
                )),
                _ => {
                    let there = header.join(", ");
                    let problem = format!("no column {name:?} ({key}); the header has {there}");
                    Err(Error::data(path, 1, problem))
                }
            }
        };
        let positions = rows.columns.named().into_iter().map(find).collect::<Result<_>>()?;
        Ok(Self { positions, width: Some(header.len()) })
    }

    /// By number, from 1.
    fn by_number(path: &Path, rows: &Rows<'_>) -> Result<Self> {
        let number = |(key, name): (&str, &str)| match name.parse::<usize>() {
            Ok(number) if number >= 1 => Ok(number - 1),
            _ => {
                let problem = format!(
                    "{key}: found {name:?}, expected a column's number, from 1, since data.header is false"
                );
                Err(Error::data(path, None, problem))
            }
        };
        let positions = rows.columns.named().into_iter().map(number).collect::<Result<_>>()?;
        Ok(Self { positions, width: None })
    }

    fn take(&mut self, fields: &[&str], place: Place, rows: &mut Rows<'_>) -> Result<()> {
        // Without a header the first line says how many there are.
        let width = *self.width.get_or_insert(fields.len());
        let row = if fields.len() == width {
            let cell = |&i: &usize| match fields.get(i) {
                Some(field) => Ok(Cell::Text((*field).to_owned())),
                None => Err(place.error(format!("no column {}; there are {width}", i + 1))),
            };
            let cells = self.positions.iter().map(cell).collect::<Result<Vec<_>>>();
            cells.and_then(|cells| rows.columns.row(cells, None, place))
        } else {
            let as_where = if rows.columns.header { "header" } else { "first line" };
            let found = fields.len();
            Err(place.error(format!("{found} columns, expected {width} as in the {as_where}")))
        };
        rows.take(row)
    }
}

pub fn read_csv(path: &Path, rows: &mut Rows<'_>) -> Result<()> {
    let file: Arc<Path> = path.into();
    let text = read_text(path)?;
    let text = text.trim_start_matches('\u{feff}');
    // The reader counts the second half of a CRLF to the row after it.
    let line = |position: &csv::Position| {
        let half = text.as_bytes().get(position.byte() as usize) == Some(&b'\n');
        position.line() as usize + usize::from(half && position.byte() > 0)
    };
    let broken = |error: csv::Error| {
        let line = error.position().map(line);
        Error::data(path, line, format!("not CSV: {:?}", error.into_kind()))
    };
    let header = rows.columns.header;
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).has_headers(header).from_reader(text.as_bytes());
    let mut positions = if header {
        let names = reader.headers().map_err(broken)?.clone();
        Positions::in_header(path, &names.iter().collect::<Vec<_>>(), rows)?
    } else {
        Positions::by_number(path, rows)?
    };
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(broken)? {
        let from = record.position().map(line);
        let fields: Vec<&str> = record.iter().collect();
        // A quote that is not closed eats rows, which nobody can have meant to leave out.
        let to = reader.position().line() as usize;
        if from.is_some_and(|from| to > from + 1)
            && positions.width.is_some_and(|w| w != fields.len())
        {
            let (from, width) = (from.unwrap_or(1), positions.width.unwrap_or(0));
            let problem = format!(
                "line {from} to {to} are one row of {} columns, expected {width}; is a quote not closed?",
                fields.len()
            );
            return Err(Error::file(path, problem));
        }
        positions.take(&fields, Place { path: file.clone(), line: from }, rows)?;
    }
    Ok(())
}

/// Quotes mean nothing in a TSV: no field can hold a tab or a line's end, and a reader that minds quotes loses rows.
pub fn read_tsv(path: &Path, rows: &mut Rows<'_>) -> Result<()> {
    let file: Arc<Path> = path.into();
    let text = read_text(path)?;
    let mut lines = text
        .trim_start_matches('\u{feff}')
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .enumerate()
        .peekable();
    let mut positions = if rows.columns.header {
        let (_, header) = lines.next().unwrap_or_default();
        Positions::in_header(path, &header.split('\t').collect::<Vec<_>>(), rows)?
    } else {
        Positions::by_number(path, rows)?
    };
    while let Some((i, line)) = lines.next() {
        // An empty line is a row only where a row is one column; what follows the last line's end never is.
        if line.is_empty() && (positions.width != Some(1) || lines.peek().is_none()) {
            continue;
        }
        let place = Place { path: file.clone(), line: Some(i + 1) };
        positions.take(&line.split('\t').collect::<Vec<_>>(), place, rows)?;
    }
    Ok(())
}

pub fn read_jsonl(path: &Path, rows: &mut Rows<'_>) -> Result<()> {
    let file: Arc<Path> = path.into();
    let text = read_text(path)?;
    for (i, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let place = Place { path: file.clone(), line: Some(i + 1) };
        let row = fields(line, &place, rows).and_then(|cells| rows.columns.row(cells, None, place));
        rows.take(row)?;
    }
    Ok(())
}

fn fields(line: &str, place: &Place, rows: &Rows<'_>) -> Result<Vec<Cell>> {
    let value: Value =
        serde_json::from_str(line).map_err(|e| place.error(format!("not JSON: {e}")))?;
    let Some(object) = value.as_object() else { return Err(place.error("not a JSON object")) };
    let field = |(key, name): (&str, &str)| {
        object.get(name).map(cell).ok_or_else(|| {
            let there = object.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            place.error(format!("no field {name:?} ({key}); there are {there}"))
        })
    };
    rows.columns.named().into_iter().map(field).collect()
}

fn cell(value: &Value) -> Cell {
    let simple = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        // 1.0 is the class 1, as it is in other formats, and -0.0 the class 0.
        Value::Number(number) => Some(
            number
                .as_f64()
                .filter(|x| number.is_f64() && x.fract() == 0.0 && x.abs() < 1e15)
                .map_or_else(|| number.to_string(), |x| format!("{:.0}", x + 0.0)),
        ),
        Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    let several = |values: &Vec<Value>| values.iter().map(simple).collect::<Option<Vec<_>>>();
    match (simple(value), value) {
        (Some(text), _) => Cell::Text(text),
        (_, Value::Null) => Cell::Null,
        (_, Value::Array(values)) => {
            several(values).map_or(Cell::Other(value.to_string()), Cell::Texts)
        }
        _ => Cell::Other(value.to_string()),
    }
}
