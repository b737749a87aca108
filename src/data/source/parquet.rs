//! Parquet, as the Hugging Face Hub keeps data sets: columns of strings, numbers, or lists of them.

use super::{Cell, LabelColumns, Place, Rows};
use crate::error::{Error, Result};
use parquet::errors::ParquetError;
use parquet::file::metadata::FileMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Reads the columns that are named, and no others.
pub fn read(path: &Path, rows: &mut Rows<'_>) -> Result<()> {
    let broken =
        |e: ParquetError| Error::data(path, None, format!("not a whole Parquet file: {e}"));
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    let metadata = reader.metadata().file_metadata();
    let schema = metadata.schema();
    let names = rows.columns.named();
    let mut fields = vec![];
    for (key, name) in &names {
        let Some(field) = schema.get_fields().iter().find(|field| field.name() == *name) else {
            let there: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
            let there = there.join(", ");
            let problem = format!("no column {name:?} ({key}); the schema has {there}");
            return Err(Error::data(path, None, problem));
        };
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
    let file: Arc<Path> = path.into();
    for (i, row) in reader.get_row_iter(Some(projection)).map_err(broken)?.enumerate() {
        let row = row.map_err(broken)?.into_columns();
        let place = Place { path: file.clone(), line: Some(i + 1) };
        let cell = |(key, name): &(&str, &str)| {
            let field = row.iter().find(|(column, _)| column == name).map(|(_, field)| field);
            let cell = field.map_or(Cell::Null, cell);
            if *key == "label_column" { named(cell, classes.as_deref()) } else { cell }
        };
        let cells = names.iter().map(cell).collect();
        let row = rows.columns.row(cells, place);
        rows.take(row)?;
    }
    Ok(())
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
        // Not as `Field` shows them, which is cut or in powers of ten.
        Field::Float(number) => Some(number.to_string()),
        Field::Double(number) => Some(number.to_string()),
        _ => None,
    };
    if let Some(text) = simple(field) {
        return Cell::Text(text);
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
        _ => Cell::Other(field.to_string()),
    }
}

/// The names of the classes where the file says them: Hugging Face's `ClassLabel`, whose values are their numbers.
fn class_names(metadata: &FileMetaData, column: &str) -> Option<Vec<String>> {
    let entries = metadata.key_value_metadata()?;
    let text = entries.iter().find(|entry| entry.key == "huggingface")?.value.as_deref()?;
    let value: Value = serde_json::from_str(text).ok()?;
    let feature = value.pointer("/info/features")?.get(column)?;
    // Of a list of labels, its element's.
    let element = feature.get("feature").or_else(|| feature.get(0)).unwrap_or(feature);
    serde_json::from_value(element.get("names")?.clone()).ok()
}

/// Class numbers by their names; -1, with which the Hub marks rows without a label, is none.
fn named(cell: Cell, classes: Option<&[String]>) -> Cell {
    let Some(classes) = classes else { return cell };
    let name = |number: &String| {
        number.parse().ok().and_then(|i: usize| classes.get(i)).unwrap_or(number).clone()
    };
    match cell {
        Cell::Text(number) if number == "-1" => Cell::Null,
        Cell::Text(number) => Cell::Text(name(&number)),
        Cell::Texts(numbers) => Cell::Texts(numbers.iter().map(name).collect()),
        other => other,
    }
}
