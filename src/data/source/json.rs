//! JSON: one object per line, or one array of objects.

use super::rows::{CellValue, Columns, RowCollector, RowOrigin};
use crate::data::spelling::{listed, quoted};
use crate::error::{self, Error};
use serde::Deserializer as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Reads one object per line. Skips blank lines.
pub fn read_lines(path: &Path, text: &str, rows: &mut RowCollector<'_>) -> error::Result<()> {
    let file: Arc<Path> = path.into();
    let wanted = Wanted::new(rows.columns);
    for (i, line) in text.lines().enumerate() {
        if !line.trim().is_empty() {
            let place = RowOrigin { path: file.clone(), line: Some(i + 1) };
            rows.add(wanted.cells(line, &place), None, place)?;
        }
    }
    Ok(())
}

/// Reads one array of objects, or one object per line, as pandas' `to_json` with `lines=True` and
/// Hugging Face's `datasets` write it.
pub fn read(path: &Path, text: &str, rows: &mut RowCollector<'_>) -> error::Result<()> {
    let first = text.trim_start().lines().next().unwrap_or_default().trim_end();
    if !first.starts_with('[') {
        // No line of an object that spans several lines is an object.
        let is_object = |line: &str| {
            line.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(line).is_ok()
        };
        if first.starts_with('{') && !text.lines().any(is_object) {
            let problem = "expected one array of JSON objects, or one JSON object per line";
            return Err(Error::data(path, None, problem));
        }
        return read_lines(path, text, rows);
    }
    let wanted = Wanted::new(rows.columns);
    let mut elements =
        Elements { path: path.into(), text, line: 1, counted: 0, failed: None, wanted, rows };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_seq(&mut elements).and_then(|()| deserializer.end());
    match (elements.failed, read) {
        (Some(error), _) => Err(error),
        (None, Err(e)) => Err(Error::data(path, e.line(), not_json(&e))),
        (None, Ok(())) => Ok(()),
    }
}

/// Adds the elements of an array to `rows`, one by one.
struct Elements<'a, 'r, 't> {
    path: Arc<Path>,
    text: &'t str,
    /// The line of the byte `counted`.
    line: usize,
    counted: usize,
    /// The error of the row at which reading stopped.
    failed: Option<Error>,
    wanted: Wanted<'a>,
    rows: &'r mut RowCollector<'a>,
}

impl<'de> Visitor<'de> for &mut Elements<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(element) = array.next_element::<&RawValue>()? {
            let start = (element.get().as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
            let passed = self.text.get(self.counted..start).unwrap_or_default();
            self.line += passed.bytes().filter(|byte| *byte == b'\n').count();
            self.counted = start;
            let place = RowOrigin { path: self.path.clone(), line: Some(self.line) };
            let cells = self.wanted.cells(element.get(), &place);
            if let Err(error) = self.rows.add(cells, None, place) {
                self.failed = Some(error);
                return Err(A::Error::custom("a row was refused"));
            }
        }
        Ok(())
    }
}

/// The configured fields.
struct Wanted<'a> {
    /// Key and name of each field, in the order of `Columns::named`.
    names: Vec<(&'static str, &'a str)>,
    /// Indices in `names`, by name.
    by_name: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Wanted<'a> {
    fn new(columns: &'a Columns) -> Self {
        let names = columns.named();
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, (_, name)) in names.iter().enumerate() {
            by_name.entry(name).or_default().push(i);
        }
        Self { names, by_name }
    }

    /// The values of the configured fields of an object. Errs if one is missing or repeated.
    fn cells(&self, object: &str, place: &RowOrigin) -> error::Result<Vec<CellValue>> {
        let mut deserializer = serde_json::Deserializer::from_str(object);
        let found = deserializer.deserialize_map(FieldVisitor(self));
        let found = found.and_then(|found| deserializer.end().map(|()| found));
        let FoundFields { values, there, twice } = found.map_err(|e| match e.is_data() {
            true => place.error("not a JSON object"),
            false => place.error(not_json(&e)),
        })?;
        if let Some((key, name)) = twice.and_then(|i| self.names.get(i)) {
            return Err(place.error(format!("more than one field {} ({key})", quoted(name))));
        }
        let cell = |(value, (key, name)): (Option<&RawValue>, &(&str, &str))| match value {
            Some(value) => cell(value).map_err(|e| place.error(not_json(&e))),
            None => {
                let there = match listed(there.iter().map(String::as_str)) {
                    there if there.is_empty() => "the object is empty".into(),
                    there => format!("the object has {there}"),
                };
                Err(place.error(format!("no field {} ({key}); {there}", quoted(name))))
            }
        };
        values.into_iter().zip(&self.names).map(cell).collect()
    }
}

/// The parser's message without its line and column, which count from the start of the value
/// instead of the file's.
fn not_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    format!("not JSON: {}", text.strip_suffix(&place).unwrap_or(&text))
}

/// A visitor that finds the configured fields of an object.
struct FieldVisitor<'a>(&'a Wanted<'a>);

/// The fields found in an object.
struct FoundFields<'de> {
    /// Values of the configured fields.
    values: Vec<Option<&'de RawValue>>,
    /// Names of the object's first fields.
    there: Vec<String>,
    /// Index of a configured field that is there more than once.
    twice: Option<usize>,
}

impl<'de> Visitor<'de> for FieldVisitor<'_> {
    type Value = FoundFields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        // More than a message shows, so that its list ends in dots.
        const MOST: usize = 30;
        let (mut values, mut there, mut twice) = (vec![None; self.0.names.len()], vec![], None);
        while let Some(name) = object.next_key::<String>()? {
            if let Some(wanted) = self.0.by_name.get(name.as_str()) {
                let value = object.next_value::<&RawValue>()?;
                for &i in wanted {
                    if values.get_mut(i).is_some_and(|slot| slot.replace(value).is_some()) {
                        twice = Some(i);
                    }
                }
            } else {
                object.next_value::<IgnoredAny>()?;
            }
            if there.len() < MOST {
                there.push(name);
            }
        }
        Ok(FoundFields { values, there, twice })
    }
}

fn cell(value: &RawValue) -> serde_json::Result<CellValue> {
    // In memory the elements take many times as much.
    const MOST: usize = 1 << 20;
    let written = value.get();
    if written.starts_with('"') {
        return Ok(CellValue::Text(serde_json::from_str(written)?));
    }
    if written.len() > MOST {
        return Ok(CellValue::Other(format!("a value of {} bytes", written.len())));
    }
    Ok(match written.as_bytes().first() {
        Some(b'n') => CellValue::Null,
        Some(b'[') => {
            let values: Vec<&RawValue> = serde_json::from_str(written)?;
            let texts = values.into_iter().map(simple);
            let texts = texts.collect::<serde_json::Result<Option<Vec<String>>>>()?;
            texts.map_or_else(|| CellValue::Other(written.to_owned()), CellValue::Texts)
        }
        _ => simple(value)?.map_or_else(|| CellValue::Other(written.to_owned()), CellValue::Text),
    })
}

/// A string, number or boolean as text; `None` for an array, an object or null.
fn simple(value: &RawValue) -> serde_json::Result<Option<String>> {
    let written = value.get();
    Ok(match written.as_bytes().first() {
        Some(b'"') => Some(serde_json::from_str(written)?),
        Some(b't' | b'f') => Some(written.to_owned()),
        Some(b'-' | b'0'..=b'9') => Some(number(written)?),
        _ => None,
    })
}

/// A number as a label. An integer keeps all its digits, and `1.0` is the class 1, as in other
/// formats.
fn number(written: &str) -> serde_json::Result<String> {
    if !written.contains(['.', 'e', 'E']) && written != "-0" {
        return Ok(written.to_owned());
    }
    let number: serde_json::Number = serde_json::from_str(written)?;
    let whole = number.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < 1e15);
    // Adding 0.0 makes a negative zero positive.
    Ok(whole.map_or_else(|| number.to_string(), |x| format!("{:.0}", x + 0.0)))
}
