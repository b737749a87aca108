//! Class folders of texts, `class/anything.txt`, as in aclImdb.

use super::input::{self, ending, format_of};
use super::rows::{Label, LabelColumns, Row, RowCollector, RowOrigin};
use crate::data::spelling::quoted;
use crate::error::{Error, Result};
use crate::{files, threads};
use std::path::{Path, PathBuf};

/// Reads the texts of the class folders, in the order of their names. Skips hidden folders, and
/// aclImdb's unlabelled reviews. Errs if there are no texts.
pub fn read(path: &Path, rows: &mut RowCollector<'_>) -> Result<()> {
    let labelled = !matches!(rows.columns.labels, LabelColumns::None);
    let separator = matches!(&rows.columns.labels, LabelColumns::One { separator: Some(_), .. });
    let keys = rows.columns.named().into_iter().map(|(key, _)| key);
    for key in keys.chain(separator.then_some("label_separator")) {
        if !["text_column", "label_column"].contains(&key) {
            let problem = format!(
                "{key}: a folder of class folders has no columns, and each text has one label"
            );
            return Err(Error::data(path, None, problem));
        }
    }
    let files = labelled_files(path)?;
    // Read on all cores: with tens of thousands of small files, most of the time goes into opening
    // them.
    let read: Vec<Result<Row>> = threads::map(&files, |(file, label)| {
        let text = input::read_plain(file)?;
        let text = text.trim_start_matches('\u{feff}').to_owned();
        let place = RowOrigin { path: file.as_path().into(), line: None };
        let labels = labelled.then(|| vec![Label { name: label.clone(), number: None }]);
        Ok(Row { text, text_pair: None, labels, list: false, flags: [].into(), place })
    });
    read.into_iter().try_for_each(|row| rows.take(row))?;
    if rows.rows.is_empty() {
        let tables = sorted_entries(path)?.into_iter().find(|file| format_of(file).is_some());
        let there = tables.map_or_else(String::new, |table| {
            let name = table.file_name().unwrap_or_default().to_string_lossy();
            format!("; to read a file such as {}, name the file itself", quoted(&name))
        });
        let problem = format!(
            "no rows; expected a folder for each class, with .txt files in it, or Parquet files{there}"
        );
        return Err(Error::data(path, None, problem));
    }
    Ok(())
}

/// The texts of all class folders, each with its label.
fn labelled_files(path: &Path) -> Result<Vec<(PathBuf, String)>> {
    let imdb = ["neg", "pos", "unsup"].iter().all(|name| path.join(name).is_dir());
    let mut files = vec![];
    for class in sorted_entries(path)? {
        // `is_there` errs on a link to nothing, which may have been a class folder.
        if !files::is_there(&class)? || !class.is_dir() {
            continue;
        }
        let name = class.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(b".") || (imdb && name == "unsup") {
            continue;
        }
        // A lossy conversion to text could make one class of two names.
        let label = name.to_str().ok_or_else(|| {
            let problem = format!("the name of the class folder {name:?} is not UTF-8");
            Error::data(path, None, problem)
        })?;
        let is_text = |file: &PathBuf| ending(file).is_some_and(|e| e == "txt") && !file.is_dir();
        let before = files.len();
        let (texts, others): (Vec<_>, Vec<_>) =
            sorted_entries(&class)?.into_iter().partition(is_text);
        if let Some(first) = others.first().filter(|_| !texts.is_empty()) {
            let (count, shown) = (others.len(), first.display());
            tracing::warn!(
                "{}: only .txt files are read; {count} others are ignored, such as {shown}",
                class.display()
            );
        }
        files.extend(texts.into_iter().map(|file| (file, label.to_owned())));
        if files.len() == before {
            tracing::warn!("{}: has no .txt files, so it is not a class", class.display());
        }
    }
    Ok(files)
}

/// The entries of a folder, sorted by name.
pub fn sorted_entries(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(path).and_then(|entries| {
        entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>()
    });
    let mut entries = entries.map_err(Error::io("read", path))?;
    entries.sort();
    Ok(entries)
}
