//! The listener to a run's events that shows them to people.

use super::downloads::Bar;
use crate::error::Result;
use crate::escape;
use crate::files::say;
use crate::train::{Event, Listener, Record, list};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

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
