//! Parquet, the format of data sets on the Hugging Face Hub: columns of strings, numbers, or lists
//! of them.

use super::budget::{Budget, ROW};
use super::pages::{CheckedRowGroup, StrictFile};
use super::rows::{CellValue, Columns, LabelColumns, RowCollector, RowOrigin};
use crate::data::spelling::{listed, quoted};
use crate::error::{Error, Result};
use crate::files::open_regular;
use parquet::basic::{ConvertedType, LogicalType};
use parquet::errors::ParquetError;
use parquet::file::metadata::FileMetaData;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::{Type, TypePtr};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

/// A Parquet file that was read and is still open.
pub struct ParquetFile {
    /// Path of the file.
    pub path: Arc<Path>,
    /// The open file.
    pub file: StrictFile,
}

/// Reads only the configured columns into `rows`. Returns the names of the classes if the file's
/// metadata has them, and the open file.
pub fn read(
    path: &Path,
    rows: &mut RowCollector<'_>,
    budget: &Budget,
) -> Result<(Option<Vec<String>>, ParquetFile)> {
    guarded(path, || read_rows(path, rows, budget))
}

/// Calls `read`, which reads the file `path`.
///
/// The library panics on some damaged files, which becomes an error here. The panic's own message
/// is printed by the process's panic hook; see [`silence_panics`].
pub fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = READING.replace(true);
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    READING.set(before);
    read.unwrap_or_else(|_| {
        Err(Error::data(path, None, "not a complete Parquet file: it is damaged"))
    })
}

thread_local! {
    /// Whether this thread reads a Parquet file.
    static READING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Replaces the panic hook of the process by one that prints nothing for a panic of the Parquet
/// library, because [`guarded`] returns an error for it. Any other panic goes to the hook of
/// before.
///
/// For programs: the rest of this library never touches the panic hook.
pub fn silence_panics() {
    let other = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |about| {
        if !READING.get() {
            other(about);
        }
    }));
}

fn read_rows(
    path: &Path,
    rows: &mut RowCollector<'_>,
    budget: &Budget,
) -> Result<(Option<Vec<String>>, ParquetFile)> {
    let (file, _) = open_regular(path)?;
    let broken = |e: ParquetError| broken(path, budget, &e);
    let file = StrictFile::new(file);
    let reader = SerializedFileReader::new(file.clone()).map_err(broken)?;
    let count = reader.metadata().row_groups().iter().map(|group| group.num_rows().unsigned_abs());
    // A page that repeats one text can declare any number of rows in a few bytes.
    if count.fold(0, u64::saturating_add).saturating_mul(ROW) > budget.left() {
        return Err(budget.exceeded(path));
    }
    let metadata = reader.metadata().file_metadata();
    let schema = metadata.schema();
    let (fields, positions) = select(path, schema, rows.columns)?;
    let projection =
        Type::group_type_builder(schema.name()).with_fields(fields).build().map_err(broken)?;
    let classes = match &rows.columns.labels {
        LabelColumns::One { name, .. } | LabelColumns::Task(name) => class_names(metadata, name),
        _ => None,
    };
    rows.longest_name = classes.iter().flatten().map(String::len).max().unwrap_or(0) as u64;
    let distinct = classes.iter().flatten().collect::<BTreeSet<_>>().len();
    if classes.as_ref().is_some_and(|classes| distinct < classes.len()) {
        return Err(Error::data(path, None, "the metadata has one name for several classes"));
    }
    let (shared, mut line): (Arc<Path>, _) = (path.into(), 0);
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(broken)?;
        let group = CheckedRowGroup { group, file: file.clone(), budget: budget.clone() };
        for row in group.get_row_iter(Some(projection.clone())).map_err(broken)? {
            let row = row.map_err(broken)?.into_columns();
            line += 1;
            let place = RowOrigin { path: shared.clone(), line: Some(line) };
            let cell = |&i: &usize| row.get(i).map_or(CellValue::Null, |(_, field)| cell(field));
            let cells = positions.iter().map(cell).collect();
            rows.add(Ok(cells), classes.as_deref(), place)?;
        }
    }
    Ok((classes, ParquetFile { path: shared, file }))
}

/// The error for a file that the library refused.
pub fn broken(path: &Path, budget: &Budget, error: &ParquetError) -> Error {
    match budget.is_exceeded() {
        true => budget.exceeded(path),
        false => Error::data(path, None, format!("not a complete Parquet file: {error}")),
    }
}

/// The fields of the schema to read, each once; and for each of the `columns`, in the order of
/// `Columns::named`, the position of its field among them. Errs if a column is missing, or if its
/// values are neither texts nor labels.
fn select(path: &Path, schema: &Type, columns: &Columns) -> Result<(Vec<TypePtr>, Vec<usize>)> {
    let error = |problem: String| Error::data(path, None, problem);
    let mut by_name: HashMap<&str, Vec<&TypePtr>> = HashMap::new();
    for field in schema.get_fields() {
        by_name.entry(field.name()).or_default().push(field);
    }
    let (mut fields, mut positions) = (vec![], vec![]);
    let mut selected: HashMap<&str, usize> = HashMap::new();
    for (key, name) in columns.named() {
        let found = by_name.get(name).map_or(&[][..], Vec::as_slice);
        let [field] = found else {
            let what = if found.is_empty() { "no" } else { "more than one" };
            let there = listed(schema.get_fields().iter().map(|field| field.name()));
            let name = quoted(name);
            return Err(error(format!("{what} column {name} ({key}); the schema has {there}")));
        };
        let found = match values(field) {
            None => Some("a group"),
            Some(values) => unreadable(&values),
        };
        if let Some(found) = found {
            let expected = if key.starts_with("label") { "a label" } else { "a text" };
            let problem = format!("column {name:?} ({key}): found {found}, expected {expected}");
            return Err(error(problem));
        }
        positions.push(*selected.entry(name).or_insert_with(|| {
            fields.push((*field).clone());
            fields.len() - 1
        }));
    }
    Ok((fields, positions))
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
pub fn unreadable(values: &Type) -> Option<&'static str> {
    let about = values.get_basic_info();
    match about.logical_type_ref() {
        _ if about.converted_type() != ConvertedType::NONE => None,
        None | Some(LogicalType::Float16 | LogicalType::Unknown) => None,
        Some(LogicalType::Timestamp(_)) => Some("dates with a time"),
        Some(LogicalType::Time(_)) => Some("times"),
        Some(LogicalType::Uuid) => Some("UUIDs"),
        Some(_) => Some("values that are neither text nor numbers"),
    }
}

fn cell(field: &Field) -> CellValue {
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
            CellValue::Null
        } else {
            CellValue::Text(text)
        };
    }
    match field {
        Field::Null => CellValue::Null,
        Field::ListInternal(list) => {
            let texts = list.elements().iter().map(simple).collect::<Option<Vec<_>>>();
            texts.map_or_else(
                || CellValue::Other(format!("a list of {} elements", list.len())),
                CellValue::Texts,
            )
        }
        Field::Bytes(bytes) => {
            CellValue::Other(format!("{} bytes that are not UTF-8", bytes.len()))
        }
        _ => CellValue::Other(field.to_string()),
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
