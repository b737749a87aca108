//! Reads a [`RunConfig`] from a TOML file and overrides.

#![deny(clippy::missing_errors_doc)]

use super::{RunConfig, reference};
use crate::error::{Error, Result};
use crate::{data, files, hub};
use std::path::{Path, PathBuf};

impl RunConfig {
    /// Reads the TOML file `path`, then applies the overrides `SECTION.KEY=VALUE`.
    ///
    /// Relative paths start from the file's directory, in overrides from the working directory;
    /// both become absolute. A path that stays relative is an id of the Hub.
    ///
    /// # Errors
    ///
    /// What is wrong in the file, with its line, or with an override: a key that is unknown, or a
    /// value that is not allowed.
    pub fn read(path: impl AsRef<Path>, overrides: &[String]) -> Result<Self> {
        let path = path.as_ref();
        let mut config: RunConfig = read_toml(path)?;
        let folder = start_of_paths(path)?;
        config.for_each_path(|key, value| resolve(key, value, &folder));
        config.with(overrides, path)
    }

    /// Applies the overrides `SECTION.KEY=VALUE` to the configuration, which was read from `path`.
    pub(crate) fn with(self, overrides: &[String], path: &Path) -> Result<Self> {
        let mut config = self;
        if overrides.is_empty() {
            return Ok(config);
        }
        let here = std::env::current_dir().map_err(Error::io("find", Path::new(".")))?;
        let mut table = toml::Table::try_from(&config).map_err(|e| {
            Error::Usage(format!("{}: with --set, every path must be UTF-8 ({e})", path.display()))
        })?;
        let mut overridden = vec![];
        for text in overrides {
            // Applied one at a time, so that an error names the override that caused it.
            (table, config) = override_key(&table, text)?;
            overridden.extend(text.split_once('=').map(|(key, _)| key.trim()));
        }
        config.for_each_path(|key, value| {
            if overridden.contains(&key) {
                resolve(key, value, &here);
            }
        });
        Ok(config)
    }

    /// Makes relative paths absolute from the working directory, ids of the Hub excepted.
    pub(super) fn make_absolute(&mut self) -> Result<()> {
        let here = std::env::current_dir().map_err(Error::io("find", Path::new(".")))?;
        self.for_each_path(|key, value| resolve(key, value, &here));
        Ok(())
    }

    /// Calls `change` with each path that is given, and its key.
    fn for_each_path(&mut self, mut change: impl FnMut(&'static str, &mut PathBuf)) {
        let paths = [
            (MODEL, Some(&mut self.model.model_name_or_path)),
            ("model.init_delta", self.model.init_delta.as_mut()),
            (TRAIN, Some(&mut self.data.train)),
            (EVAL, self.data.eval.as_mut()),
            ("training.output_dir", Some(&mut self.training.output_dir)),
        ];
        for (key, path) in paths {
            if let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) {
                change(key, path);
            }
        }
    }

    /// Sets `key`, written `SECTION.KEY`, to `value`; a relative path starts from `folder`. The
    /// error states the problem without naming the key.
    pub(crate) fn set(
        &mut self,
        key: &str,
        value: &toml::Value,
        folder: &Path,
    ) -> std::result::Result<(), String> {
        let (section, name) = key.split_once('.').ok_or("expected SECTION.KEY")?;
        let mut table = toml::Table::try_from(&*self).map_err(|e| e.to_string())?;
        let section =
            table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let section = section.as_table_mut().ok_or("expected SECTION.KEY")?;
        section.insert(name.to_owned(), value.clone());
        *self = table.try_into().map_err(|e: toml::de::Error| with_suggestion(e.message()))?;
        self.for_each_path(|its_key, path| {
            if its_key == key {
                resolve(key, path, folder);
            }
        });
        Ok(())
    }

    /// Whether `path`, in a configuration that was read, is an id of the Hub. [`RunConfig::read`]
    /// makes the paths of existing files absolute, so a relative path is an id.
    pub(crate) fn is_id(path: &Path) -> bool {
        path.is_relative() && !path.as_os_str().is_empty()
    }

    /// The configuration as TOML, defaults included.
    ///
    /// # Errors
    ///
    /// A path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self)
            .map_err(|e| Error::Usage(format!("the configuration cannot be written down: {e}")))
    }
}

const MODEL: &str = "model.model_name_or_path";
const TRAIN: &str = "data.train";
const EVAL: &str = "data.eval";

/// The most bytes of a TOML file. A run's resolved configuration holds all label names, so it can
/// be large.
const MOST_BYTES: u64 = 64 << 20;

/// Reads a TOML file; an error names the file, with line and key.
pub fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = files::read_pipe(path, MOST_BYTES).map_err(|error| {
        let message = match error {
            Error::Io { source, .. } => format!("cannot be read: {source}"),
            Error::Data { line, problem, .. } => {
                format!("line {}: {problem}", line.unwrap_or(1))
            }
            Error::File { problem, .. } => problem,
            other => other.to_string(),
        };
        Error::Toml { path: path.to_owned(), message }
    })?;
    let table = toml::Deserializer::parse(&text).map_err(|e| toml_error(path, "", &e))?;
    serde_path_to_error::deserialize(table).map_err(|e| {
        let key = e.path().to_string();
        let mut error = e.into_inner();
        error.set_input(Some(&text));
        toml_error(path, &key, &error)
    })
}

/// The directory that relative paths in the file `path` start from.
pub fn start_of_paths(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(files::folder_of(path)).map_err(Error::io("find", path))
}

/// Makes `path` absolute from `folder`, unless no such file exists and `key` can hold an id of the
/// Hub: a model's, or a data set's `OWNER/NAME`.
fn resolve(key: &str, path: &mut PathBuf, folder: &Path) {
    let local = plain(&folder.join(&*path));
    let id = path.to_str().is_some_and(|text| match key {
        MODEL => hub::is_id(text),
        // A name with the ending of a data file is a local file, even where the file is missing.
        TRAIN | EVAL => hub::is_id(text) && text.contains('/') && !data::has_ending(path),
        _ => false,
    });
    // A symbolic link whose target is missing is a local path too.
    if !id || local.exists() || local.is_symlink() {
        *path = local;
    }
}

/// `path` without `.` and `..`. Each `..` removes the component before it; symbolic links are not
/// resolved.
pub fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// The error with its line and column in the file, and with its key, or the section of an unknown
/// key. For an unknown key, it also names the nearest known one.
fn toml_error(path: &Path, key: &str, error: &toml::de::Error) -> Error {
    let text = error.to_string();
    let message = error.message();
    let shown = match key {
        "" | "." => with_suggestion(message),
        key => format!("{key}: {}", with_suggestion(message)),
    };
    // `to_string` gives the position, the line itself, and the message last.
    let place = text.trim_end().strip_suffix(message.trim_end()).unwrap_or_default();
    let message = format!("{place}{shown}");
    Error::Toml { path: path.to_owned(), message }
}

/// Appends the nearest allowed name to a message of serde such as "unknown field `x`, expected one
/// of `a`, `b`". Other messages are returned as they are.
pub fn with_suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let nearest = match (message.starts_with("unknown "), quoted.next()) {
        (true, Some(found)) => quoted
            .map(|allowed| (strsim::damerau_levenshtein(found, allowed), allowed))
            .filter(|(distance, allowed)| *distance <= 2.max(allowed.len() / 3))
            .min(),
        _ => None,
    };
    match nearest {
        Some((_, name)) => format!("{message}; did you mean `{name}`?"),
        None => message.to_owned(),
    }
}

fn override_key(table: &toml::Table, text: &str) -> Result<(toml::Table, RunConfig)> {
    let usage = || {
        Error::Usage(format!(
            "--set {text}: expected SECTION.KEY=VALUE, such as training.learning_rate=4e-4"
        ))
    };
    let (key, written) = text.split_once('=').ok_or_else(usage)?;
    let (section, name) = key.trim().split_once('.').ok_or_else(usage)?;
    let with = |value: Option<toml::Value>| {
        let mut table = table.clone();
        let section =
            table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let section = section.as_table_mut().ok_or_else(usage)?;
        match value {
            Some(value) => section.insert(name.to_owned(), value),
            None => section.remove(name),
        };
        let config = table.clone().try_into().map_err(|e| {
            let message = with_suggestion(toml::de::Error::message(&e));
            Error::Usage(format!("--set {text}: {message}"))
        })?;
        Ok((table, config))
    };
    // A value that is not TOML, or that its key does not accept, is tried as a string, so that
    // paths and names need no quotes inside the shell's quotes.
    let bare = || with(Some(toml::Value::String(written.trim().to_owned())));
    // An empty value restores the key's default. An unknown key is still an error.
    if written.trim().is_empty() {
        return if reference::is_key(section, name) { with(None) } else { bare() };
    }
    let parsed = toml::from_str::<toml::Table>(&format!("value = {written}"));
    match parsed.ok().and_then(|mut parsed| parsed.remove("value")) {
        Some(value) => with(Some(value)).or_else(|error| bare().map_err(|_| error)),
        None => bare(),
    }
}
