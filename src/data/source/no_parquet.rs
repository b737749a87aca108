//! Parquet in a build without the feature `parquet`: names the feature.

use super::budget::Budget;
use super::rows::RowCollector;
use crate::error::{Error, Result};
use std::path::Path;

/// A Parquet file that was read, of which there are none.
pub enum ParquetFile {}

/// Errs, and names the feature.
pub fn read(
    path: &Path,
    _: &mut RowCollector<'_>,
    _: &Budget,
) -> Result<(Option<Vec<String>>, ParquetFile)> {
    let what = path.display().to_string();
    Err(Error::Lacks { what, feature: "parquet", instead: "a .csv, .tsv, .jsonl or .json" })
}

/// Does nothing: there is no Parquet library that could panic.
pub fn silence_panics() {}
