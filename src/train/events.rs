//! What the loop tells, and who listens: the terminal, metrics.jsonl.

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

/// What happens in a run.
pub enum Event<'a> {
    /// A file of the Hub is being downloaded.
    Downloading {
        /// Its name.
        file: &'a str,
        /// Bytes that are there.
        done: u64,
        /// Bytes in all, where they are known.
        total: Option<u64>,
    },
    /// Base and data are being read.
    Reading,
    /// Model and data are read, and the first step follows.
    Prepared(&'a Prepared),
    /// The run goes on from a state that was saved.
    Resumed {
        /// The checkpoint.
        checkpoint: &'a Path,
        /// Steps taken before.
        step: u64,
        /// Whether the evaluation after them is still to be done.
        evaluation_due: bool,
        /// Of the run.
        total: u64,
    },
    /// The lowest layers' output is being computed, once for all epochs.
    Caching {
        /// Rows done.
        done: usize,
        /// Rows that fit.
        total: usize,
    },
    /// A step was taken.
    Step {
        /// Counted from 1.
        step: u64,
        /// Of the run.
        total: u64,
        /// Mean loss of the batch, where it was read.
        loss: Option<f64>,
        /// Tokens in the batch.
        tokens: usize,
    },
    /// A line of the log.
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
        /// What it was and what it cost.
        summary: &'a Summary,
        /// Its directory.
        output_dir: &'a Path,
    },
}

/// A line of metrics.jsonl.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Record {
    /// A logged step.
    Step {
        /// Counted from 1.
        step: u64,
        /// Epochs so far.
        epoch: f64,
        /// Mean loss of the step's batch.
        loss: f64,
        /// The rate of the step.
        learning_rate: f64,
        /// Norm of the gradient before clipping.
        grad_norm: f64,
        /// Real tokens for each second in steps, over the run so far.
        tokens_per_second: f64,
    },
    /// An evaluation.
    Evaluation {
        /// Steps so far.
        step: u64,
        /// Epochs so far.
        epoch: f64,
        /// By name, each written as `eval_NAME`.
        #[serde(flatten, serialize_with = "prefixed")]
        metrics: BTreeMap<String, f64>,
        /// Whether delta.safetensors now holds this state.
        kept: bool,
        /// How long it took.
        seconds: f64,
    },
}

fn prefixed<S: serde::Serializer>(
    metrics: &BTreeMap<String, f64>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(metrics.iter().map(|(name, value)| (format!("eval_{name}"), value)))
}

/// Somebody who hears what happens.
pub trait Listener {
    /// Hears `event`; an error ends the run.
    fn hear(&mut self, event: &Event<'_>) -> Result<()>;
}

/// Several listeners as one.
pub struct Listeners(pub Vec<Box<dyn Listener>>);

impl Listener for Listeners {
    fn hear(&mut self, event: &Event<'_>) -> Result<()> {
        self.0.iter_mut().try_for_each(|listener| listener.hear(event))
    }
}

/// A bar, and lines for people, on stderr.
pub struct Terminal {
    bars: MultiProgress,
    downloads: Bar,
    steps: ProgressBar,
    /// Of what is done beside the steps.
    beside: Option<ProgressBar>,
    loss: f64,
    /// What decides which state is best, and how it stands.
    metric: (&'static str, String),
    tokens: usize,
    /// Whether the task is about pairs of texts.
    pairs: bool,
}

impl Terminal {
    /// Draws on `bars`; `metric` is shown beside the loss.
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

/// However the run ends, no bar stays behind.
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
                // Through the bars, so that nothing is drawn over.
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
                    // As it can be typed: the program stands beside this one.
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

/// Turns `bar` until it is finished, if there can be a thread for it: indicatif panics where there is none.
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

/// The file of all records, within a run's directory.
pub const METRICS: &str = "metrics.jsonl";

/// Waits until all records are on the disk, and returns how many bytes they are.
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

/// Cuts the records to the first `bytes`, which were there when a state was saved.
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

/// metrics.jsonl, and the same lines on stdout when a program reads along.
pub struct MetricsFile {
    path: PathBuf,
    file: Option<Writer>,
    echo: bool,
}

impl MetricsFile {
    /// For the run directory `output_dir`; with `echo`, on stdout too.
    pub fn new(output_dir: &Path, echo: bool) -> Self {
        Self { path: output_dir.join(METRICS), file: None, echo }
    }

    fn write(&mut self, value: &impl Serialize, to_file: bool) -> Result<()> {
        let line = serde_json::to_string(value).map_err(|e| Error::Bug(e.to_string()))? + "\n";
        if to_file {
            if self.file.is_none() {
                // Appended to: a run that goes on has cut it to where it stood.
                self.file = Some(Writer::append(&self.path)?);
            }
            if let Some(file) = &mut self.file {
                file.put(line.as_bytes())?;
            }
        }
        if self.echo {
            // Whoever read along may have seen enough; the run goes on.
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
