//! Rows from CSV, TSV, JSONL or a folder of class folders.

use crate::error::{Error, Result};
use crate::files::read_text;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a row comes from, for messages.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file.
    pub path: Arc<Path>,
    /// Its line, counted from 1; `None` where the file is the row.
    pub line: Option<usize>,
}

impl Place {
    fn error(&self, problem: impl Into<String>) -> Error {
        Error::data(&self.path, self.line, problem)
    }
}

/// A row as it is in the file.
#[derive(Debug, Clone)]
pub struct Row {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub text_pair: Option<String>,
    /// The label as written; `None` where the data has none.
    pub label: Option<String>,
    /// Where it comes from.
    pub place: Place,
}

/// The names of the columns (CSV, TSV) or fields (JSONL).
#[derive(Debug, Clone)]
pub struct Columns {
    /// The text.
    pub text: String,
    /// The second text, where there are pairs.
    pub text_pair: Option<String>,
    /// The label; `None`: not read.
    pub label: Option<String>,
}

/// Reads all rows of `path`: a folder of class folders with `.txt` files, or a file whose ending says what it is.
pub fn read(path: &Path, columns: &Columns) -> Result<Vec<Row>> {
    let rows = if path.is_dir() {
        read_folder(path)?
    } else {
        match ending(path).as_deref() {
            Some("csv") => read_csv(path, columns)?,
            Some("tsv") => read_tsv(path, columns)?,
            Some("jsonl" | "ndjson") => read_jsonl(path, columns)?,
            _ => {
                std::fs::metadata(path).map_err(Error::io("read", path))?;
                let problem = "cannot tell what it is by its ending; expected .csv, .tsv, .jsonl or a folder of class folders";
                return Err(Error::data(path, None, problem));
            }
        }
    };
    if rows.is_empty() {
        return Err(Error::data(path, None, "no rows"));
    }
    Ok(rows)
}

/// The file name's ending, in small letters: `csv`.
pub fn ending(path: &Path) -> Option<String> {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase())
}

/// Which positions of a header the columns have.
struct Positions {
    text: usize,
    text_pair: Option<usize>,
    label: Option<usize>,
    width: usize,
}

impl Positions {
    fn find(path: &Path, header: &[&str], columns: &Columns) -> Result<Self> {
        let find = |key: &str, name: &String| {
            let mut found = header.iter().enumerate().filter(|(_, h)| *h == name).map(|(i, _)| i);
            match (found.next(), found.next()) {
                (Some(position), None) => Ok(position),
                (Some(_), Some(_)) => {
                    Err(Error::data(path, 1, format!("more than one column {name:?} ({key})")))
                }
                _ => {
                    let problem =
                        format!("no column {name:?} ({key}); the header has {}", header.join(", "));
                    Err(Error::data(path, 1, problem))
                }
            }
        };
        Ok(Self {
            text: find("text_column", &columns.text)?,
            text_pair: columns
                .text_pair
                .as_ref()
                .map(|name| find("text_pair_column", name))
                .transpose()?,
            label: columns.label.as_ref().map(|name| find("label_column", name)).transpose()?,
            width: header.len(),
        })
    }

    fn row(&self, fields: &[&str], place: Place) -> Result<Row> {
        if fields.len() != self.width {
            let (found, expected) = (fields.len(), self.width);
            return Err(
                place.error(format!("{found} columns, expected {expected} as in the header"))
            );
        }
        Ok(Row {
            text: fields[self.text].to_owned(),
            text_pair: self.text_pair.map(|i| fields[i].to_owned()),
            label: self.label.map(|i| label(fields[i], &place)).transpose()?,
            place,
        })
    }
}

/// A label as it is compared: without space around it.
fn label(written: &str, place: &Place) -> Result<String> {
    match written.trim() {
        "" => Err(place.error("no label")),
        label => Ok(label.to_owned()),
    }
}

fn read_csv(path: &Path, columns: &Columns) -> Result<Vec<Row>> {
    let file: Arc<Path> = path.into();
    let broken = |error: csv::Error| {
        let line = error.position().map(|p| p.line() as usize);
        match error.into_kind() {
            csv::ErrorKind::Io(source) => Error::io("read", path)(source),
            csv::ErrorKind::Utf8 { err, .. } => {
                Error::data(path, line, format!("not UTF-8: {err}"))
            }
            kind => Error::data(path, line, format!("not CSV: {kind:?}")),
        }
    };
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_path(path).map_err(broken)?;
    let header = reader.headers().map_err(broken)?.clone();
    let header: Vec<&str> = header.iter().map(|h| h.trim_start_matches('\u{feff}')).collect();
    let positions = Positions::find(path, &header, columns)?;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let line = record.position().map(|p| p.line() as usize);
        rows.push(
            positions
                .row(&record.iter().collect::<Vec<_>>(), Place { path: file.clone(), line })?,
        );
    }
    Ok(rows)
}

/// Quotes mean nothing in a TSV: no field can hold a tab or a line's end, and a reader that minds quotes loses rows.
fn read_tsv(path: &Path, columns: &Columns) -> Result<Vec<Row>> {
    let file: Arc<Path> = path.into();
    let text = read_text(path)?;
    let mut lines = text
        .trim_start_matches('\u{feff}')
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line));
    let header: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let positions = Positions::find(path, &header, columns)?;
    // An empty line is a row only where a row is one column; what follows the last line's end never is.
    let mut numbered: Vec<_> = lines.enumerate().collect();
    if numbered.last().is_some_and(|(_, line)| line.is_empty()) {
        numbered.pop();
    }
    let numbered =
        numbered.into_iter().filter(|(_, line)| !line.is_empty() || positions.width == 1);
    numbered
        .map(|(i, line)| {
            let place = Place { path: file.clone(), line: Some(i + 2) };
            positions.row(&line.split('\t').collect::<Vec<_>>(), place)
        })
        .collect()
}

fn read_jsonl(path: &Path, columns: &Columns) -> Result<Vec<Row>> {
    let file: Arc<Path> = path.into();
    let text = read_text(path)?;
    let mut rows = Vec::new();
    for (i, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let place = Place { path: file.clone(), line: Some(i + 1) };
        let value: serde_json::Value =
            serde_json::from_str(line).map_err(|e| place.error(format!("not JSON: {e}")))?;
        let Some(object) = value.as_object() else { return Err(place.error("not a JSON object")) };
        let field = |key: &str, name: &String| match object.get(name) {
            Some(serde_json::Value::String(text)) => Ok(text.clone()),
            Some(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => {
                Ok(value.to_string())
            }
            Some(value) => Err(place.error(format!(
                "field {name:?} ({key}): found {value}, expected a string or a number"
            ))),
            None => {
                let there = object.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                Err(place.error(format!("no field {name:?} ({key}); there are {there}")))
            }
        };
        rows.push(Row {
            text: field("text_column", &columns.text)?,
            text_pair: columns
                .text_pair
                .as_ref()
                .map(|name| field("text_pair_column", name))
                .transpose()?,
            label: columns
                .label
                .as_ref()
                .map(|name| label(&field("label_column", name)?, &place))
                .transpose()?,
            place,
        });
    }
    Ok(rows)
}

/// `class/anything.txt`, in the order of the names. Hidden folders are no classes, nor are aclImdb's unlabelled reviews.
fn read_folder(path: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let imdb = ["neg", "pos", "unsup"].iter().all(|name| path.join(name).is_dir());
    for class in sorted_entries(path)?.into_iter().filter(|entry| entry.is_dir()) {
        let label =
            class.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if label.starts_with('.') || (imdb && label == "unsup") {
            tracing::info!("{}: not a class, passed over", class.display());
            continue;
        }
        for file in sorted_entries(&class)?
            .into_iter()
            .filter(|f| f.extension().is_some_and(|e| e == "txt"))
        {
            let text = read_text(&file)?;
            let place = Place { path: file.into(), line: None };
            rows.push(Row { text, text_pair: None, label: Some(label.clone()), place });
        }
    }
    if rows.is_empty() {
        return Err(Error::data(
            path,
            None,
            "no rows: expected a folder for each class, with .txt files in it",
        ));
    }
    Ok(rows)
}

fn sorted_entries(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(path).and_then(|entries| {
        entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>()
    });
    let mut entries = entries.map_err(Error::io("read", path))?;
    entries.sort();
    Ok(entries)
}

/// The classes: their names, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Names by class number.
    pub names: Vec<String>,
}

impl Labels {
    /// The labels that the rows have: in the order of numbers where all are numbers, else of names.
    pub fn from_rows(path: &Path, rows: &[Row]) -> Result<Self> {
        let found: BTreeSet<&str> = rows.iter().filter_map(|row| row.label.as_deref()).collect();
        let mut names: Vec<String> = found.into_iter().map(str::to_owned).collect();
        if names.iter().all(|name| name.parse::<u64>().is_ok()) {
            names.sort_by_key(|name| name.parse::<u64>().ok());
        }
        const MOST: usize = 10_000;
        if names.len() > MOST {
            let problem = format!(
                "{} different labels, at most {MOST} are allowed; is data.label_column the right one?",
                names.len()
            );
            return Err(Error::data(path, None, problem));
        }
        if let [only] = &names[..] {
            let problem = format!("one class only, {only:?}; a classifier needs two or more");
            return Err(Error::data(path, None, problem));
        }
        Ok(Self { names })
    }

    /// The class number of each row. A label is a name; where no name is a number, it may be a class number too.
    pub fn number(&self, rows: &[Row]) -> Result<Vec<usize>> {
        let by_name: std::collections::HashMap<&str, usize> =
            self.names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let by_number = self.names.iter().all(|name| name.parse::<u64>().is_err());
        rows.iter()
            .map(|row| {
                let label = row.label.as_deref().ok_or_else(|| row.place.error("no label"))?;
                let named = by_name.get(label).copied();
                let numbered =
                    label.parse().ok().filter(|&i: &usize| by_number && i < self.names.len());
                named.or(numbered).ok_or_else(|| {
                    let number = if by_number {
                        format!(", or 0 to {}", self.names.len() - 1)
                    } else {
                        String::new()
                    };
                    row.place.error(format!("label {label:?}: expected one of {self}{number} (the training data's, or model.label_names)"))
                })
            })
            .collect()
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
