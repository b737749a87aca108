//! Comparison of methods: [`compare`] runs a grid, one run after the other, and reports what was
//! measured; [`render`] writes the pages of a report from its `report.json`.

mod charts;
mod claims;
mod events;
mod format;
mod gather;
mod grid;
mod grid_file;
mod html;
mod markdown;
mod measure;
mod pace;
mod plot;
mod record;
mod render;
mod report;
mod results;
mod scale;
mod tables;

pub use events::CompareEvent;
pub use format::{rate_name, signed, spread};
pub use grid::{Grid, GridCell};
pub use grid_file::schema;
pub use html::{html_table, opening};
pub use markdown::markdown_table;
pub use pace::{Pace, left};
pub use plot::escaped;
pub use render::render;
pub use report::{CompareReport, FailedRun};
pub use tables::ReportTable;

use crate::config::Run;
use crate::error::{Error, Result};
use crate::lock::{self, Lock};
use crate::train::{
    Event, Listener, Listeners, MetricsFile, Start, Summary, TensorBoard, train_since,
};
use crate::{checkpoint, files, process};
use measure::Biases;
use record::{CellStatus, RunFacts};
use results::{CellResult, best_rate};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// How a call of [`compare`] goes about the runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct CompareOptions {
    /// Whether to replace runs of another configuration in the grid's directories; without it, such
    /// runs are an error.
    pub overwrite: bool,
    /// Whether to return [`Ended::Again`] after one run if more are left. Each run then has a
    /// process of its own, so that its peak memory can be measured.
    pub one_run: bool,
    /// Whether the call goes on after one that returned [`Ended::Again`]. Without it, runs that
    /// failed before are tried again.
    pub going_on: bool,
}

/// The outcome of a call of [`compare`].
pub enum Ended {
    /// Every run is done or has failed, and the report is written.
    Reported(Box<CompareReport>),
    /// One run has ended, and another process has to do the next.
    Again,
}

/// A function that gets the events of a comparison; its error ends the comparison.
pub type OnEvent<'a> = dyn FnMut(&CompareEvent<'_>) -> Result<()> + 'a;

/// The state that one process of a comparison leaves to the next.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct SoFar {
    failures: Vec<FailedRun>,
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
/// Returns [`Error::Interrupted`] if `stop` is set while runs are left, after writing a report on
/// the runs that are done, if there are any. Also errs if the directory holds other files under a
/// report's names, or if another comparison has locked it.
pub fn compare(
    grid: &Grid,
    options: CompareOptions,
    on_event: &mut OnEvent<'_>,
    stop: &AtomicBool,
) -> Result<Ended> {
    let _ours_alone = claim(&grid.output_dir)?;
    if !options.overwrite {
        nothing_in_the_way(grid)?;
    }
    let path = grid.output_dir.join(SO_FAR);
    let so_far = match files::read_text(&path) {
        // Without `going_on`, the file is from an earlier command, whose failed runs are tried
        // again.
        Ok(text) if options.going_on => serde_json::from_str(&text).unwrap_or_default(),
        _ => SoFar::default(),
    };
    let mut comparison = Comparison {
        grid,
        on_event,
        pace: Pace::new(grid.total(), so_far.spent, so_far.worked),
        stop,
        one_run: options.one_run,
        begun: 0,
        left: false,
        biases: Biases::default(),
        results: vec![],
        failures: so_far.failures,
    };
    comparison.run()?;
    let Comparison { results, failures, pace, left, .. } = comparison;
    let interrupted = left && stop.load(Ordering::SeqCst);
    if interrupted && results.is_empty() {
        let nothing = "no run is done yet; run the same command again to continue";
        return Err(Error::Interrupted(nothing.into()));
    }
    if left && !interrupted {
        let (spent, worked) = pace.spent();
        let so_far = SoFar { failures, spent, worked };
        let text = serde_json::to_string(&so_far).map_err(Error::bug)?;
        files::replace_with(&path, text.as_bytes())?;
        return Ok(Ended::Again);
    }
    let report = gather::report(grid, &results, failures)?;
    let page = render::write(&report, &grid.output_dir)?;
    files::remove(&path)?;
    if interrupted {
        let (done, total, page) = (results.len(), grid.total(), page.display());
        return Err(Error::Interrupted(format!(
            "{done} of {total} runs are done, and {page} reports them; run the same command again to continue"
        )));
    }
    Ok(Ended::Reported(Box::new(report)))
}

struct Comparison<'a> {
    grid: &'a Grid,
    on_event: &'a mut OnEvent<'a>,
    pace: Pace,
    stop: &'a AtomicBool,
    one_run: bool,
    /// Number of runs that this process began.
    begun: usize,
    /// Whether runs are left for another process or a later command. Finished runs are then still
    /// gathered, but no run begins.
    left: bool,
    biases: Biases,
    results: Vec<CellResult>,
    failures: Vec<FailedRun>,
}

impl Comparison<'_> {
    fn run(&mut self) -> Result<()> {
        for task in 0..self.grid.tasks.len() {
            for arm in 0..self.grid.arms.len() {
                let mut cells = self.grid.cells(task, arm)?;
                if self.grid.tunes(arm) {
                    let rest = cells.split_off(self.grid.count(arm) + 1 - self.grid.seeds.len());
                    let first = self.results.len();
                    cells.iter().try_for_each(|cell| self.run_one(cell))?;
                    let best = best_rate(self.results.get(first..).unwrap_or_default());
                    let at_best = |cell: &GridCell| Some(cell.learning_rate) == best;
                    cells = rest.into_iter().filter(at_best).collect();
                }
                cells.iter().try_for_each(|cell| self.run_one(cell))?;
            }
        }
        Ok(())
    }

    /// Runs `cell`, unless it is done or has failed before. A failure of the run is recorded, not
    /// returned.
    fn run_one(&mut self, cell: &GridCell) -> Result<()> {
        if self.failures.iter().any(|failure| self.grid.is_of(failure, cell)) {
            return self.skip();
        }
        let dir = cell.run.output_dir();
        let start = match record::status(&cell.run)? {
            CellStatus::Done(measured) => match Summary::read(dir)? {
                Some(summary) => {
                    let (cell, measured) = (cell.clone(), *measured);
                    self.results.push(CellResult { cell, summary, measured });
                    return self.skip();
                }
                None => Start::Resume,
            },
            CellStatus::Open => Start::Resume,
            CellStatus::Other => Start::Overwrite,
        };
        if self.stop.load(Ordering::SeqCst) || (self.one_run && self.begun > 0) {
            self.left = true;
            return Ok(());
        }
        self.begun += 1;
        self.pace.begin_run();
        let name = self.grid.place(cell);
        let done = self.train(cell, &name, start);
        // After a stop, any error of the run counts as the interruption.
        if self.stop.load(Ordering::SeqCst) && done.is_err() {
            self.left = true;
            return Ok(());
        }
        self.pace.end_run();
        match done {
            Ok(result) => self.succeeded(&name, result),
            Err(error) => self.failed(&name, cell, &error),
        }
    }

    fn skip(&mut self) -> Result<()> {
        self.pace.skip();
        (self.on_event)(&CompareEvent::Skipped { pace: &self.pace })
    }

    fn succeeded(&mut self, name: &str, result: CellResult) -> Result<()> {
        let run = &result.cell.run;
        let (metric, value) = (run.metric.name(), result.value().unwrap_or(f64::NAN));
        let (done, total) = (self.results.len() + self.failures.len() + 1, self.grid.total());
        tracing::info!("{done}/{total} {name}: {metric} {value:.4}");
        let (dir, summary) = (run.output_dir(), &result.summary);
        (self.on_event)(&CompareEvent::Done { run: name, dir, summary })?;
        self.results.push(result);
        Ok(())
    }

    fn failed(&mut self, name: &str, cell: &GridCell, error: &Error) -> Result<()> {
        let problem = match error {
            Error::Ended { problem, .. } => problem.to_string(),
            other => other.to_string(),
        };
        tracing::error!("{name}: {problem}; skipped");
        let dir = cell.run.output_dir();
        (self.on_event)(&CompareEvent::Failed { run: name, dir, error: &problem })?;
        self.failures.push(self.grid.failure(cell, problem));
        Ok(())
    }

    fn train(&mut self, cell: &GridCell, name: &str, start: Start) -> Result<CellResult> {
        let (run, dir) = (&cell.run, cell.run.output_dir());
        let began = process::process_age();
        let mut listener = RunListener {
            on_event: self.on_event,
            pace: &mut self.pace,
            run,
            files: Listeners(vec![
                Box::new(MetricsFile::new(dir, false)),
                Box::new(TensorBoard::new(dir)),
            ]),
            name,
            facts: RunFacts::default(),
            steps: 0,
        };
        let summary = train_since(began, run, start, &mut listener, self.stop)?;
        let (facts, steps) = (listener.facts, listener.steps);
        // Earlier runs in this process add to its peak memory, and a process that only finished a
        // run has taken too few of its steps to measure.
        let own_peak = self.begun == 1 && steps >= summary.steps.min(10);
        let measured = measure::measure(run, facts, own_peak, &mut self.biases)?;
        record::write(run, Some(measured.clone()))?;
        // A finished run is never resumed, so it needs no checkpoint.
        files::remove(&dir.join(checkpoint::FOLDER))?;
        Ok(CellResult { cell: cell.clone(), summary, measured })
    }
}

/// Listener to one run of a comparison.
struct RunListener<'a> {
    on_event: &'a mut OnEvent<'a>,
    pace: &'a mut Pace,
    run: &'a Run,
    /// Listeners that write into the run's directory.
    files: Listeners<'a>,
    /// The run's name.
    name: &'a str,
    /// The facts of the run, set once the run is prepared.
    facts: RunFacts,
    /// Number of the run's steps that this process took.
    steps: u64,
}

impl Listener for RunListener<'_> {
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        match *event {
            Event::Prepared(plan) => {
                self.facts = RunFacts::of(plan);
                // Written only now: before this event, the directory holds the run that this one
                // replaces.
                record::write(self.run, None)?;
            }
            Event::Step { step, total, .. } => {
                self.steps += 1;
                self.pace.step(step, total);
                let (run, pace) = (self.name, &*self.pace);
                (self.on_event)(&CompareEvent::Step { run, step, total, pace })?;
            }
            Event::Resumed { step, total, .. } => {
                tracing::info!("{}: resuming after step {step} of {total}", self.name);
                (self.on_event)(&CompareEvent::Resumed { run: self.name, step, total })?;
            }
            _ => {}
        }
        self.files.on_event(event)
    }
}

/// Locks the comparison's directory until the returned lock is dropped. Errs if another comparison
/// holds the lock, or if the directory holds files under a report's names but no lock file.
fn claim(dir: &Path) -> Result<Lock> {
    let there: Vec<&str> =
        render::WRITTEN.into_iter().filter(|name| dir.join(name).exists()).collect();
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
                if let CellStatus::Other = record::status(&cell.run)? {
                    others.push(cell.run.output_dir().to_owned());
                }
            }
        }
    }
    let Some(first) = others.first() else { return Ok(()) };
    let (count, first) = (others.len(), first.display());
    Err(Error::Usage(format!(
        "{} contains {count} runs of another configuration, such as {first}; replace them with --overwrite, or choose another directory with --set compare.output_dir=DIR",
        grid.output_dir.display()
    )))
}

/// Number of finished runs of an arm on a task.
pub fn done(grid: &Grid, task: usize, arm: usize) -> Result<usize> {
    let mut count = 0;
    for cell in grid.cells(task, arm)? {
        count += usize::from(matches!(record::status(&cell.run)?, CellStatus::Done(_)));
    }
    Ok(count)
}
