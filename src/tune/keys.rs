//! Keys of a configuration with new values.

use crate::config::RunConfig;
use crate::error::{Error, Result};

/// Keys, written `SECTION.KEY`, each with its new value; `None` gives a key its default again.
/// The last of several values for a key counts.
pub type Keys = Vec<(String, Option<toml::Value>)>;

/// Section and name of the key `SECTION.KEY`.
pub fn parts(key: &str) -> Result<(&str, &str)> {
    key.split_once('.').ok_or_else(|| Error::Bug(format!("a key without a section: {key}")))
}

/// The configuration as a table of sections.
pub fn table_of(config: &RunConfig) -> Result<toml::Table> {
    toml::Table::try_from(config)
        .map_err(|e| Error::Usage(format!("bitfit tune: every path must be UTF-8 ({e})")))
}

/// The configuration with the new values of `keys`.
pub fn with_keys(config: &RunConfig, keys: &Keys) -> Result<RunConfig> {
    let mut table = table_of(config)?;
    for (key, value) in keys {
        let (section, name) = parts(key)?;
        let section = table.entry(section).or_insert_with(|| toml::Table::new().into());
        let Some(section) = section.as_table_mut() else { continue };
        match value {
            Some(value) => drop(section.insert(name.to_owned(), value.clone())),
            None => drop(section.remove(name)),
        }
    }
    table.try_into().map_err(Error::bug)
}

/// The keys with their values as a line of TOML, for people: `training.learning_rate = 0.001`.
pub fn shown(keys: &Keys) -> Vec<String> {
    let shown = |(key, value): &(String, Option<toml::Value>)| match value {
        Some(value) => format!("{key} = {value}"),
        None => format!("{key} left out"),
    };
    keys.iter().map(shown).collect()
}
