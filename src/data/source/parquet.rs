//! Parquet, the format of data sets on the Hugging Face Hub: columns of strings, numbers, or lists
//! of them.

use super::budget::{Budget, ROW};
use super::pages::{Checked, Endless};
use super::{Cell, LabelColumns, Place, Rows, listed, quoted};
use crate::error::{Error, Result};
use crate::files::open_regular;
use parquet::basic::{ConvertedType, LogicalType};
use parquet::errors::ParquetError;
use parquet::file::metadata::FileMetaData;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::{Type, TypePtr};
use serde_json::Value;
use std::path::Path;
use std::sync::{Arc, Once};

/// Reads only the configured columns into `rows`. Returns the names of the classes if the file's
/// metadata has them.
pub fn read(path: &Path, rows: &mut Rows<'_>, budget: &Budget) -> Result<Option<Vec<String>>> {
    // The library panics on some damaged files. Its message is hidden, because the error below says
    // what the user needs to know.
    hide_own_panics();
    READING.set(true);
    let read =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read_rows(path, rows, budget)));
    READING.set(false);
    read.unwrap_or_else(|_| Err(Error::data(path, None, "not a whole Parquet file: it is damaged")))
}

thread_local! {
    /// Whether this thread reads a Parquet file.
    static READING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// From now on, a panic while [`READING`] prints nothing; any other does what it did before.
fn hide_own_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let other = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |about| {
            if !READING.get() {
                other(about);
            }
        }));
    });
}

fn read_rows(path: &Path, rows: &mut Rows<'_>, budget: &Budget) -> Result<Option<Vec<String>>> {
    let (file, _) = open_regular(path)?;
    let broken = |e: ParquetError| match budget.is_exceeded() {
        true => budget.exceeded(path),
        false => Error::data(path, None, format!("not a whole Parquet file: {e}")),
    };
    let file = Endless::new(file);
    let reader = SerializedFileReader::new(file.clone()).map_err(broken)?;
    let count = reader.metadata().row_groups().iter().map(|group| group.num_rows().unsigned_abs());
    // A page that repeats one text can declare any number of rows in a few bytes.
    if count.fold(0, u64::saturating_add).saturating_mul(ROW) > budget.left() {
        return Err(budget.exceeded(path));
    }
    let metadata = reader.metadata().file_metadata();
    let schema = metadata.schema();
    let names = rows.columns.named();
    let mut fields = vec![];
    for (key, name) in &names {
        let mut found = schema.get_fields().iter().filter(|field| field.name() == *name);
        let (Some(field), None) = (found.next(), found.next()) else {
            let there: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
            let what = if there.contains(name) { "more than one" } else { "no" };
            let (name, there) = (quoted(name), listed(there.into_iter()));
            let problem = format!("{what} column {name} ({key}); the schema has {there}");
            return Err(Error::data(path, None, problem));
        };
        let found = match values(field) {
            None => Some("a group"),
            Some(values) => unreadable(&values),
        };
        if let Some(found) = found {
            let expected = if key.starts_with("label") { "a label" } else { "a text" };
            let problem = format!("column {name:?} ({key}): found {found}, expected {expected}");
            return Err(Error::data(path, None, problem));
        }
        if !fields.contains(field) {
            fields.push(field.clone());
        }
    }
    let projection =
        Type::group_type_builder(schema.name()).with_fields(fields).build().map_err(broken)?;
    let classes = match &rows.columns.labels {
        LabelColumns::One { name, .. } => class_names(metadata, name),
        _ => None,
    };
    rows.longest_name = classes.iter().flatten().map(String::len).max().unwrap_or(0) as u64;
    let distinct = classes.iter().flatten().collect::<std::collections::BTreeSet<_>>().len();
    if classes.as_ref().is_some_and(|classes| distinct < classes.len()) {
        return Err(Error::data(path, None, "its metadata has one name for several classes"));
    }
    let (shared, mut line): (Arc<Path>, _) = (path.into(), 0);
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(broken)?;
        let group = Checked { group, file: file.clone(), budget: budget.clone() };
        for row in group.get_row_iter(Some(projection.clone())).map_err(broken)? {
            let row = row.map_err(broken)?.into_columns();
            line += 1;
            let place = Place { path: shared.clone(), line: Some(line) };
            let cell = |(_, name): &(&str, &str)| {
                let field = row.iter().find(|(column, _)| column == name);
                field.map_or(Cell::Null, |(_, field)| cell(field))
            };
            let cells = names.iter().map(cell).collect();
            rows.add(Ok(cells), classes.as_deref(), place)?;
        }
    }
    Ok(classes)
}

/// The type of a column's values, or of the values in its lists; `None` for any other column.
fn values(field: &TypePtr) -> Option<TypePtr> {
    let only = |group: &TypePtr| match group.is_group().then(|| group.get_fields()) {
        Some([only]) => Some(only.clone()),
        _ => None,
    };
    if field.is_primitive() {
        return Some(field.clone());
    }
    if field.get_basic_info().converted_type() != ConvertedType::LIST {
        return None;
    }
    // A list holds a repeated group that holds the value. Older writers leave the group out.
    let repeated = only(field)?;
    let value = if repeated.is_primitive() { repeated } else { only(&repeated)? };
    value.is_primitive().then_some(value)
}

/// A name for values that the library would return as numbers or bytes because it uses the older
/// `ConvertedType`, which cannot express their type; `None` if they can be read.
fn unreadable(values: &Type) -> Option<&'static str> {
    let about = values.get_basic_info();
    match about.logical_type_ref() {
        _ if about.converted_type() != ConvertedType::NONE => None,
        None | Some(LogicalType::Float16 | LogicalType::Unknown) => None,
        Some(LogicalType::Timestamp(_)) => Some("dates with a time"),
        Some(LogicalType::Time(_)) => Some("times"),
        Some(LogicalType::Uuid) => Some("UUIDs"),
        Some(_) => Some("what is no text and no number"),
    }
}

fn cell(field: &Field) -> Cell {
    let simple = |field: &Field| match field {
        Field::Str(text) => Some(text.clone()),
        Field::Bytes(bytes) => bytes.as_utf8().ok().map(str::to_owned),
        Field::Bool(_)
        | Field::Byte(_)
        | Field::Short(_)
        | Field::Int(_)
        | Field::Long(_)
        | Field::UByte(_)
        | Field::UShort(_)
        | Field::UInt(_)
        | Field::ULong(_) => Some(field.to_string()),
        // The label 1.00 is the class 1. `Field` shows a whole number with a trailing point.
        Field::Decimal(_) => {
            let text = field.to_string();
            let whole = text.split_once('.').filter(|(_, rest)| rest.bytes().all(|b| b == b'0'));
            Some(whole.map(|(whole, _)| whole.to_owned()).unwrap_or(text))
        }
        // `Field` would cut floats or show powers of ten. Adding 0.0 makes a negative zero
        // positive.
        Field::Float16(number) => Some((number.to_f32() + 0.0).to_string()),
        Field::Float(number) => Some((number + 0.0).to_string()),
        Field::Double(number) => Some((number + 0.0).to_string()),
        _ => None,
    };
    // pandas writes NaN for a missing value.
    if let Some(text) = simple(field) {
        return if text == "NaN" && !matches!(field, Field::Str(_)) {
            Cell::Null
        } else {
            Cell::Text(text)
        };
    }
    match field {
        Field::Null => Cell::Null,
        Field::ListInternal(list) => {
            let texts = list.elements().iter().map(simple).collect::<Option<Vec<_>>>();
            texts.map_or_else(
                || Cell::Other(format!("a list of {} elements", list.len())),
                Cell::Texts,
            )
        }
        Field::Bytes(bytes) => Cell::Other(format!("{} bytes that are not UTF-8", bytes.len())),
        _ => Cell::Other(field.to_string()),
    }
}

/// The names of the classes from Hugging Face's `ClassLabel` in the file's metadata, whose values
/// are class numbers; `None` if there is none.
fn class_names(metadata: &FileMetaData, column: &str) -> Option<Vec<String>> {
    let entries = metadata.key_value_metadata()?;
    let text = entries.iter().find(|entry| entry.key == "huggingface")?.value.as_deref()?;
    let value: Value = serde_json::from_str(text).ok()?;
    let feature = value.pointer("/info/features")?.get(column)?;
    // For a list of labels, the names are in the feature of its elements.
    let element = feature.get("feature").or_else(|| feature.get(0)).unwrap_or(feature);
    serde_json::from_value(element.get("names")?.clone()).ok()
}
