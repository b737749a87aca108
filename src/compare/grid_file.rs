//! The grid file as written: its sections, its schema, and the overrides of its own keys.

use crate::config::{
    BitfitSection, DataSection, MethodSection, ModelSection, TrainingSection, read_toml, schema_of,
    with_suggestion,
};
use crate::error::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A grid: `[compare]`, `[[task]]`, `[[arm]]`, and sections of a run configuration for all runs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GridFile {
    /// The report's title and directory, and the base, seeds and learning rates of the runs.
    pub compare: CompareSection,
    /// The tasks, each with keys for its runs; by default one task, that of the configuration.
    #[serde(default)]
    pub task: Vec<TaskSection>,
    /// The arms to compare, each with keys for its runs.
    #[serde(default)]
    pub arm: Vec<ArmSection>,
    #[serde(default)]
    #[schemars(with = "ModelSection")]
    pub model: toml::Table,
    #[serde(default)]
    #[schemars(with = "MethodSection")]
    pub method: toml::Table,
    #[serde(default)]
    #[schemars(with = "BitfitSection")]
    pub bitfit: toml::Table,
    #[serde(default)]
    #[schemars(with = "DataSection")]
    pub data: toml::Table,
    #[serde(default)]
    #[schemars(with = "TrainingSection")]
    pub training: toml::Table,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CompareSection {
    /// The report's heading; by default the file's name.
    pub title: Option<String>,
    /// The directory of the runs and the report.
    pub output_dir: PathBuf,
    /// The configuration that all runs start from.
    pub base: Option<PathBuf>,
    /// The seeds of each arm's runs.
    pub seeds: Vec<u64>,
    /// Whether to choose the learning rate on the first seed; other seeds run at the best only.
    pub tune: bool,
    /// The learning rates of arms that have none of their own.
    pub learning_rates: Vec<f64>,
    /// The arm that the others are tested against; by default the first.
    pub reference: Option<String>,
}

impl Default for CompareSection {
    fn default() -> Self {
        Self {
            title: None,
            output_dir: PathBuf::new(),
            base: None,
            seeds: vec![1, 2, 3],
            tune: false,
            learning_rates: vec![],
            reference: None,
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskSection {
    /// The task's name.
    pub name: String,
    /// The configuration that the task's runs start from, instead of `compare.base`.
    pub base: Option<PathBuf>,
    /// Keys for the task's runs, as `"SECTION.KEY" = VALUE`.
    #[serde(default)]
    #[schemars(with = "Map<String, Value>")]
    pub set: toml::Table,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArmSection {
    /// The arm's name.
    pub name: String,
    /// Keys for the arm's runs, as `"SECTION.KEY" = VALUE`.
    #[serde(default)]
    #[schemars(with = "Map<String, Value>")]
    pub set: toml::Table,
    /// The arm's learning rates, instead of `compare.learning_rates`.
    pub learning_rates: Option<Vec<f64>>,
}

/// The JSON schema of a grid file.
pub fn schema() -> Value {
    let mut schema = schema_of::<GridFile>("The grid of a bitfit comparison");
    let sections = schema.get_mut("properties").and_then(Value::as_object_mut);
    // A section may lack a required key: the base, or the `set` of a task or an arm, may have it.
    for (name, section) in sections.into_iter().flatten() {
        if let Some(section) = section.as_object_mut().filter(|_| name != "compare") {
            section.shift_remove("required");
        }
    }
    if let Some(root) = schema.as_object_mut() {
        root.insert("required".into(), serde_json::json!(["compare", "arm"]));
    }
    schema
}

impl GridFile {
    /// Reads the grid file `path`, with those of `overrides` that are keys of `compare`.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let file = read_toml(path)?;
        match overrides.iter().any(|text| is_of_grid(text)) {
            false => Ok(file),
            // The file was read without the overrides first, so that an error in the file names
            // its line.
            true => overridden(read_toml(path)?, overrides),
        }
    }
}

/// The key of an override `KEY=VALUE`.
pub fn key_of(text: &str) -> &str {
    text.split('=').next().unwrap_or_default().trim()
}

/// Whether an override is for the grid itself.
pub fn is_of_grid(text: &str) -> bool {
    key_of(text).starts_with("compare.")
}

/// The grid file with the overrides of its section `compare`.
fn overridden(mut table: toml::Table, overrides: &[String]) -> Result<GridFile> {
    let mut file = None;
    for text in overrides.iter().filter(|text| is_of_grid(text)) {
        let usage = |message: &str| Error::Usage(format!("--set {text}: {message}"));
        let (key, written) = text.split_once('=').ok_or_else(|| usage("expected KEY=VALUE"))?;
        let name = key.trim().trim_start_matches("compare.").to_owned();
        let parsed = toml::from_str::<toml::Table>(&format!("value = {written}"));
        let value = parsed.ok().and_then(|mut parsed| parsed.remove("value"));
        let value = value.unwrap_or_else(|| toml::Value::String(written.trim().to_owned()));
        let section = table.get_mut("compare").and_then(toml::Value::as_table_mut);
        section.ok_or_else(|| usage("the file has no section compare"))?.insert(name, value);
        let read: std::result::Result<GridFile, toml::de::Error> = table.clone().try_into();
        file = Some(read.map_err(|e| usage(&with_suggestion(e.message())))?);
    }
    file.ok_or_else(|| Error::Bug("no override of the grid".into()))
}
