//! The columns of Parquet files as they stand, of which the rows were read before.

use super::budget::Budget;
use super::pages::{CheckedRowGroup, StrictFile};
use super::parquet::{ParquetFile, broken, guarded, unreadable};
use super::rows::Cell;
use crate::data::spelling::{listed, quoted};
use crate::error::{Error, Result};
use parquet::basic::{LogicalType, TimeUnit};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::{ReaderIter, TreeBuilder};
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// Parquet files with the same columns, as one table.
pub struct ParquetTable {
    parts: Vec<Part>,
    /// The fields of the schema.
    fields: Vec<TypePtr>,
    /// What the pages may expand to while the rows are read as texts.
    budget: Budget,
    /// The file and the row group that come next.
    next: (usize, usize),
    rows: Option<ReaderIter>,
}

/// A file of a [`ParquetTable`].
pub struct Part {
    /// Path of the file.
    pub path: Arc<Path>,
    /// The file's bytes.
    pub file: StrictFile,
    reader: SerializedFileReader<StrictFile>,
}

impl Part {
    fn new(ParquetFile { path, file }: ParquetFile, budget: &Budget) -> Result<Self> {
        let reader = guarded(&path, || {
            SerializedFileReader::new(file.clone()).map_err(|e| broken(&path, budget, &e))
        })?;
        Ok(Self { path, file, reader })
    }

    /// The metadata of the file.
    pub fn metadata(&self) -> &ParquetMetaData {
        self.reader.metadata()
    }

    fn fields(&self) -> &[TypePtr] {
        self.metadata().file_metadata().schema().get_fields()
    }
}

impl ParquetTable {
    /// The table of `files`, and the names of its columns. Errs if the columns of two files differ.
    pub fn new(files: Vec<ParquetFile>) -> Result<(Self, Vec<String>)> {
        let budget = Budget::of(&files.iter().map(|file| &file.path).collect::<Vec<_>>());
        let parts = files.into_iter().map(|file| Part::new(file, &budget));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let fields = parts.first().map_or(vec![], |part| part.fields().to_vec());
        if let Some(other) = parts.iter().find(|part| part.fields() != fields) {
            let names = |fields: &[TypePtr]| listed(fields.iter().map(|field| field.name()));
            let problem = format!(
                "the columns are {}; expected {}, with the same types, as in the files before it",
                names(other.fields()),
                names(&fields)
            );
            return Err(Error::data(&other.path, None, problem));
        }
        let names = fields.iter().map(|field| field.name().to_owned()).collect();
        Ok((Self { parts, fields, budget, next: (0, 0), rows: None }, names))
    }

    /// The files.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The fields of the schema, which are the columns.
    pub fn fields(&self) -> &[TypePtr] {
        &self.fields
    }

    /// Errs if a column has values that have no text.
    pub fn check_texts(&self) -> Result<()> {
        for field in &self.fields {
            let found = match time_unit(field) {
                Some(_) => None,
                None => without_text(field),
            };
            if let (Some(found), Some(part)) = (found, self.parts.first()) {
                let name = quoted(field.name());
                let problem = format!(
                    "column {name}: found {found}, which have no text in a .csv or .tsv; expected \
                     --output with a .parquet, which keeps such values"
                );
                return Err(Error::data(&part.path, None, problem));
            }
        }
        Ok(())
    }

    /// Goes back to the first row.
    pub fn rewind(&mut self) {
        let paths = self.parts.iter().map(|part| &part.path);
        self.budget = Budget::of(&paths.collect::<Vec<_>>());
        (self.next, self.rows) = ((0, 0), None);
    }

    /// The cells of the next row as texts; `None` at the end.
    pub fn next_row(&mut self) -> Result<Option<Vec<Cell<'_>>>> {
        let (parts, budget) = (&self.parts, &self.budget);
        let (fields, next, rows) = (&self.fields, &mut self.next, &mut self.rows);
        loop {
            let Some(part) = parts.get(next.0) else { return Ok(None) };
            let error = |e: ParquetError| broken(&part.path, budget, &e);
            let row = guarded(&part.path, || match rows {
                Some(rows) => rows.next().transpose().map_err(error),
                None => Ok(None),
            })?;
            if let Some(row) = row {
                let row = row.into_columns();
                let cells = row.iter().zip(fields).map(|((name, value), field)| {
                    text(value, time_unit(field)).map_err(|problem| {
                        Error::data(&part.path, None, format!("column {}: {problem}", quoted(name)))
                    })
                });
                let cells = cells.map(|cell| cell.map(|text| text.map(Into::into)));
                return cells.collect::<Result<_>>().map(Some);
            }
            *rows = None;
            if next.1 == part.reader.num_row_groups() {
                *next = (next.0 + 1, 0);
                continue;
            }
            *rows = guarded(&part.path, || {
                let group = part.reader.get_row_group(next.1).map_err(error)?;
                let schema = group.metadata().schema_descr_ptr();
                let (file, budget) = (part.file.clone(), budget.clone());
                let group = CheckedRowGroup { group, file, budget };
                TreeBuilder::new().as_iter(schema, &group).map(Some).map_err(error)
            })?;
            next.1 += 1;
        }
    }
}

/// Nanoseconds in the unit of a column of dates with a time, and whether they are in UTC; `None`
/// for any other column.
fn time_unit(field: &Type) -> Option<(i64, bool)> {
    match field.get_basic_info().logical_type_ref() {
        Some(LogicalType::Timestamp(about)) if field.is_primitive() => {
            let nanoseconds = match about.unit {
                TimeUnit::MILLIS => 1_000_000,
                TimeUnit::MICROS => 1_000,
                TimeUnit::NANOS => 1,
            };
            Some((nanoseconds, about.is_adjusted_to_u_t_c))
        }
        _ => None,
    }
}

/// A name for values below a field that the library does not read as what they are; `None` if it
/// reads them all.
fn without_text(field: &Type) -> Option<&'static str> {
    match field.is_primitive() {
        true => unreadable(field),
        false => field.get_fields().iter().find_map(|field| without_text(field)),
    }
}

/// A value as text; `None` for a missing value. `unit` is the one of [`time_unit`]. The error is
/// the problem.
fn text(value: &Field, unit: Option<(i64, bool)>) -> std::result::Result<Option<String>, String> {
    Ok(Some(match (value, unit) {
        (Field::Null, _) => return Ok(None),
        (
            Field::Long(time) | Field::TimestampMillis(time) | Field::TimestampMicros(time),
            Some(_),
        ) => {
            let (nanoseconds, utc) = unit.unwrap_or((1, false));
            let zone = if utc { "+00:00" } else { "" };
            moment(*time, nanoseconds) + zone
        }
        (value, _) => match json(value)? {
            Value::String(text) => text,
            other => other.to_string(),
        },
    }))
}

/// A value as JSON: what is not a number, a boolean, a list or an object there is a string.
fn json(value: &Field) -> std::result::Result<Value, String> {
    let float = |number: f64, text: String| match number.is_finite() {
        true => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        false => Value::String(text),
    };
    Ok(match value {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(number) => (*number).into(),
        Field::Short(number) => (*number).into(),
        Field::Int(number) => (*number).into(),
        Field::Long(number) => (*number).into(),
        Field::UByte(number) => (*number).into(),
        Field::UShort(number) => (*number).into(),
        Field::UInt(number) => (*number).into(),
        Field::ULong(number) => (*number).into(),
        Field::Float16(number) => float(number.to_f32().into(), format!("{:?}", number.to_f32())),
        Field::Float(number) => float((*number).into(), format!("{number:?}")),
        Field::Double(number) => float(*number, format!("{number:?}")),
        // The library shows a whole number with a trailing point.
        Field::Decimal(_) => Value::String(value.to_string().trim_end_matches('.').to_owned()),
        Field::Str(text) => Value::String(text.clone()),
        Field::Bytes(bytes) => match bytes.as_utf8() {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => return Err("found bytes that are not UTF-8, which have no text".into()),
        },
        Field::Date(days) => Value::String(date((*days).into())),
        Field::TimestampMillis(time) => Value::String(moment(*time, 1_000_000)),
        Field::TimestampMicros(time) => Value::String(moment(*time, 1_000)),
        Field::TimeMillis(_) | Field::TimeMicros(_) => Value::String(value.to_string()),
        Field::ListInternal(list) => {
            Value::Array(list.elements().iter().map(json).collect::<std::result::Result<_, _>>()?)
        }
        Field::Group(row) => {
            let fields =
                row.get_column_iter().map(|(name, value)| Ok((name.clone(), json(value)?)));
            Value::Object(fields.collect::<std::result::Result<Map<_, _>, String>>()?)
        }
        Field::MapInternal(map) => {
            let entries = map
                .entries()
                .iter()
                .map(|(key, value)| Ok((text(key, None)?.unwrap_or_default(), json(value)?)));
            Value::Object(entries.collect::<std::result::Result<Map<_, _>, String>>()?)
        }
    })
}

/// A time since 1970 in units of `nanoseconds`, as date and time.
fn moment(time: i64, nanoseconds: i64) -> String {
    const DAY: i128 = 86_400_000_000_000;
    let time = i128::from(time) * i128::from(nanoseconds);
    let (days, rest) = (time.div_euclid(DAY), time.rem_euclid(DAY));
    let (seconds, fraction) = (rest / 1_000_000_000, rest % 1_000_000_000);
    let [hours, minutes, seconds] = [seconds / 3600, seconds / 60 % 60, seconds % 60];
    let fraction = format!(".{fraction:09}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let date = date(i64::try_from(days).unwrap_or_default());
    format!("{date} {hours:02}:{minutes:02}:{seconds:02}{fraction}")
}

/// A number of days since 1970 as a date of the Gregorian calendar.
fn date(days: i64) -> String {
    // Years begin in March here, so that a leap day is the last of its year. 400 years, an era,
    // have 146,097 days; day 0 of the first era is the 1st of March of the year 0.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{of_month:02}", era * 400 + year + next)
}
