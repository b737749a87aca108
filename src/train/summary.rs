//! `summary.json`: the result and the cost of a run.

#![deny(clippy::missing_errors_doc)]

use super::calibrate::Calibration;
use crate::error::{Error, Result};
use crate::eval::Constant;
use crate::files;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The name of the summary's file in a run's directory.
pub const FILE: &str = "summary.json";

/// The result and the cost of a run: the contents of `summary.json`. Fields that an older version
/// did not write get their defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// The method: `bitfit`, `full`, `lora`, `adapter`, `head`, `layer_norm` or `probe`.
    pub method: String,
    /// Number of parameters that train.
    pub trainable: u64,
    /// Number of all parameters.
    pub all: u64,
    /// Steps taken.
    pub steps: u64,
    /// Seconds from the start of this process to its first step. In a process of several runs, the
    /// seconds count from the start of this run.
    pub seconds_to_first_step: f64,
    /// Seconds in steps: batch, forward, backward, optimizer.
    pub seconds_in_steps: f64,
    /// Seconds spent on saving checkpoints.
    pub seconds_saving: f64,
    /// Seconds of the whole run, including the processes that it was resumed from.
    pub seconds_in_all: f64,
    /// Median seconds of this process's steps, without the first two, which warm up.
    pub median_step_seconds: f64,
    /// Real tokens per second of step time. Batches have no padding.
    pub tokens_per_second: f64,
    /// Peak resident memory of the process, in MiB.
    pub peak_rss_mib: u64,
    /// Peak memory of tensors on the GPU, in MiB; `None` on the CPU.
    pub peak_gpu_mib: Option<u64>,
    /// The metrics of the state in `delta.safetensors`; empty if it was not evaluated.
    pub best: BTreeMap<String, f64>,
    /// The step after which `best` was measured; `None` if `best` is empty.
    pub best_step: Option<u64>,
    /// The constant answer on the rows that `best` was measured on; `None` if `best` is empty.
    pub constant: Option<Constant>,
    /// What the calibration found, whose task `best` was measured on; `None` without a calibration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Advice for a finished run whose state has not learned; `None` for any other run.
    pub advice: Option<String>,
    /// Whether a signal ended the run early.
    pub interrupted: bool,
}

impl Summary {
    /// Reads `summary.json` in the run directory `dir`; `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or that is not a summary.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        if !files::is_there(&path)? {
            return Ok(None);
        }
        let text = files::read_text(&path)?;
        let read = serde_json::from_str(&text);
        read.map(Some).map_err(|e| Error::file(&path, format!("not a run's summary: {e}")))
    }

    /// Writes `summary.json` into `dir`.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(Error::bug)?;
        files::replace_with(&dir.join(FILE), (text + "\n").as_bytes())
    }
}
