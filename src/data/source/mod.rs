//! Rows from a file, whose ending gives its format, or from a folder of class folders or of Parquet
//! files.
//!
//! The files in reading order; each imports only from those before it: `budget`, `input`, `rows`,
//! `csv`, `table`, `json`, `pages`, `parquet`, `parquet_table`, `original`, `folder`, `shards`.

mod budget;
mod csv;
mod folder;
mod input;
mod json;
mod original;
#[cfg(feature = "parquet")]
mod pages;
#[cfg_attr(not(feature = "parquet"), path = "no_parquet.rs")]
mod parquet;
#[cfg_attr(not(feature = "parquet"), path = "no_parquet_table.rs")]
mod parquet_table;
mod rows;
mod shards;
mod table;

pub use csv::{DELIMITER, can_delimit};
pub use input::{has_ending, is_rows, is_table, packing_of, unpack, unreadable};
pub use original::Original;
pub use parquet::silence_panics as silence_parquet_panics;
pub use parquet_table::ParquetTable;
pub use rows::{Columns, Dataset, Label, LabelColumns, Row, RowOrigin};
pub use shards::{place_of, whole};

use super::spelling::listed;
use crate::error::{Error, Result};
use budget::Budget;
use input::DataFormat;
use parquet::ParquetFile;
use rows::RowCollector;
use std::path::{Path, PathBuf};

/// Formats that [`read`] supports, for messages.
pub const FORMATS: &str = ".csv, .tsv, .jsonl, .json (each also as .gz, .zst, .bz2 or .xz), .parquet, or a folder of class folders or of Parquet \
     files";

/// What is left of a file of which the rows were read.
enum Rest {
    /// The text, and what it is.
    Text(DataFormat, String),
    Parquet(ParquetFile),
}

/// Reads all rows of a file or a folder. Errs if there are none, or if one is invalid and not to be
/// skipped.
pub fn read(path: &Path, columns: &Columns) -> Result<Dataset> {
    if !path.is_dir() {
        return Ok(read_file(path, columns, &Budget::of(&[path]))?.0);
    }
    match shards::of_folder(path)? {
        Some(files) => read_all(&files, columns),
        None => read_folder(path, columns),
    }
}

/// Like [`read`], with all columns as they stand in the files; `None` for a folder of class
/// folders. Rows that are invalid are never skipped.
pub fn read_with_original(path: &Path, columns: &Columns) -> Result<(Dataset, Option<Original>)> {
    let columns = &Columns { skip_bad_rows: false, ..columns.clone() };
    if !path.is_dir() {
        let (rows, rest) = read_file(path, columns, &Budget::of(&[path]))?;
        let original = match rest {
            Rest::Text(format, text) => Original::of_text(path, text, format, columns),
            Rest::Parquet(file) => Original::of_parquet(path, vec![file], columns),
        };
        return Ok((rows, Some(original?)));
    }
    let Some(files) = shards::of_folder(path)? else {
        return Ok((read_folder(path, columns)?, None));
    };
    let mut open = vec![];
    let rows = read_files(&files, columns, &mut |rest| {
        if let Rest::Parquet(file) = rest {
            open.push(file);
        }
    })?;
    Ok((rows, Some(Original::of_parquet(path, open, columns)?)))
}

/// Reads all rows of a folder of class folders.
fn read_folder(path: &Path, columns: &Columns) -> Result<Dataset> {
    let mut rows = RowCollector::new(columns);
    folder::read(path, &mut rows)?;
    Ok(Dataset { rows: rows.finish(path), classes: None })
}

/// Reads all rows of a file. Decompressed bytes are taken off the budget.
fn read_file(path: &Path, columns: &Columns, budget: &Budget) -> Result<(Dataset, Rest)> {
    let Some((format, packing)) = input::format_of(path) else {
        std::fs::metadata(path).map_err(Error::io("read", path))?;
        let problem = format!("unknown file ending; expected {FORMATS}");
        return Err(Error::data(path, None, problem));
    };
    let mut rows = RowCollector::new(columns);
    let (classes, rest) = match (format, packing) {
        (DataFormat::Parquet, None) => {
            rows.budget = Some(budget.clone());
            let (classes, file) = parquet::read(path, &mut rows, budget)?;
            (classes, Rest::Parquet(file))
        }
        (DataFormat::Parquet, Some(_)) => {
            let problem = "a .parquet file has a compression of its own; decompress this file and name the .parquet file";
            return Err(Error::data(path, None, problem));
        }
        (format, packing) => {
            rows.budget = packing.map(|_| budget.clone());
            let whole = input::read_text(path, packing, budget)?;
            let text = whole.trim_start_matches('\u{feff}');
            match format {
                DataFormat::Tsv => table::read_tsv(path, text, &mut rows)?,
                DataFormat::JsonLines => json::read_lines(path, text, &mut rows)?,
                DataFormat::Json => json::read(path, text, &mut rows)?,
                _ => table::read_csv(path, text, &mut rows)?,
            }
            (None, Rest::Text(format, whole))
        }
    };
    let rows = rows.finish(path);
    if rows.is_empty() {
        return Err(Error::data(path, None, "no rows"));
    }
    Ok((Dataset { rows, classes }, rest))
}

/// Reads all rows of several files as one table, or of one file or folder. Errs if the files name
/// different classes.
pub fn read_all(paths: &[PathBuf], columns: &Columns) -> Result<Dataset> {
    match paths {
        [path] => read(path, columns),
        paths => read_files(paths, columns, &mut drop),
    }
}

/// Reads all rows of several files as one table, and hands over what is left of each.
fn read_files(paths: &[PathBuf], columns: &Columns, keep: &mut dyn FnMut(Rest)) -> Result<Dataset> {
    let budget = Budget::of(paths);
    let mut all = Dataset { rows: vec![], classes: None };
    for path in paths {
        let (table, rest) = read_file(path, columns, &budget)?;
        all.rows.extend(table.rows);
        keep(rest);
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
