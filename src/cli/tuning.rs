//! The progress of a tuning: a bar for people, or JSON lines for programs.

use super::downloads::DownloadBar;
use crate::error::Result;
use crate::tune::{TuneEvent, TuneResult};
use crate::{escape, files};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Length of the bar.
const PARTS: u64 = 1000;

/// The progress of a tuning: on stderr a bar over the budget and a line for each rung of a
/// candidate, or JSON lines on stdout.
pub struct TuningProgress {
    bars: MultiProgress,
    downloads: DownloadBar,
    /// The bar; `None` before the first step, and if programs read the progress.
    bar: Option<ProgressBar>,
    json: bool,
}

impl TuningProgress {
    /// Progress that draws on `bars`, or that writes JSON lines if `json` is set.
    pub fn new(bars: MultiProgress, json: bool) -> Self {
        Self { downloads: DownloadBar::new(bars.clone()), bars, bar: None, json }
    }

    /// Shows the event.
    pub fn on_event(&mut self, event: &TuneEvent<'_>) -> Result<()> {
        match event {
            TuneEvent::Downloading { file, done, total } if !self.json => {
                self.downloads.update(file, *done, *total);
            }
            TuneEvent::Downloading { .. } => {}
            TuneEvent::Step { candidate, step, total, done, left } => {
                let left = left.as_ref().map(|left| format!("{left} left: ")).unwrap_or_default();
                let candidate = escape::line(candidate);
                self.draw(*done, format!("{left}{candidate}, step {step}/{total}"));
            }
            TuneEvent::Planned { candidates, splits, held_out } => {
                self.downloads.clear();
                tracing::info!("{candidates} candidates. {held_out}");
                self.tell(
                    &json!({"event": "planned", "candidates": candidates, "splits": splits}),
                )?;
            }
            TuneEvent::Measured { candidate, share, mean, scores } => {
                let mean_text = mean.map_or("NaN".into(), |mean| format!("{mean:.4}"));
                tracing::info!(
                    "{candidate}: {mean_text} after {:.0} % of its steps",
                    100.0 * share
                );
                self.tell(
                    &json!({"event": "measured", "candidate": candidate, "share": share, "mean": mean, "scores": scores}),
                )?;
            }
            TuneEvent::Dropped { candidate } => {
                self.tell(&json!({"event": "dropped", "candidate": candidate}))?;
            }
            TuneEvent::Failed { candidate, error } => {
                tracing::warn!("{candidate}: {error}; left out");
                let event = json!({"event": "failed", "candidate": candidate, "error": error});
                self.tell(&event)?;
            }
            TuneEvent::Finished { result } => self.finish(result)?,
        }
        Ok(())
    }

    fn finish(&mut self, result: &TuneResult) -> Result<()> {
        self.clear();
        result.sentences().iter().for_each(|sentence| tracing::info!("{sentence}"));
        tracing::info!("report: {}", result.report.display());
        tracing::info!("tuned configuration: {}", result.tuned.display());
        self.tell(&json!({"event": "finished", "result": result}))
    }

    fn draw(&mut self, done: f64, doing: String) {
        if self.json {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{bar:24} {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bars.add(ProgressBar::new(PARTS).with_style(style))
        });
        bar.set_position((done * PARTS as f64) as u64);
        bar.set_message(doing);
    }

    /// Writes `event` to stdout as a JSON line, if programs are to read the progress.
    fn tell(&self, event: &Value) -> Result<()> {
        // A reader that has closed stdout does not end the tuning.
        if self.json { files::tell(&escape::json(&format!("{event}\n"))).map(drop) } else { Ok(()) }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for TuningProgress {
    fn drop(&mut self) {
        self.clear();
    }
}
