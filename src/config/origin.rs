//! Where a configuration comes from, for messages.

use crate::error::{Error, Result};
use std::fmt::Display;
use std::path::PathBuf;

/// The file and the overrides of a configuration.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The file.
    pub path: PathBuf,
    /// The overrides `SECTION.KEY=VALUE`.
    pub overrides: Vec<String>,
}

impl Origin {
    /// Errs with [`Origin::error`] unless `good`.
    pub fn ensure(&self, good: bool, key: &str, found: &dyn Display, expected: &str) -> Result<()> {
        if good { Ok(()) } else { Err(self.error(key, found, expected)) }
    }

    /// The error that `key` is `found` and not `expected`. It names the override that set the key,
    /// or else the file.
    pub fn error(&self, key: &str, found: &dyn Display, expected: &str) -> Error {
        let sets_it =
            |text: &&String| text.split('=').next().is_some_and(|name| name.trim() == key);
        if let Some(text) = self.overrides.iter().rev().find(sets_it) {
            return Error::Usage(format!("--set {text}: found {found}, expected {expected}"));
        }
        Error::Config {
            path: self.path.clone(),
            key: key.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }
}
