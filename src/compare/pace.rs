//! The pace of a comparison: the work that is done, and an estimate of the time left.

use std::time::Instant;

/// The work done in a comparison, in runs, and the time that it took.
pub struct Pace {
    /// Number of runs in the grid.
    pub total: usize,
    /// Number of runs that are done or have failed.
    pub done: usize,
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

impl Pace {
    /// The pace at the start of a process. Earlier processes spent `spent` seconds on `worked` of
    /// the `total` runs.
    pub fn new(total: usize, spent: f64, worked: f64) -> Self {
        let (done, part, part_before) = (0, 0.0, 0.0);
        Self { total, done, part, began: None, worked, spent_before: spent, part_before }
    }

    /// Seconds spent in runs, and the number of runs done in that time, with fractions. Both
    /// include earlier processes.
    pub fn spent(&self) -> (f64, f64) {
        let since = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
        (self.spent_before + since, self.worked + self.part - self.part_before)
    }

    /// Number of runs that are done or have failed, with the share of the current run.
    pub fn position(&self) -> f64 {
        self.done as f64 + self.part
    }

    /// The time that the runs left will take, if it can be estimated.
    pub fn left(&self) -> Option<String> {
        let (spent, worked) = self.spent();
        left(spent, worked, self.total as f64 - self.position())
    }

    /// Records that a run begins.
    pub fn begin_run(&mut self) {
        self.began.get_or_insert_with(Instant::now);
        (self.part, self.part_before) = (0.0, 0.0);
    }

    /// Records that `step` of the current run's `total` steps are done.
    pub fn step(&mut self, step: u64, total: u64) {
        let part = step as f64 / total.max(1) as f64;
        if self.part == 0.0 {
            // An earlier process did the steps before the first one that this process takes.
            self.part_before = step.saturating_sub(1) as f64 / total.max(1) as f64;
        }
        self.part = part;
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
