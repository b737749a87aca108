//! The progress of a training on stderr.

use super::downloads::DownloadBar;
use crate::error::Result;
use crate::escape;
use crate::eval::{Constant, ConstantAnswer, ConstantVerdict};
use crate::files::say;
use crate::train::{Event, Listener, MetricsRecord, Summary};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::path::Path;

/// A listener that shows progress bars and log lines on stderr.
pub struct Terminal {
    bars: MultiProgress,
    downloads: DownloadBar,
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
            downloads: DownloadBar::new(bars.clone()),
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
    /// Shows the progress of the work between steps.
    fn show_beside(&mut self, what: &str, done: usize, total: usize) {
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

    fn show_step(&mut self, (step, total): (u64, u64), loss: Option<f64>, tokens: usize) {
        if self.steps.is_finished() {
            self.steps =
                self.bars.add(ProgressBar::new(total).with_style(style(
                    "training   {bar:24} {pos}/{len} {elapsed} (left {eta}) {msg}",
                )));
        }
        self.tokens += tokens;
        self.steps.set_position(step);
        let rate = self.tokens as f64 / self.steps.elapsed().as_secs_f64().max(1e-3);
        self.loss = loss.unwrap_or(self.loss);
        let (loss, metric) = (self.loss, &self.metric.1);
        self.steps.set_message(format!("loss {loss:.4}{metric}, {rate:.0} tokens/s"));
    }

    fn show_record(&mut self, record: &MetricsRecord) {
        match record {
            MetricsRecord::Step { step, epoch, loss, grad_norm, tokens_per_second, .. } => {
                tracing::info!(
                    "step {step}, epoch {epoch:.2}: loss {loss:.4}, gradient {grad_norm:.3}, {tokens_per_second:.0} tokens/s"
                );
            }
            MetricsRecord::Evaluation { step, epoch, metrics, kept, .. } => {
                self.clear_beside();
                if let Some(value) = metrics.get(self.metric.0) {
                    self.metric.1 = format!(", {} {value:.4}", self.metric.0);
                }
                let (list, kept) = (list(metrics), if *kept { " (kept)" } else { "" });
                tracing::info!("step {step}, epoch {epoch:.2}: evaluation {list}{kept}");
            }
        }
    }

    fn show_end(&self, summary: &Summary, output_dir: &Path) {
        self.steps.finish_and_clear();
        let at = summary
            .best_step
            .map_or(String::new(), |step| format!(" at step {step}: {}", list(&summary.best)));
        tracing::info!(
            "{} {} in {:.1} s, {:.0} tokens/s, first step after {:.2} s, peak memory {} MiB; kept{at}",
            summary.steps,
            if summary.steps == 1 { "step" } else { "steps" },
            summary.seconds_in_steps,
            summary.tokens_per_second,
            summary.seconds_to_first_step,
            summary.peak_rss_mib,
        );
        if summary.interrupted {
            return;
        }
        if let Some(found) = &summary.calibration {
            tracing::info!("calibrated: {found}");
        }
        if let Some(found) = &summary.constant {
            match &summary.advice {
                Some(advice) => tracing::warn!("{}; {advice}", beside_constant(found)),
                None => tracing::info!("{}", beside_constant(found)),
            }
        }
        // The full path can be pasted even if `bitfit` is not in PATH. `bitfit` is in the directory
        // of this executable.
        let program = std::env::current_exe().unwrap_or_default().with_file_name("bitfit");
        let program = escape::shell(program.as_os_str());
        let run = escape::shell(output_dir.as_os_str());
        let pair = if self.pairs { " --text-pair \"...\"" } else { "" };
        tracing::info!("try it: {program} predict --run {run} \"...\"{pair}");
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
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Downloading { file, done, total } => self.downloads.update(file, *done, *total),
            Event::Reading => {
                self.downloads.clear();
                self.steps = self
                    .bars
                    .add(ProgressBar::new_spinner().with_message("reading the base and the data"));
                spin(self.steps.clone());
            }
            Event::Prepared(plan) => {
                self.steps.finish_and_clear();
                self.pairs = plan.resolved.data.text_pair_column.is_some();
                // Suspended, the bars do not draw over the text.
                self.bars.suspend(|| say(&format!("{}\n\n", escape::text(plan))));
            }
            Event::Resumed { checkpoint, step, total, .. } => {
                let path = checkpoint.display();
                tracing::info!("resuming after step {step} of {total}, from {path}");
            }
            Event::Caching { done, total } => {
                self.show_beside("caching   ", *done, *total);
                if done == total {
                    self.clear_beside();
                }
            }
            Event::Embedding { done, total } => {
                self.show_beside("embedding ", *done, *total);
                if done == total {
                    self.clear_beside();
                }
            }
            Event::Step { step, total, loss, tokens } => {
                self.show_step((*step, *total), *loss, *tokens);
            }
            Event::Record(record) => self.show_record(record),
            Event::Evaluating { done, total } => self.show_beside("evaluating", *done, *total),
            Event::Saved(path) => tracing::debug!("saved {}", path.display()),
            Event::Finished { summary, output_dir } => self.show_end(summary, output_dir),
        }
        Ok(())
    }
}

/// `accuracy 0.8530, f1 0.8491, ...`
pub fn list(metrics: &BTreeMap<String, f64>) -> String {
    let shown = |(name, value)| format!("{} {value:.4}", escape::line(name));
    metrics.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// The constant answer and what the model is beside it, in a line.
pub fn beside_constant(found: &Constant) -> String {
    let answer = match &found.answer {
        ConstantAnswer::Label(label) => format!("{} (largest class)", escape::quoted(label)),
        ConstantAnswer::Labels(labels) if labels.is_empty() => "of no label".into(),
        ConstantAnswer::Labels(labels) => {
            let labels: Vec<String> = labels.iter().map(|label| escape::quoted(label)).collect();
            format!("{} (each on more than half of the rows)", labels.join(", "))
        }
        ConstantAnswer::Number(mean) => format!("{mean:.4} (mean)"),
    };
    let constant = format!("the constant answer {answer}: {}", list(&found.metrics));
    let p = match found.p {
        Some(p) if p < 1e-99 => ", p below 1e-99".into(),
        Some(p) if p < 0.001 => format!(", p {p:.0e}"),
        Some(p) => format!(", p {p:.3}"),
        None => String::new(),
    };
    let verdict = match (found.verdict, found.learned) {
        (ConstantVerdict::Better, _) => "the model is better",
        (ConstantVerdict::NoBetter, true) => "the model is not shown to have more right",
        (ConstantVerdict::NoBetter, false) => "the model is no better",
        (ConstantVerdict::Worse, true) => "the model has fewer right",
        (ConstantVerdict::Worse, false) => "the model is worse",
    };
    let learned = match (found.verdict, found.learned) {
        (ConstantVerdict::Better, _) => "",
        (_, true) => {
            "; yet it has learned: its answers follow the labels by more than chance explains"
        }
        (_, false) => ": it has not learned",
    };
    format!("{constant}; {verdict} ({}{p}){learned}", found.test.name())
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
