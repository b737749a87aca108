//! Tables of predictions: the columns of the input, then those of the predictions, as CSV, TSV or
//! Parquet.
//!
//! The files in reading order; each imports only from those before it: `answers`, `plan`,
//! `delimited`, `parquet`.

mod answers;
mod delimited;
#[cfg_attr(not(feature = "parquet"), path = "no_parquet.rs")]
mod parquet;
mod plan;

pub use answers::{Asking, Extent};
pub use plan::{InputColumns, Table, TableFormat, TableOptions};

use super::{Input, Prediction};
use crate::error::Result;
use crate::files::FileWriter;
use delimited::DelimitedWriter;
use parquet::ParquetWriter;
use std::path::Path;

/// Writes the rows of a [`Table`] to a file.
pub enum TableWriter<'a> {
    /// As CSV or TSV.
    Delimited(Box<DelimitedWriter<'a>>),
    /// As Parquet.
    Parquet(Box<ParquetWriter<'a>>),
}

impl<'a> TableWriter<'a> {
    /// Begins to write `table` to `file`, which will be at `path`.
    pub fn new(table: Table, file: &'a mut FileWriter, path: &'a Path) -> Result<Self> {
        Ok(match table.format {
            TableFormat::Parquet => Self::Parquet(ParquetWriter::new(table, file, path)?.into()),
            _ => Self::Delimited(DelimitedWriter::new(table, file).into()),
        })
    }

    /// Adds the row of the next input.
    pub fn add(&mut self, input: &Input, predictions: &[Prediction]) -> Result<()> {
        match self {
            Self::Delimited(writer) => writer.add(input, predictions),
            Self::Parquet(writer) => writer.add(input, predictions),
        }
    }

    /// Writes what is not written yet.
    pub fn finish(self) -> Result<()> {
        match self {
            Self::Delimited(writer) => writer.finish(),
            Self::Parquet(writer) => writer.finish(),
        }
    }
}
