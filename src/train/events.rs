//! The events of a run, and the listener that writes them to `metrics.jsonl`.

use super::{Prepared, Summary};
use crate::error::{Error, Result};
use crate::files::Writer;
use crate::{escape, files};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An event of a run.
pub enum Event<'a> {
    /// A file of the Hub is being downloaded.
    Downloading {
        /// The file's name.
        file: &'a str,
        /// Bytes downloaded so far.
        done: u64,
        /// The file's size in bytes, if known.
        total: Option<u64>,
    },
    /// The base and the data are being read.
    Reading,
    /// Model and data are read, and the run directory is ready.
    Prepared(&'a Prepared),
    /// The run resumed from a checkpoint.
    Resumed {
        /// The checkpoint's directory.
        checkpoint: &'a Path,
        /// The step that the checkpoint was saved after.
        step: u64,
        /// Whether the evaluation after `step` is still to be done.
        evaluation_due: bool,
        /// Steps of the whole run.
        total: u64,
    },
    /// The lowest layers' output is being computed, once for all epochs.
    Caching {
        /// Rows done.
        done: usize,
        /// Rows that fit into the cache.
        total: usize,
    },
    /// A step was taken.
    Step {
        /// The step's number, counted from 1.
        step: u64,
        /// Steps of the whole run.
        total: u64,
        /// Mean loss of the batch; `None` if it was not read from the device.
        loss: Option<f64>,
        /// Tokens in the batch.
        tokens: usize,
    },
    /// A new record of `metrics.jsonl`.
    Record(&'a Record),
    /// Part of an evaluation is done.
    Evaluating {
        /// Rows done.
        done: usize,
        /// Rows of the set.
        total: usize,
    },
    /// A checkpoint was written.
    Saved(&'a Path),
    /// The run ended.
    Finished {
        /// The run's summary.
        summary: &'a Summary,
        /// The run's directory.
        output_dir: &'a Path,
    },
}

/// A line of metrics.jsonl.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Record {
    /// A logged step.
    Step {
        /// The step's number, counted from 1.
        step: u64,
        /// Epochs so far.
        epoch: f64,
        /// Mean loss of the step's batch.
        loss: f64,
        /// The step's learning rate.
        learning_rate: f64,
        /// Norm of the gradient, before clipping.
        grad_norm: f64,
        /// Real tokens per second of step time, over the run so far.
        tokens_per_second: f64,
    },
    /// An evaluation.
    Evaluation {
        /// Steps so far.
        step: u64,
        /// Epochs so far.
        epoch: f64,
        /// The metrics by name, each written as `eval_NAME`.
        #[serde(flatten, serialize_with = "prefixed")]
        metrics: BTreeMap<String, f64>,
        /// Whether delta.safetensors now holds this state.
        kept: bool,
        /// Seconds that the evaluation took, including writing the delta.
        seconds: f64,
    },
}

fn prefixed<S: serde::Serializer>(
    metrics: &BTreeMap<String, f64>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(metrics.iter().map(|(name, value)| (format!("eval_{name}"), value)))
}

/// A listener to the events of a run.
pub trait Listener {
    /// Handles `event`. An error ends the run.
    fn hear(&mut self, event: &Event<'_>) -> Result<()>;
}

/// Several listeners as one, called in their order.
pub struct Listeners(pub Vec<Box<dyn Listener>>);

impl Listener for Listeners {
    fn hear(&mut self, event: &Event<'_>) -> Result<()> {
        self.0.iter_mut().try_for_each(|listener| listener.hear(event))
    }
}

/// `accuracy 0.8530, f1 0.8491, ...`
pub fn list(metrics: &BTreeMap<String, f64>) -> String {
    let shown = |(name, value)| format!("{} {value:.4}", escape::line(name));
    metrics.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// The name of the file of all records in a run's directory.
pub const METRICS: &str = "metrics.jsonl";

/// Waits until all records are on the disk, and returns the size of `metrics.jsonl` in bytes.
pub fn flushed(output_dir: &Path) -> Result<u64> {
    let path = output_dir.join(METRICS);
    // Nothing has been logged yet.
    if !files::is_there(&path)? {
        return Ok(0);
    }
    let file = Writer::append(&path)?;
    file.sync()?;
    file.size()
}

/// Cuts `metrics.jsonl` to `bytes`, its size when the checkpoint was saved. Warns if the file is
/// shorter.
pub fn cut(output_dir: &Path, bytes: u64) -> Result<()> {
    let path = output_dir.join(METRICS);
    let mut file = Writer::append(&path)?;
    let there = file.size()?;
    if there < bytes {
        tracing::warn!(
            "{}: {there} of {bytes} bytes are left; it goes on from there",
            path.display()
        );
        return Ok(());
    }
    file.cut(bytes)
}

/// A listener that writes `metrics.jsonl` and can also write its lines and the summary to stdout.
pub struct MetricsFile {
    path: PathBuf,
    file: Option<Writer>,
    echo: bool,
}

impl MetricsFile {
    /// A listener for the run directory `output_dir`; with `echo`, it writes to stdout too.
    pub fn new(output_dir: &Path, echo: bool) -> Self {
        Self { path: output_dir.join(METRICS), file: None, echo }
    }

    fn write(&mut self, value: &impl Serialize, to_file: bool) -> Result<()> {
        let line = serde_json::to_string(value).map_err(Error::bug)? + "\n";
        if to_file {
            if self.file.is_none() {
                // A resumed run has already cut the file to the records before its checkpoint.
                self.file = Some(Writer::append(&self.path)?);
            }
            if let Some(file) = &mut self.file {
                file.put(line.as_bytes())?;
            }
        }
        if self.echo {
            // If the reader of stdout is gone, the run goes on without it.
            self.echo = files::tell(&escape::json(&line))?;
        }
        Ok(())
    }
}

impl Listener for MetricsFile {
    fn hear(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Record(record) => self.write(record, true),
            Event::Finished { summary, .. } => {
                self.write(&serde_json::json!({ "summary": summary }), false)
            }
            _ => Ok(()),
        }
    }
}
