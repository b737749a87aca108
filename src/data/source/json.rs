//! JSON: an object a line, or one array of objects.

use super::{Cell, Place, Rows, listed, quoted};
use crate::error::{self, Error};
use serde::Deserializer as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// An object a line.
pub fn read_lines(path: &Path, text: &str, rows: &mut Rows<'_>) -> error::Result<()> {
    let file: Arc<Path> = path.into();
    for (i, line) in text.lines().enumerate() {
        if !line.trim().is_empty() {
            let place = Place { path: file.clone(), line: Some(i + 1) };
            rows.add(fields(line, &place, rows), None, place)?;
        }
    }
    Ok(())
}

/// One array of objects; or an object a line, as `to_json` of pandas with `lines=True` and of Hugging Face's data sets writes them.
pub fn read(path: &Path, text: &str, rows: &mut Rows<'_>) -> error::Result<()> {
    let first = text.trim_start().lines().next().unwrap_or_default().trim_end();
    if !first.starts_with('[') {
        // Of an object of several lines, the first is none.
        if first.starts_with('{') && serde_json::from_str::<IgnoredAny>(first).is_err() {
            let problem = "not one array of JSON objects, and not an object a line";
            return Err(Error::data(path, None, problem));
        }
        return read_lines(path, text, rows);
    }
    let mut elements =
        Elements { path: path.into(), text, line: 1, counted: 0, failed: None, rows };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_seq(&mut elements).and_then(|()| deserializer.end());
    match (elements.failed, read) {
        (Some(error), _) => Err(error),
        (None, Err(e)) => Err(Error::data(path, e.line(), format!("not JSON: {e}"))),
        (None, Ok(())) => Ok(()),
    }
}

/// Takes the elements of an array as rows, one after the other.
struct Elements<'a, 'r, 't> {
    path: Arc<Path>,
    text: &'t str,
    /// The line of the byte `counted`.
    line: usize,
    counted: usize,
    /// Why it stopped.
    failed: Option<Error>,
    rows: &'r mut Rows<'a>,
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
            let place = Place { path: self.path.clone(), line: Some(self.line) };
            let cells = fields(element.get(), &place, self.rows);
            if let Err(error) = self.rows.add(cells, None, place) {
                self.failed = Some(error);
                return Err(A::Error::custom("a row was refused"));
            }
        }
        Ok(())
    }
}

/// The fields of an object that are read.
fn fields(object: &str, place: &Place, rows: &Rows<'_>) -> error::Result<Vec<Cell>> {
    let names = rows.columns.named();
    let mut deserializer = serde_json::Deserializer::from_str(object);
    let found = deserializer.deserialize_map(Fields(&names));
    let found = found.and_then(|found| deserializer.end().map(|()| found));
    let (values, there) = found.map_err(|e| match e.is_data() {
        true => place.error("not a JSON object"),
        false => place.error(format!("not JSON: {e}")),
    })?;
    let cell = |(value, (key, name)): (Option<&RawValue>, &(&str, &str))| match value {
        Some(value) => cell(value).map_err(|e| place.error(format!("not JSON: {e}"))),
        None => {
            let there = match listed(there.iter().map(String::as_str)) {
                there if there.is_empty() => "the object is empty".into(),
                there => format!("there are {there}"),
            };
            Err(place.error(format!("no field {} ({key}); {there}", quoted(name))))
        }
    };
    values.into_iter().zip(&names).map(cell).collect()
}

/// Finds the fields of an object that are named, and the names of its first fields.
struct Fields<'a>(&'a [(&'a str, &'a str)]);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = (Vec<Option<&'de RawValue>>, Vec<String>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        // More than a message shows, so that it ends in dots.
        const MOST: usize = 30;
        let (mut values, mut there) = (vec![None; self.0.len()], vec![]);
        while let Some(name) = object.next_key::<String>()? {
            if self.0.iter().any(|(_, wanted)| *wanted == name) {
                let value = object.next_value::<&RawValue>()?;
                for (slot, _) in values.iter_mut().zip(self.0).filter(|(_, (_, n))| *n == name) {
                    *slot = Some(value);
                }
            } else {
                object.next_value::<IgnoredAny>()?;
            }
            if there.len() < MOST {
                there.push(name);
            }
        }
        Ok((values, there))
    }
}

fn cell(value: &RawValue) -> serde_json::Result<Cell> {
    // Its elements would take many times as much.
    const MOST: usize = 1 << 20;
    let written = value.get();
    if written.starts_with('"') {
        return Ok(Cell::Text(serde_json::from_str(written)?));
    }
    if written.len() > MOST {
        return Ok(Cell::Other(format!("a value of {} bytes", written.len())));
    }
    let value: Value = serde_json::from_str(written)?;
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
    Ok(match (simple(&value), &value) {
        (Some(text), _) => Cell::Text(text),
        (_, Value::Null) => Cell::Null,
        (_, Value::Array(values)) => {
            several(values).map_or(Cell::Other(value.to_string()), Cell::Texts)
        }
        _ => Cell::Other(value.to_string()),
    })
}
