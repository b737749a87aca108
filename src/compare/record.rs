//! The record that a comparison keeps of each run, in the run's directory: `compare.json`.

use super::report::Moved;
use crate::config::Run;
use crate::error::{Error, Result};
use crate::files;
use crate::train::ModelPlan;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

const NAME: &str = "compare.json";

/// The contents of `compare.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunRecord {
    /// The configuration as TOML, without the output directory. Equal text means the same run.
    config: String,
    /// `None` until the run is done.
    finished: Option<RunMeasurements>,
}

/// Measurements of a finished run, in addition to its `summary.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunMeasurements {
    /// What the run was made from.
    pub facts: RunFacts,
    /// Size of `delta.safetensors`, in bytes.
    pub delta_bytes: u64,
    /// SHA-256 of the texts and targets of the evaluation rows. Predictions are paired only if the
    /// fingerprints are equal.
    pub rows_fingerprint: String,
    /// One character for each evaluation row, `1` if the prediction is right, else `0`; `None` for
    /// regression.
    pub right: Option<String>,
    /// Confusion matrix: rows are true classes, columns predicted ones. `None` for tasks other than
    /// classification, and for many classes.
    pub confusion: Option<Vec<Vec<u64>>>,
    /// How far each of the encoder's biases moved.
    pub moved: Vec<Moved>,
    /// Whether the process that finished the run trained no other, and took enough of its steps to
    /// measure memory and step time.
    pub memory_is_its_own: bool,
}

/// What a run was made from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunFacts {
    /// The base's name.
    pub base: String,
    /// Size of the base's weight file, in bytes.
    pub base_bytes: u64,
    /// Number of training rows.
    pub train_rows: usize,
    /// Number of evaluation rows.
    pub eval_rows: usize,
    /// Label names.
    pub labels: Vec<String>,
    /// Fingerprint of the base's weights; `None` if an older version wrote the file.
    #[serde(default)]
    pub base_fingerprint: Option<String>,
    /// Fingerprint of the training and evaluation rows, in their order; `None` if an older version
    /// wrote the file.
    #[serde(default)]
    pub data_fingerprint: Option<String>,
}

/// The status of a run of the grid.
pub enum CellStatus {
    /// The run has not begun, or has not finished.
    Open,
    /// The run is done.
    Done(Box<RunMeasurements>),
    /// The directory holds a run of another configuration.
    Other,
}

impl RunFacts {
    /// The facts of a run before its first step.
    pub fn of(plan: &ModelPlan) -> Self {
        let base = &plan.model.base;
        Self {
            base: plan.source.name.clone(),
            base_bytes: std::fs::metadata(&base.file).map_or(0, |file| file.len()),
            train_rows: plan.data.train.len(),
            eval_rows: plan.data.eval.len(),
            labels: plan.data.labels.names.clone(),
            base_fingerprint: Some(base.fingerprint.clone()),
            data_fingerprint: Some(plan.data.fingerprint.clone()),
        }
    }
}

/// The configuration as TOML, without the output directory.
fn settings(run: &Run) -> Result<String> {
    let mut config = run.written().clone();
    config.training.output_dir = PathBuf::new();
    config.to_toml()
}

/// The status of `run`, from its `compare.json`. Errs if that file cannot be parsed.
pub fn status(run: &Run) -> Result<CellStatus> {
    let path = run.output_dir().join(NAME);
    if !files::is_there(&path)? {
        return Ok(CellStatus::Open);
    }
    let record: RunRecord = serde_json::from_str(&files::read_text(&path)?).map_err(|e| {
        Error::file(
            &path,
            format!("not a comparison's record of a run: {e}; remove the file to repeat the run"),
        )
    })?;
    Ok(match record.finished {
        _ if record.config != settings(run)? => CellStatus::Other,
        Some(finished) => CellStatus::Done(Box::new(finished)),
        None => CellStatus::Open,
    })
}

/// Writes the `compare.json` of `run`. `finished` is `None` while the run goes on.
pub fn write(run: &Run, finished: Option<RunMeasurements>) -> Result<()> {
    let dir = run.output_dir();
    files::create_dir(dir)?;
    let record = RunRecord { config: settings(run)?, finished };
    let text = serde_json::to_string(&record).map_err(Error::bug)? + "\n";
    files::replace_with(&dir.join(NAME), text.as_bytes())
}
