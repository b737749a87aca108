//! Rows from a file, whose ending gives its format, or from a folder of class folders or of Parquet
//! files.
//!
//! The files in reading order; each imports only from those before it: `budget`, `input`, `rows`,
//! `csv`, `table`, `json`, `pages`, `parquet`, `folder`, `shards`.

mod budget;
mod csv;
mod folder;
mod input;
mod json;
#[cfg(feature = "parquet")]
mod pages;
#[cfg_attr(not(feature = "parquet"), path = "no_parquet.rs")]
mod parquet;
mod rows;
mod shards;
mod table;

pub use csv::{DELIMITER, can_delimit};
pub use input::{has_ending, is_rows, is_table, packing_of, unpack, unreadable};
pub use parquet::silence_panics as silence_parquet_panics;
pub use rows::{Columns, Dataset, Label, LabelColumns, Row, RowOrigin};
pub use shards::{place_of, whole};

use super::spelling::listed;
use crate::error::{Error, Result};
use budget::Budget;
use input::DataFormat;
use rows::RowCollector;
use std::path::{Path, PathBuf};

/// Formats that [`read`] supports, for messages.
pub const FORMATS: &str = ".csv, .tsv, .jsonl, .json (each also as .gz, .zst, .bz2 or .xz), .parquet, or a folder of class folders or of Parquet \
     files";

/// Reads all rows of a file or a folder. Errs if there are none, or if one is invalid and not to be
/// skipped.
pub fn read(path: &Path, columns: &Columns) -> Result<Dataset> {
    if path.is_dir() {
        if let Some(files) = shards::of_folder(path)? {
            return read_all(&files, columns);
        }
        let mut rows = RowCollector::new(columns);
        folder::read(path, &mut rows)?;
        return Ok(Dataset { rows: rows.finish(path), classes: None });
    }
    read_file(path, columns, &Budget::of(&[path]))
}

/// Reads all rows of a file. Decompressed bytes are taken off the budget.
fn read_file(path: &Path, columns: &Columns, budget: &Budget) -> Result<Dataset> {
    let Some((format, packing)) = input::format_of(path) else {
        std::fs::metadata(path).map_err(Error::io("read", path))?;
        let problem = format!("unknown file ending; expected {FORMATS}");
        return Err(Error::data(path, None, problem));
    };
    let mut rows = RowCollector::new(columns);
    let classes = match (format, packing) {
        (DataFormat::Parquet, None) => {
            rows.budget = Some(budget.clone());
            parquet::read(path, &mut rows, budget)?
        }
        (DataFormat::Parquet, Some(_)) => {
            let problem = "a .parquet file has a compression of its own; decompress this file and name the .parquet file";
            return Err(Error::data(path, None, problem));
        }
        (format, packing) => {
            rows.budget = packing.map(|_| budget.clone());
            let text = input::read_text(path, packing, budget)?;
            let text = text.trim_start_matches('\u{feff}');
            match format {
                DataFormat::Tsv => table::read_tsv(path, text, &mut rows)?,
                DataFormat::JsonLines => json::read_lines(path, text, &mut rows)?,
                DataFormat::Json => json::read(path, text, &mut rows)?,
                _ => table::read_csv(path, text, &mut rows)?,
            }
            None
        }
    };
    let rows = rows.finish(path);
    if rows.is_empty() {
        return Err(Error::data(path, None, "no rows"));
    }
    Ok(Dataset { rows, classes })
}

/// Reads all rows of several files as one table, or of one file or folder. Errs if the files name
/// different classes.
pub fn read_all(paths: &[PathBuf], columns: &Columns) -> Result<Dataset> {
    if let [path] = paths {
        return read(path, columns);
    }
    let budget = Budget::of(paths);
    let mut all = Dataset { rows: vec![], classes: None };
    for path in paths {
        let table = read_file(path, columns, &budget)?;
        all.rows.extend(table.rows);
        match (&all.classes, table.classes) {
            (None, found) => all.classes = found,
            (Some(classes), Some(found)) if *classes != found => {
                let [found, before] =
                    [&found, classes].map(|names| listed(names.iter().map(String::as_str)));
                let problem = format!(
                    "found the classes {found}, expected {before} as in the files before it"
                );
                return Err(Error::data(path, None, problem));
            }
            _ => {}
        }
    }
    Ok(all)
}
