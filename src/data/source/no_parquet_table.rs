//! The columns of Parquet files in a build without the feature `parquet`, which reads none.

use super::parquet::ParquetFile;
use super::rows::Cell;
use crate::error::Result;

/// Parquet files that were read, of which there are none.
pub enum ParquetTable {}

impl ParquetTable {
    /// The table of `files`.
    pub fn new(files: Vec<ParquetFile>) -> Result<(Self, Vec<String>)> {
        match files.into_iter().next() {
            Some(file) => match file {},
            None => Err(crate::error::Error::Bug("a table of no files".into())),
        }
    }

    /// Checks nothing: there is no table.
    pub fn check_texts(&self) -> Result<()> {
        match *self {}
    }

    /// Goes back to the first row.
    pub fn rewind(&mut self) {
        match *self {}
    }

    /// The next row.
    pub fn next_row(&mut self) -> Result<Option<Vec<Cell<'_>>>> {
        match *self {}
    }
}
