//! The progress of a whole comparison, with the time left.

use super::kept::{self, Facts};
use crate::config::Run;
use crate::error::Result;
use crate::train::{Event, Listener, Listeners};
use crate::{escape, files};
use serde_json::{Value, json};
use std::time::Instant;

/// A function that shows the progress: gets the share of all runs that is done, from 0 to 1, and a
/// line of text; at the end, `None`.
pub type Show = Box<dyn FnMut(Option<(f64, String)>)>;

/// The progress of a comparison: a bar for people, or JSON lines on stdout for programs.
pub struct Progress {
    show: Show,
    json: bool,
    /// Number of runs in the grid.
    total: usize,
    /// Number of runs that are done or have failed.
    done: usize,
    /// Share of the current run that is done.
    part: f64,
    /// The time when the first run of this process began.
    began: Option<Instant>,
    /// Number of runs done, with fractions: includes earlier processes, but not the current run.
    worked: f64,
    /// Seconds that earlier processes spent in runs.
    spent_before: f64,
    /// Share of the current run that an earlier process did.
    part_before: f64,
}

impl Progress {
    /// Progress that `show` shows. If `json` is set, it also writes JSON lines to stdout.
    pub fn new(show: Show, json: bool) -> Self {
        Self {
            show,
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

    /// Starts the bar over `total` runs. Earlier processes spent `spent` seconds on `worked` runs.
    pub fn begin(&mut self, total: usize, spent: f64, worked: f64) {
        (self.total, self.spent_before, self.worked) = (total, spent, worked);
        self.draw("");
    }

    /// Seconds spent in runs, and the number of runs done in that time, with fractions. Both
    /// include earlier processes.
    pub fn spent(&self) -> (f64, f64) {
        let since = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
        (self.spent_before + since, self.worked + self.part - self.part_before)
    }

    /// Records that a run begins.
    pub fn begin_run(&mut self) {
        self.began.get_or_insert_with(Instant::now);
        (self.part, self.part_before) = (0.0, 0.0);
    }

    /// Records that a run is done or has failed.
    pub fn end_run(&mut self) {
        self.worked += 1.0 - self.part_before;
        self.done += 1;
        (self.part, self.part_before) = (0.0, 0.0);
    }

    /// Records that a run needs no work: it was done before, or failed in an earlier process.
    pub fn skip(&mut self) {
        self.done += 1;
        self.draw("");
    }

    /// Records that `step` of the current run's `total` steps are done.
    fn step(&mut self, step: u64, total: u64, name: &str) {
        let part = step as f64 / total.max(1) as f64;
        if self.part == 0.0 {
            // An earlier process did the steps before the first one that this process takes.
            self.part_before = (step.saturating_sub(1)) as f64 / total.max(1) as f64;
        }
        self.part = part;
        self.draw(&format!(": {}, step {step}/{total}", escape::line(name)));
    }

    fn draw(&mut self, doing: &str) {
        let done = self.done as f64 + self.part;
        let (spent, worked) = self.spent();
        let left = left(spent, worked, self.total as f64 - done);
        let left = left.map(|left| format!(", {left} left")).unwrap_or_default();
        let run = (self.done + 1).min(self.total);
        let share = done / self.total.max(1) as f64;
        (self.show)(Some((share, format!("run {run}/{}{left}{doing}", self.total))));
    }

    /// Writes `event` to stdout as a JSON line, if programs are to read the progress.
    pub fn tell(&self, event: &Value) -> Result<()> {
        // A reader that has closed stdout does not end the comparison.
        if self.json { files::tell(&escape::json(&format!("{event}\n"))).map(drop) } else { Ok(()) }
    }

    /// Removes the bar.
    pub fn end(&mut self) {
        (self.show)(None);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// The time that `left` runs will take, if `worked` runs took `spent` seconds; `None` if too little
/// work is done for an estimate, or if no run is left.
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

/// Listener to one run of a comparison.
pub struct Hearing<'a> {
    /// The progress of the whole comparison.
    pub progress: &'a mut Progress,
    /// The run.
    pub run: &'a Run,
    /// Listeners that write into the run's directory.
    pub files: Listeners,
    /// The run's name.
    pub name: &'a str,
    /// The facts of the run, set once the run is prepared.
    pub facts: Facts,
    /// Number of the run's steps that this process took.
    pub steps: u64,
}

impl Listener for Hearing<'_> {
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Prepared(plan) => {
                self.facts = Facts::of(plan);
                // Written only now: before this event, the directory holds the run that this one
                // replaces.
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
        self.files.on_event(event)
    }
}
