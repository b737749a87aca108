//! The tuned configuration: the text of the configuration with the tuned keys.

use super::keys::{Keys, parts};
use crate::error::{Error, Result};
use crate::files;
use std::path::{Path, PathBuf};
use toml_edit::{DocumentMut, Item, Value};

/// The beginning of a tuned configuration. Any other file lacks it.
const MARK: &str = "# Tuned by bitfit";

/// The path of the tuned configuration, beside `config`: `my-task.tuned.toml` for `my-task.toml`.
pub fn path_of(config: &Path) -> PathBuf {
    let stem = config.file_stem().unwrap_or_default().to_string_lossy();
    config.with_file_name(format!("{stem}.tuned.toml"))
}

/// Errs if `path` holds a file that no tuning wrote, or if `config` is not a regular file.
pub fn check(config: &Path, path: &Path) -> Result<()> {
    if !config.is_file() {
        let problem = "not a regular file; bitfit tune writes the tuned configuration beside it";
        return Err(Error::file(config, problem));
    }
    if files::is_there(path)? && !files::read_text(path)?.starts_with(MARK) {
        let problem = "bitfit tune did not write this file, and would replace it by the tuned configuration; move it, or give --config another name";
        return Err(Error::file(path, problem));
    }
    Ok(())
}

/// Writes the text of `config` with `keys` to `path`, below a comment with the lines of `found`.
pub fn write(config: &Path, path: &Path, keys: &Keys, found: &[String]) -> Result<()> {
    let text = files::read_text(config)?;
    let name = config.file_name().unwrap_or_default().to_string_lossy();
    let mut comment = format!("{MARK} {} from {name:?}:\n", env!("CARGO_PKG_VERSION"));
    for line in found.iter().flat_map(|line| line.lines()) {
        comment += &format!("# {}\n", crate::escape::line(line));
    }
    let tuned = changed(config, &text, keys)?;
    files::replace_with(path, format!("{comment}\n{tuned}").as_bytes())
}

/// The TOML `text`, which was read from `path`, with the new values of `keys`. Comments, order and
/// spaces stay.
fn changed(path: &Path, text: &str, keys: &Keys) -> Result<String> {
    let parsed: std::result::Result<DocumentMut, _> = text.parse();
    let mut document =
        parsed.map_err(|e| Error::Toml { path: path.to_owned(), message: e.to_string() })?;
    for (key, value) in keys {
        let (section, name) = parts(key)?;
        if value.is_none() && document.get(section).is_none() {
            continue;
        }
        let section = document.entry(section).or_insert_with(toml_edit::table);
        let Some(section) = section.as_table_like_mut() else { continue };
        let Some(value) = value else {
            section.remove(name);
            continue;
        };
        let mut value: Value = value.to_string().parse().map_err(Error::bug)?;
        match section.get_mut(name).and_then(Item::as_value_mut) {
            Some(there) => {
                *value.decor_mut() = there.decor().clone();
                *there = value;
            }
            None => drop(section.insert(name, Item::Value(value))),
        }
    }
    Ok(document.to_string())
}
