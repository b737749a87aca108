//! A bar over a whole comparison, with the time left.

use super::kept::{self, Facts};
use crate::config::Run;
use crate::error::Result;
use crate::train::{Event, Listener, Listeners};
use crate::{escape, files};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::time::Instant;

/// Parts of the bar for each run.
const PARTS: u64 = 1000;

/// What is done of a comparison, for people or, as JSON lines on stdout, for programs.
pub struct Progress {
    bars: MultiProgress,
    bar: Option<ProgressBar>,
    json: bool,
    /// Runs in all, those that are done, and how much of one is.
    total: usize,
    done: usize,
    part: f64,
    /// When the first run of this process began, and how many runs' work it has done since.
    began: Option<Instant>,
    worked: f64,
    spent_before: f64,
    part_before: f64,
}

impl Progress {
    /// Draws on `bars`, or writes JSON.
    pub fn new(bars: MultiProgress, json: bool) -> Self {
        Self {
            bars,
            bar: None,
            json,
            total: 0,
            done: 0,
            part: 0.0,
            began: None,
            worked: 0.0,
            spent_before: 0.0,
            part_before: 0.0,
        }
    }

    /// There are `total` runs; other processes spent so many seconds on `worked` of them.
    pub fn begin(&mut self, total: usize, spent: f64, worked: f64) {
        (self.total, self.spent_before, self.worked) = (total, spent, worked);
        if !self.json {
            let template = "{bar:24} {msg}";
            let style = ProgressStyle::with_template(template);
            let bar = ProgressBar::new(total as u64 * PARTS)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar = Some(self.bars.add(bar));
        }
    }

    /// Seconds in runs, and how many runs' work that was.
    pub fn spent(&self) -> (f64, f64) {
        let since = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
        (self.spent_before + since, self.worked + self.part - self.part_before)
    }

    /// A run begins.
    pub fn begin_run(&mut self) {
        self.began.get_or_insert_with(Instant::now);
        (self.part, self.part_before) = (0.0, 0.0);
    }

    /// A run was done, or passed over.
    pub fn end_run(&mut self) {
        self.worked += 1.0 - self.part_before;
        self.done += 1;
        (self.part, self.part_before) = (0.0, 0.0);
    }

    /// A run was done before.
    pub fn skip(&mut self) {
        self.done += 1;
        self.draw("");
    }

    /// Of the current run, `step` of `total` steps are done.
    fn step(&mut self, step: u64, total: u64, name: &str) {
        let part = step as f64 / total.max(1) as f64;
        if self.part == 0.0 {
            // What an earlier process did of it.
            self.part_before = (step.saturating_sub(1)) as f64 / total.max(1) as f64;
        }
        self.part = part;
        self.draw(&format!(": {}, step {step}/{total}", escape::line(name)));
    }

    fn draw(&self, doing: &str) {
        let Some(bar) = &self.bar else { return };
        let done = self.done as f64 + self.part;
        bar.set_position((done * PARTS as f64) as u64);
        let (spent, worked) = self.spent();
        let left = left(spent, worked, self.total as f64 - done);
        let left = left.map(|left| format!(", {left} left")).unwrap_or_default();
        let run = (self.done + 1).min(self.total);
        bar.set_message(format!("run {run}/{}{left}{doing}", self.total));
    }

    /// Tells `event` to programs.
    pub fn tell(&self, event: &Value) -> Result<()> {
        // Whoever read along may have seen enough; the comparison goes on.
        if self.json { files::tell(&escape::json(&format!("{event}\n"))).map(drop) } else { Ok(()) }
    }

    /// Nothing more is drawn.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// The time that `left` runs take, after `worked` of them took `spent` seconds; none before anything is known.
pub fn left(spent: f64, worked: f64, left: f64) -> Option<String> {
    if worked < 0.02 || left <= 0.0 {
        return None;
    }
    let seconds = spent / worked * left;
    Some(match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    })
}

/// Hears a run of a comparison.
pub struct Hearing<'a> {
    /// The whole.
    pub progress: &'a mut Progress,
    /// The run.
    pub run: &'a Run,
    /// What is written into the run's directory.
    pub files: Listeners,
    /// The run's name.
    pub name: &'a str,
    /// What the run was made from.
    pub facts: Facts,
    /// Steps that this process took of it.
    pub steps: u64,
}

impl Listener for Hearing<'_> {
    fn hear(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Prepared(prepared) => {
                self.facts = Facts::of(prepared);
                // Not before: until now the directory was that of the run that this one replaces.
                kept::keep(self.run, None)?;
            }
            Event::Step { step, total, .. } => {
                self.steps += 1;
                self.progress.step(*step, *total, self.name);
            }
            Event::Resumed { step, total, .. } => {
                tracing::info!("{}: going on after step {step} of {total}", self.name);
                self.progress.tell(
                    &json!({"event": "resumed", "run": self.name, "step": step, "total": total}),
                )?;
            }
            _ => {}
        }
        self.files.hear(event)
    }
}
