//! The events of a run, and two listeners: the terminal and `metrics.jsonl`.

use super::{Prepared, Summary};
use crate::error::{Error, Result};
use crate::files::Writer;
use crate::hub::Bar;
use crate::logging::say;
use crate::{escape, files};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
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

/// A listener that shows progress bars and log lines on stderr.
pub struct Terminal {
    bars: MultiProgress,
    downloads: Bar,
    steps: ProgressBar,
    /// The bar of the work between steps: caching or evaluating.
    beside: Option<ProgressBar>,
    loss: f64,
    /// The name of the metric that decides which state is best, and the text of its latest value.
    metric: (&'static str, String),
    tokens: usize,
    /// Whether the task is about pairs of texts.
    pairs: bool,
}

impl Terminal {
    /// A terminal that draws on `bars` and shows `metric` beside the loss.
    pub fn new(bars: MultiProgress, metric: &'static str) -> Self {
        Self {
            downloads: Bar::new(bars.clone()),
            bars,
            steps: ProgressBar::hidden(),
            beside: None,
            loss: f64::NAN,
            metric: (metric, String::new()),
            tokens: 0,
            pairs: false,
        }
    }
}

impl Terminal {
    fn beside(&mut self, what: &str, done: usize, total: usize) {
        let bar = self.beside.get_or_insert_with(|| {
            let style = style(&format!("{what} {{bar:32}} {{pos}}/{{len}} (left {{eta}})"));
            self.bars.add(ProgressBar::new(total as u64).with_style(style))
        });
        bar.set_position(done as u64);
    }

    fn clear_beside(&mut self) {
        if let Some(bar) = self.beside.take() {
            bar.finish_and_clear();
        }
    }
}

/// Clears the bars, however the run ends.
impl Drop for Terminal {
    fn drop(&mut self) {
        self.steps.finish_and_clear();
        self.clear_beside();
    }
}

impl Listener for Terminal {
    fn hear(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Downloading { file, done, total } => self.downloads.hear(file, *done, *total),
            Event::Reading => {
                self.downloads.clear();
                self.steps = self
                    .bars
                    .add(ProgressBar::new_spinner().with_message("reading the base and the data"));
                spin(self.steps.clone());
            }
            Event::Prepared(run) => {
                self.steps.finish_and_clear();
                self.pairs = run.resolved.data.text_pair_column.is_some();
                // Suspended, the bars do not draw over the text.
                self.bars.suspend(|| say(&format!("{}\n\n", escape::text(run))));
            }
            Event::Resumed { checkpoint, step, total, .. } => {
                tracing::info!(
                    "going on after step {step} of {total}, from {}",
                    checkpoint.display()
                );
            }
            Event::Caching { done, total } => {
                self.beside("caching   ", *done, *total);
                if done == total {
                    self.clear_beside();
                }
            }
            Event::Step { step, total, loss, tokens } => {
                if self.steps.is_finished() {
                    self.steps = self.bars.add(ProgressBar::new(*total).with_style(style(
                        "training   {bar:24} {pos}/{len} {elapsed} (left {eta}) {msg}",
                    )));
                }
                self.tokens += tokens;
                self.steps.set_position(*step);
                let rate = self.tokens as f64 / self.steps.elapsed().as_secs_f64().max(1e-3);
                if let Some(loss) = loss {
                    self.loss = *loss;
                }
                self.steps.set_message(format!(
                    "loss {:.4}{}, {rate:.0} tokens/s",
                    self.loss, self.metric.1
                ));
            }
            Event::Record(Record::Step {
                step, epoch, loss, grad_norm, tokens_per_second, ..
            }) => {
                tracing::info!(
                    "step {step}, epoch {epoch:.2}: loss {loss:.4}, gradient {grad_norm:.3}, {tokens_per_second:.0} tokens/s"
                );
            }
            Event::Evaluating { done, total } => {
                self.beside("evaluating", *done, *total);
            }
            Event::Record(Record::Evaluation { step, epoch, metrics, kept, .. }) => {
                self.clear_beside();
                let list = list(metrics);
                if let Some(value) = metrics.get(self.metric.0) {
                    self.metric.1 = format!(", {} {value:.4}", self.metric.0);
                }
                tracing::info!(
                    "step {step}, epoch {epoch:.2}: evaluation {list}{}",
                    if *kept { " (kept)" } else { "" }
                );
            }
            Event::Saved(path) => tracing::debug!("saved {}", path.display()),
            Event::Finished { summary, output_dir } => {
                self.steps.finish_and_clear();
                let at = summary.best_step.map_or(String::new(), |step| {
                    format!(" at step {step}: {}", list(&summary.best))
                });
                tracing::info!(
                    "{} steps in {:.1} s, {:.0} tokens/s, first step after {:.2} s, peak memory {} MiB; kept{at}",
                    summary.steps,
                    summary.seconds_in_steps,
                    summary.tokens_per_second,
                    summary.seconds_to_first_step,
                    summary.peak_rss_mib,
                );
                if !summary.interrupted {
                    // The full path can be pasted even if `bitfit` is not in PATH. `bitfit` is in
                    // the directory of this executable.
                    let program =
                        std::env::current_exe().unwrap_or_default().with_file_name("bitfit");
                    let program = escape::shell(program.as_os_str());
                    let run = escape::shell(output_dir.as_os_str());
                    let pair = if self.pairs { " --text-pair \"...\"" } else { "" };
                    tracing::info!("try it: {program} predict --run {run} \"...\"{pair}");
                }
            }
        }
        Ok(())
    }
}

/// `accuracy 0.8530, f1 0.8491, ...`
pub fn list(metrics: &BTreeMap<String, f64>) -> String {
    let shown = |(name, value)| format!("{} {value:.4}", escape::line(name));
    metrics.iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Animates `bar` on a thread until the bar is finished. If no thread can be started, the bar does
/// not move, whereas indicatif's own ticker would panic.
fn spin(bar: ProgressBar) {
    if bar.is_hidden() {
        return;
    }
    let _ = std::thread::Builder::new().spawn(move || {
        while !bar.is_finished() {
            bar.tick();
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
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
