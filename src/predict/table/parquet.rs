//! Tables as Parquet. The columns of Parquet inputs are copied as they are, byte for byte, so that
//! their types, encodings and statistics stay.

use super::answers::{Value, ValueKind};
use super::plan::{InputColumns, Table};
use crate::data::ParquetTable;
use crate::error::{Error, Result};
use crate::files::FileWriter;
use crate::predict::{Input, Prediction};
use parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, Type as PhysicalType};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{
    SerializedColumnWriter, SerializedFileWriter, SerializedRowGroupWriter,
};
use parquet::schema::types::{Type, TypePtr};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

/// Maximum number of rows in a row group.
const MOST_ROWS: usize = 1 << 16;

/// The number of bytes of values after which a row group ends.
const MOST_BYTES: usize = 64 << 20;

/// The entry of a file's metadata with Arrow's schema, which has no columns of predictions. Readers
/// make another from Parquet's schema.
const ARROW_SCHEMA: &str = "ARROW:schema";

/// Writes a table as Parquet.
pub struct ParquetWriter<'a> {
    table: Table,
    file: SerializedFileWriter<&'a mut FileWriter>,
    path: &'a Path,
    /// The columns that are not copied, with the rows that are not written yet.
    columns: Vec<Column>,
    rows: usize,
    /// The row groups to copy, which the predictions are added to; empty if none are copied.
    groups: VecDeque<RowGroup>,
}

/// A row group of a Parquet input.
struct RowGroup {
    /// Number of the file.
    part: usize,
    /// Number in the file.
    group: usize,
    rows: usize,
}

/// Values of a column that are not written yet.
struct Column {
    kind: ValueKind,
    texts: Vec<ByteArray>,
    numbers: Vec<f32>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
    bytes: usize,
}

impl Column {
    fn new(kind: ValueKind) -> Self {
        let (texts, numbers, definition, repetition) = (vec![], vec![], vec![], vec![]);
        Self { kind, texts, numbers, definition, repetition, bytes: 0 }
    }

    fn push_text(&mut self, text: &str) {
        self.bytes += text.len();
        self.texts.push(text.into());
    }

    fn push(&mut self, value: Value<'_>) {
        // Of a list, 1 is an empty one, and 3 an element.
        let level = match value {
            Value::Null => 0,
            Value::Text(text) => {
                self.push_text(&text);
                1
            }
            Value::Number(number) => {
                self.numbers.push(number);
                1
            }
            Value::Texts([]) => 1,
            Value::Texts(texts) => {
                texts.iter().for_each(|text| self.push_text(text));
                self.definition.extend(vec![3; texts.len() - 1]);
                self.repetition.push(0);
                self.repetition.extend(vec![1; texts.len() - 1]);
                self.definition.push(3);
                self.bytes += 8 * texts.len();
                return;
            }
        };
        self.definition.push(level);
        self.repetition.push(0);
        self.bytes += 8;
    }

    /// Writes the values, and forgets them.
    fn write(&mut self, to: &mut SerializedColumnWriter<'_>) -> ParquetResult<()> {
        let (definition, repetition) = (Some(&self.definition[..]), &self.repetition[..]);
        let repetition = Some(repetition).filter(|_| self.kind == ValueKind::Texts);
        match self.kind {
            ValueKind::Number => {
                to.typed::<FloatType>().write_batch(&self.numbers, definition, repetition)?
            }
            _ => to.typed::<ByteArrayType>().write_batch(&self.texts, definition, repetition)?,
        };
        *self = Self::new(self.kind);
        Ok(())
    }

    /// The field of the schema for such a column.
    fn field(name: &str, kind: ValueKind) -> ParquetResult<TypePtr> {
        let text = |name: &str| {
            Type::primitive_type_builder(name, PhysicalType::BYTE_ARRAY)
                .with_repetition(Repetition::OPTIONAL)
                .with_logical_type(Some(LogicalType::String))
                .with_converted_type(ConvertedType::UTF8)
                .build()
        };
        let field = match kind {
            ValueKind::Text => text(name)?,
            ValueKind::Number => Type::primitive_type_builder(name, PhysicalType::FLOAT)
                .with_repetition(Repetition::OPTIONAL)
                .build()?,
            ValueKind::Texts => {
                let entries = Type::group_type_builder("list")
                    .with_repetition(Repetition::REPEATED)
                    .with_fields(vec![text("element")?.into()])
                    .build()?;
                Type::group_type_builder(name)
                    .with_repetition(Repetition::OPTIONAL)
                    .with_logical_type(Some(LogicalType::List))
                    .with_converted_type(ConvertedType::LIST)
                    .with_fields(vec![entries.into()])
                    .build()?
            }
        };
        Ok(field.into())
    }
}

impl<'a> ParquetWriter<'a> {
    /// Begins to write `table` to `file`, which will be at `path`.
    pub fn new(table: Table, file: &'a mut FileWriter, path: &'a Path) -> Result<Self> {
        let copied = copied(&table);
        let (mut fields, mut groups, mut entries) = (vec![], VecDeque::new(), None);
        if let Some((original, left_out)) = &copied {
            let kept = original.fields().iter().zip(*left_out).filter(|(_, out)| !**out);
            fields.extend(kept.map(|(field, _)| field.clone()));
            groups = row_groups(original);
            let first = original.parts().first();
            entries = first.and_then(|part| {
                let entries = part.metadata().file_metadata().key_value_metadata()?;
                Some(entries.iter().filter(|entry| entry.key != ARROW_SCHEMA).cloned().collect())
            });
        }
        let names = table.names();
        let inputs = names.len() - table.answers.len() - fields.len();
        let kinds = vec![ValueKind::Text; inputs].into_iter();
        let kinds: Vec<_> = kinds.chain(table.answers.iter().map(|answer| answer.kind())).collect();
        let added = names.iter().skip(fields.len()).zip(&kinds);
        let added = added.map(|(name, kind)| Column::field(name, *kind));
        let bad = |error| failed(path, error);
        fields.extend(added.collect::<ParquetResult<Vec<_>>>().map_err(bad)?);
        let schema = Type::group_type_builder("schema").with_fields(fields).build().map_err(bad)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(entries as Option<Vec<KeyValue>>)
            .build();
        let file = SerializedFileWriter::new(file, schema.into(), Arc::new(properties));
        let columns = kinds.into_iter().map(Column::new).collect();
        drop((names, copied));
        Ok(Self { table, file: file.map_err(bad)?, path, columns, rows: 0, groups })
    }

    /// Adds the row of the next input.
    pub fn add(&mut self, input: &Input, predictions: &[Prediction]) -> Result<()> {
        let mut columns = self.columns.iter_mut();
        let mut push = |value: Value<'_>| match columns.next() {
            Some(column) => {
                column.push(value);
                Ok(())
            }
            None => Err(Error::Bug("a value without a column".into())),
        };
        if !self.table.copies() {
            self.table.input.row(input, &mut |cell| {
                push(cell.map_or(Value::Null, |cell| Value::Text(cell.into())))
            })?;
        }
        for answer in &self.table.answers {
            push(answer.value(predictions, &self.table.separator))?;
        }
        self.rows += 1;
        let is_full = match self.groups.front() {
            Some(group) => self.rows == group.rows,
            None => {
                let bytes: usize = self.columns.iter().map(|column| column.bytes).sum();
                self.rows >= MOST_ROWS || bytes >= MOST_BYTES
            }
        };
        if is_full { self.write_group() } else { Ok(()) }
    }

    /// Writes the rows that are not written yet as a row group.
    fn write_group(&mut self) -> Result<()> {
        let path = self.path;
        let bad = |error| failed(path, error);
        let mut group = self.file.next_row_group().map_err(bad)?;
        if let (Some(next), Some((original, left_out))) =
            (self.groups.pop_front(), copied(&self.table))
        {
            copy(original, &next, left_out, &mut group, path)?;
        }
        for column in &mut self.columns {
            let Some(mut to) = group.next_column().map_err(bad)? else {
                return Err(Error::Bug("a column that is not in the schema".into()));
            };
            column.write(&mut to).and_then(|()| to.close()).map_err(bad)?;
        }
        group.close().map_err(bad)?;
        self.rows = 0;
        Ok(())
    }

    /// Writes what is not written yet.
    pub fn finish(mut self) -> Result<()> {
        if self.rows > 0 {
            self.write_group()?;
        }
        if !self.groups.is_empty() {
            return Err(Error::Bug("rows of the input without a prediction".into()));
        }
        let path = self.path;
        self.file.close().map(drop).map_err(|error| failed(path, error))
    }
}

/// The Parquet files that the columns of the inputs are copied from, and whether each column is
/// left out; `None` if the columns are from elsewhere.
fn copied(table: &Table) -> Option<(&ParquetTable, &[bool])> {
    match &table.input {
        InputColumns::File { original, left_out } => Some((original.parquet()?, left_out)),
        _ => None,
    }
}

/// The row groups of Parquet files that have rows.
fn row_groups(original: &ParquetTable) -> VecDeque<RowGroup> {
    let mut groups = VecDeque::new();
    for (number, part) in original.parts().iter().enumerate() {
        for (group, about) in part.metadata().row_groups().iter().enumerate() {
            let rows = usize::try_from(about.num_rows()).unwrap_or(0);
            if rows > 0 {
                groups.push_back(RowGroup { part: number, group, rows });
            }
        }
    }
    groups
}

/// Copies the columns of a row group.
fn copy(
    original: &ParquetTable,
    next: &RowGroup,
    left_out: &[bool],
    to: &mut SerializedRowGroupWriter<'_, &mut FileWriter>,
    path: &Path,
) -> Result<()> {
    let Some(part) = original.parts().get(next.part) else { return Ok(()) };
    let (group, schema) =
        (part.metadata().row_group(next.group), part.metadata().file_metadata().schema_descr());
    for (leaf, about) in group.columns().iter().enumerate() {
        if left_out.get(schema.get_column_root_idx(leaf)) == Some(&true) {
            continue;
        }
        let close = ColumnCloseResult {
            bytes_written: about.compressed_size().unsigned_abs(),
            rows_written: next.rows as u64,
            metadata: about.clone(),
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        to.append_column(&part.file, close).map_err(|error| match &error {
            ParquetError::External(source)
                if source.downcast_ref().map(io::Error::kind) != Some(ErrorKind::UnexpectedEof) =>
            {
                failed(path, error)
            }
            _ => Error::data(&part.path, None, format!("not a complete Parquet file: {error}")),
        })?;
    }
    Ok(())
}

/// The error of writing the file `path`.
fn failed(path: &Path, error: ParquetError) -> Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) => Error::io("write", path)(*source),
            Err(other) => Error::file(path, other.to_string()),
        },
        other => Error::file(path, other.to_string()),
    }
}
