//! The events of a run, and who listens to them.

use super::plan::ModelPlan;
use super::summary::Summary;
use crate::error::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

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
    Prepared(&'a ModelPlan),
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
    /// The training rows' embeddings are being computed, on which the method probe solves its head.
    Embedding {
        /// Rows done.
        done: usize,
        /// Rows of the set.
        total: usize,
    },
    /// A step was taken. What the method probe does is one step.
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
    Record(&'a MetricsRecord),
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

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum MetricsRecord {
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

/// A listener to the events of a run, such as a function of one.
pub trait Listener {
    /// Handles `event`. An error ends the run.
    fn on_event(&mut self, event: &Event<'_>) -> Result<()>;
}

impl<F: FnMut(&Event<'_>) -> Result<()>> Listener for F {
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        self(event)
    }
}

/// Several listeners as one, called in their order.
pub struct Listeners<'a>(pub Vec<Box<dyn Listener + 'a>>);

impl Listener for Listeners<'_> {
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        self.0.iter_mut().try_for_each(|listener| listener.on_event(event))
    }
}
