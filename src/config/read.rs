//! From a TOML file and overrides to a [`RunConfig`].

use super::RunConfig;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

impl RunConfig {
    /// Reads `path`, then lays the overrides `SECTION.KEY=VALUE` over it.
    ///
    /// Relative paths in the file are made absolute by the file's directory, in overrides by the working directory.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = crate::files::read_text(path).map_err(|error| {
            let message = match error {
                Error::Io { source, .. } => format!("cannot be read: {source}"),
                Error::Data { line, problem, .. } => {
                    format!("line {}: {problem}", line.unwrap_or(1))
                }
                other => other.to_string(),
            };
            Error::Toml { path: path.to_owned(), message }
        })?;
        let mut config: RunConfig = toml::from_str(&text).map_err(|e| toml_error(path, &e))?;
        let folder = std::fs::canonicalize(
            path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        );
        let folder = folder.map_err(Error::io("find", path))?;
        config.for_each_path(|value| *value = plain(&folder.join(&*value)));
        if overrides.is_empty() {
            return Ok(config);
        }
        let here = std::env::current_dir().map_err(Error::io("find", Path::new(".")))?;
        let mut table = toml::Table::try_from(&config).map_err(|e| {
            Error::Usage(format!("{}: with --set, every path must be UTF-8 ({e})", path.display()))
        })?;
        for text in overrides {
            // Checked one by one, so that a message is about the right one.
            (table, config) = override_key(&table, text)?;
        }
        config.for_each_path(|value| *value = plain(&here.join(&*value)));
        // `--set data.eval=` takes it away.
        config.data.eval = config.data.eval.filter(|path| !path.as_os_str().is_empty());
        config.model.init_delta =
            config.model.init_delta.filter(|path| !path.as_os_str().is_empty());
        Ok(config)
    }

    fn for_each_path(&mut self, mut change: impl FnMut(&mut PathBuf)) {
        let always = [
            &mut self.model.model_name_or_path,
            &mut self.data.train,
            &mut self.training.output_dir,
        ];
        let maybe = [self.model.init_delta.as_mut(), self.data.eval.as_mut()];
        for path in always.into_iter().chain(maybe.into_iter().flatten()) {
            if !path.as_os_str().is_empty() {
                change(path);
            }
        }
    }

    /// The file as it was run: every key.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self)
            .map_err(|e| Error::Usage(format!("the configuration cannot be written down: {e}")))
    }
}

/// An absolute path without `.` and `..`, for people to read.
fn plain(path: &Path) -> PathBuf {
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

/// A TOML error with its place, and with the nearest key where one is unknown.
fn toml_error(path: &Path, error: &toml::de::Error) -> Error {
    let text = error.to_string();
    let message = error.message();
    // `to_string` ends in the message, after the place and the line itself.
    let message = text.trim_end().replace(message, &with_suggestion(message));
    Error::Toml { path: path.to_owned(), message }
}

/// Serde says "unknown field `x`, expected one of `a`, `b`": the nearest of them is likely meant.
fn with_suggestion(message: &str) -> String {
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
    let with = |value: toml::Value| {
        let mut table = table.clone();
        let section =
            table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        section.as_table_mut().ok_or_else(usage)?.insert(name.to_owned(), value);
        let config = table.clone().try_into().map_err(|e| {
            let message = with_suggestion(toml::de::Error::message(&e));
            Error::Usage(format!("--set {text}: {message}"))
        })?;
        Ok((table, config))
    };
    // What is no TOML is a string, and so is what must be one: paths and names need no quotes within quotes.
    let bare = || with(toml::Value::String(written.trim().to_owned()));
    let parsed = toml::from_str::<toml::Table>(&format!("value = {written}"));
    match parsed.ok().and_then(|mut parsed| parsed.remove("value")) {
        Some(value) => with(value).or_else(|error| bare().map_err(|_| error)),
        None => bare(),
    }
}
