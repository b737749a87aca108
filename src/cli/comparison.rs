//! The progress of a comparison: a bar for people, or JSON lines for programs.

use crate::compare::{CompareEvent, Pace};
use crate::error::Result;
use crate::{escape, files};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Length of the bar for one run.
const PARTS: u64 = 1000;

/// The progress of a comparison, on stderr as a bar over all runs, or on stdout as JSON lines.
pub struct ComparisonProgress {
    bars: MultiProgress,
    /// The bar; `None` before the first event, and if programs read the progress.
    bar: Option<ProgressBar>,
    json: bool,
}

impl ComparisonProgress {
    /// Progress that draws on `bars`, or that writes JSON lines if `json` is set.
    pub fn new(bars: MultiProgress, json: bool) -> Self {
        Self { bars, bar: None, json }
    }

    /// Shows the event.
    pub fn on_event(&mut self, event: &CompareEvent<'_>) -> Result<()> {
        let value = match event {
            CompareEvent::Step { run, step, total, pace } => {
                let run = escape::line(run);
                self.draw(pace, &format!(": {run}, step {step}/{total}"));
                return Ok(());
            }
            CompareEvent::Skipped { pace } => {
                self.draw(pace, "");
                return Ok(());
            }
            CompareEvent::Resumed { run, step, total } => {
                json!({"event": "resumed", "run": run, "step": step, "total": total})
            }
            CompareEvent::Done { run, dir, summary } => {
                json!({"event": "done", "run": run, "dir": dir, "summary": summary})
            }
            CompareEvent::Failed { run, dir, error } => {
                json!({"event": "failed", "run": run, "dir": dir, "error": error})
            }
        };
        self.tell(&value)
    }

    fn draw(&mut self, pace: &Pace, doing: &str) {
        if self.json {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{bar:24} {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(pace.total as u64 * PARTS).with_style(style);
            self.bars.add(bar)
        });
        bar.set_position((pace.position() * PARTS as f64) as u64);
        let left = pace.left().map(|left| format!(", {left} left")).unwrap_or_default();
        let run = (pace.done + 1).min(pace.total);
        bar.set_message(format!("run {run}/{}{left}{doing}", pace.total));
    }

    /// Writes `event` to stdout as a JSON line, if programs are to read the progress.
    fn tell(&self, event: &Value) -> Result<()> {
        // A reader that has closed stdout does not end the comparison.
        if self.json { files::tell(&escape::json(&format!("{event}\n"))).map(drop) } else { Ok(()) }
    }
}

impl Drop for ComparisonProgress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
