//! Comparison of methods: [`compare`] runs a grid, one run after the other, and reports what was
//! measured.

mod charts;
mod claims;
mod format;
pub mod grid;
mod html;
mod kept;
mod markdown;
mod plot;
mod progress;
mod report;
pub mod stats;
mod tables;

pub use grid::{Arm, Cell, Grid};
pub use kept::{Facts, Finished, Moved};
pub use progress::{Progress, Show, left};
pub use report::{Failure, Report};

use crate::error::{Error, Result};
use crate::lock::{self, Lock};
use crate::train::{Listeners, MetricsFile, Start, Summary, TensorBoard, train_since};
use crate::{checkpoint, files, process};
use kept::{Biases, Standing};
use progress::Hearing;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// A finished run.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The cell of the grid.
    pub cell: Cell,
    /// The run's `summary.json`.
    pub summary: Summary,
    /// The measurements taken after training.
    pub finished: Finished,
}

impl Ran {
    /// The task's metric, of the state that `delta.safetensors` holds; `None` if the summary lacks
    /// it.
    pub fn value(&self) -> Option<f64> {
        self.summary.best.get(self.cell.run.metric.name()).copied()
    }
}

/// The outcome of a call of [`compare`].
pub enum Ended {
    /// Every run is done or has failed, and the report is written.
    Reported(Box<Report>),
    /// One run has ended, and another process has to do the next.
    Again,
}

/// The state that one process of a comparison leaves to the next.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct SoFar {
    failures: Vec<Failure>,
    /// Seconds spent in runs.
    spent: f64,
    /// Number of runs done in `spent`, with fractions.
    worked: f64,
}

/// Name of the file with [`SoFar`] in the grid's directory, kept until the report is written.
const SO_FAR: &str = ".so-far.json";

/// Runs the cells of `grid` that are not done yet, and writes the report. A run that fails is
/// reported and skipped.
///
/// With `alone`, returns [`Ended::Again`] after one run if more are left: another process has to
/// call `compare` with `going_on`. Each run then has a process of its own, so that its peak memory
/// can be measured. Without `going_on`, runs that failed before are tried again. With `overwrite`,
/// runs of another configuration in the grid's directories are replaced; without it, such runs are
/// an error.
///
/// Returns [`Error::Interrupted`] if `stop` is set while runs are left, after writing a report on
/// the runs that are done, if there are any. Also errs if the directory holds other files under a
/// report's names, or if another comparison has locked it.
pub fn compare(
    grid: &Grid,
    overwrite: bool,
    (alone, going_on): (bool, bool),
    progress: &mut Progress,
    stop: &AtomicBool,
) -> Result<Ended> {
    let _ours_alone = claim(&grid.output_dir)?;
    if !overwrite {
        nothing_in_the_way(grid)?;
    }
    let path = grid.output_dir.join(SO_FAR);
    let so_far = match files::read_text(&path) {
        // Without `going_on`, the file is from an earlier command, whose failed runs are tried
        // again.
        Ok(text) if going_on => serde_json::from_str(&text).unwrap_or_default(),
        _ => SoFar::default(),
    };
    progress.begin(grid.total(), so_far.spent, so_far.worked);
    let mut comparison = Comparison {
        grid,
        progress,
        stop,
        alone,
        begun: 0,
        left: false,
        biases: Biases::default(),
        ran: vec![],
        failures: so_far.failures,
    };
    let ended = comparison.run();
    let Comparison { ran, failures, progress, left, .. } = comparison;
    progress.end();
    ended?;
    let interrupted = left && stop.load(Ordering::SeqCst);
    if interrupted && ran.is_empty() {
        let nothing = "no run is done yet; the same command goes on";
        return Err(Error::Interrupted(nothing.into()));
    }
    if left && !interrupted {
        let (spent, worked) = progress.spent();
        let so_far = SoFar { failures, spent, worked };
        let text = serde_json::to_string(&so_far).map_err(Error::bug)?;
        files::replace_with(&path, text.as_bytes())?;
        return Ok(Ended::Again);
    }
    let report = Report::new(grid, &ran, failures)?;
    let page = report.write(&grid.output_dir)?;
    files::remove(&path)?;
    if interrupted {
        let (done, total, page) = (ran.len(), grid.total(), page.display());
        return Err(Error::Interrupted(format!(
            "{done} of {total} runs are done, and {page} reports these; the same command goes on"
        )));
    }
    Ok(Ended::Reported(Box::new(report)))
}

struct Comparison<'a> {
    grid: &'a Grid,
    progress: &'a mut Progress,
    stop: &'a AtomicBool,
    alone: bool,
    /// Number of runs that this process began.
    begun: usize,
    /// Whether runs are left for another process or a later command. Finished runs are then still
    /// gathered, but no run begins.
    left: bool,
    biases: Biases,
    ran: Vec<Ran>,
    failures: Vec<Failure>,
}

impl Comparison<'_> {
    fn run(&mut self) -> Result<()> {
        for task in 0..self.grid.tasks.len() {
            for arm in 0..self.grid.arms.len() {
                let mut cells = self.grid.cells(task, arm)?;
                if self.grid.tunes(arm) {
                    let rest = cells.split_off(self.grid.count(arm) + 1 - self.grid.seeds.len());
                    let first = self.ran.len();
                    cells.iter().try_for_each(|cell| self.run_one(cell))?;
                    let best = best_rate(self.ran.get(first..).unwrap_or_default());
                    let at_best = |cell: &Cell| Some(cell.learning_rate) == best;
                    cells = rest.into_iter().filter(at_best).collect();
                }
                cells.iter().try_for_each(|cell| self.run_one(cell))?;
            }
        }
        Ok(())
    }

    /// Runs `cell`, unless it is done or has failed before. A failure of the run is recorded, not
    /// returned.
    fn run_one(&mut self, cell: &Cell) -> Result<()> {
        if self.failures.iter().any(|failure| failure.is_of(self.grid, cell)) {
            self.progress.skip();
            return Ok(());
        }
        let name = self.grid.place(cell);
        let (standing, dir) = (kept::standing(&cell.run)?, cell.run.output_dir());
        let start = match standing {
            Standing::Done(finished) => {
                if let Some(summary) = Summary::read(dir)? {
                    self.ran.push(Ran { cell: cell.clone(), summary, finished: *finished });
                    self.progress.skip();
                    return Ok(());
                }
                Start::Resume
            }
            Standing::Open => Start::Resume,
            Standing::Other => Start::Overwrite,
        };
        if self.stop.load(Ordering::SeqCst) || (self.alone && self.begun > 0) {
            self.left = true;
            return Ok(());
        }
        self.begun += 1;
        self.progress.begin_run();
        let done = self.train(cell, &name, start);
        // After a stop, any error of the run counts as the interruption.
        if self.stop.load(Ordering::SeqCst) && done.is_err() {
            self.left = true;
            return Ok(());
        }
        self.progress.end_run();
        match done {
            Ok(ran) => {
                let metric = cell.run.metric.name();
                let value = ran.value().unwrap_or(f64::NAN);
                let (done, total) = (self.ran.len() + self.failures.len() + 1, self.grid.total());
                tracing::info!("{done}/{total} {name}: {metric} {value:.4}");
                self.progress.tell(
                    &json!({"event": "done", "run": name, "dir": dir, "summary": ran.summary}),
                )?;
                self.ran.push(ran);
            }
            Err(error) => {
                let problem = match &error {
                    Error::Ended { problem, .. } => problem.to_string(),
                    other => other.to_string(),
                };
                tracing::error!("{name}: {problem}; passed over");
                self.progress
                    .tell(&json!({"event": "failed", "run": name, "dir": dir, "error": problem}))?;
                self.failures.push(Failure::new(self.grid, cell, problem));
            }
        }
        Ok(())
    }

    fn train(&mut self, cell: &Cell, name: &str, start: Start) -> Result<Ran> {
        let (run, dir) = (&cell.run, cell.run.output_dir());
        let began = process::process_age();
        let mut hearing = Hearing {
            progress: self.progress,
            run,
            files: Listeners(vec![
                Box::new(MetricsFile::new(dir, false)),
                Box::new(TensorBoard::new(dir)),
            ]),
            name,
            facts: Facts::default(),
            steps: 0,
        };
        let summary = train_since(began, run, start, &mut hearing, self.stop)?;
        let (facts, steps) = (hearing.facts, hearing.steps);
        // Earlier runs in this process add to its peak memory, and a process that only finished a
        // run has taken too few of its steps to measure.
        let own_peak = self.begun == 1 && steps >= summary.steps.min(10);
        let finished = kept::measure(run, facts, own_peak, &mut self.biases)?;
        kept::keep(run, Some(finished.clone()))?;
        // A finished run is never resumed, so it needs no checkpoint.
        files::remove(&dir.join(checkpoint::FOLDER))?;
        Ok(Ran { cell: cell.clone(), summary, finished })
    }
}

/// The learning rate of the best of `ran`, the first of ties; `None` if each metric is missing or
/// NaN.
pub fn best_rate(ran: &[Ran]) -> Option<f64> {
    let mut best: Option<(f64, f64)> = None;
    for ran in ran {
        let (Some(value), rate) = (ran.value().filter(|v| !v.is_nan()), ran.cell.learning_rate)
        else {
            continue;
        };
        let greater = ran.cell.run.greater_is_better;
        let better = |before: f64| if greater { value > before } else { value < before };
        if best.is_none_or(|(_, before)| better(before)) {
            best = Some((rate, value));
        }
    }
    best.map(|(rate, _)| rate)
}

/// Locks the comparison's directory until the returned lock is dropped. Errs if another comparison
/// holds the lock, or if the directory holds files under a report's names but no lock file.
fn claim(dir: &Path) -> Result<Lock> {
    let there: Vec<&str> =
        report::WRITTEN.into_iter().filter(|name| dir.join(name).exists()).collect();
    if !there.is_empty() && !dir.join(lock::FILE).exists() {
        let (dir, there) = (dir.display(), there.join(", "));
        return Err(Error::Usage(format!(
            "{dir} holds {there}, and not from a comparison that ran there; name another directory with --set compare.output_dir=DIR"
        )));
    }
    files::claim_dir(dir, "another comparison is writing to")
}

/// Errs if the grid's directories hold runs of another configuration.
fn nothing_in_the_way(grid: &Grid) -> Result<()> {
    let mut others: Vec<PathBuf> = vec![];
    for task in 0..grid.tasks.len() {
        for arm in 0..grid.arms.len() {
            for cell in grid.cells(task, arm)? {
                if let Standing::Other = kept::standing(&cell.run)? {
                    others.push(cell.run.output_dir().to_owned());
                }
            }
        }
    }
    let Some(first) = others.first() else { return Ok(()) };
    let (count, first) = (others.len(), first.display());
    Err(Error::Usage(format!(
        "{count} runs of another configuration are in the way, such as {first}; replace these with --overwrite, or name another directory with --set compare.output_dir=DIR"
    )))
}

/// Number of finished runs of an arm on a task.
pub fn done(grid: &Grid, task: usize, arm: usize) -> Result<usize> {
    let mut count = 0;
    for cell in grid.cells(task, arm)? {
        count += usize::from(matches!(kept::standing(&cell.run)?, Standing::Done(_)));
    }
    Ok(count)
}
