//! `bitfit compare`.

use super::comparison::ComparisonProgress;
use super::signals::{self, stop_on_signal};
use super::{become_anew, downloads, logging, print, print_json};
use crate::compare::{self, CompareEvent, CompareOptions, CompareReport, Ended, Grid, rate_name};
use crate::error::{Error, Result};
use crate::numbers::thousands;
use crate::sources::Sources;
use crate::train::{ModelPlan, Policy};
use clap::Args;
use indicatif::MultiProgress;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub const EXAMPLES: &str = "Examples:
  bitfit compare --config configs/compare/smoke.toml
  bitfit compare --config configs/compare/movie-reviews.toml --dry-run      (check every arm, run nothing)
  bitfit compare --config configs/compare/movie-reviews.toml --set compare.seeds=[1] --set data.train_samples=500
  bitfit compare --render runs/compare/smoke/report.json --output smoke-report

Output:
  In compare.output_dir: report.html (one file), report.md, report.json, the plots, and a directory for each run.
  The same command continues a comparison that was ended. It does not repeat finished runs.

Exit codes:
  0 done, 1 some runs failed, 2 usage or configuration, 130 interrupted after saving";

/// The environment variable that tells a process its place in a comparison: the first process
/// (`0`), a later one (`1`), or a later one after a signal asked to stop (`stop`).
const GOING_ON: &str = "BITFIT_COMPARE_GOING_ON";

/// Restarts this program for the next run, and returns only if that fails. `stop` is the stop flag
/// of the previous run; `None` before the first run.
fn again(stop: Option<&AtomicBool>) -> Result<()> {
    // Signals from here on wait for the next process.
    let terminal = signals::hand_on();
    let going_on = match stop.map(|stop| stop.load(Ordering::SeqCst)) {
        None => "0",
        Some(false) => "1",
        Some(true) => "stop",
    };
    become_anew([(GOING_ON, going_on)].into_iter().chain(terminal))
}

/// Warns of arms that vary the learning rate while another key fixes that of the biases or of the
/// head.
fn warn_of_rates_that_stay(grid: &Grid) -> Result<()> {
    for (place, arm) in grid.arms.iter().enumerate().filter(|(_, arm)| arm.learning_rates.len() > 1)
    {
        for (task, name) in grid.tasks.iter().enumerate() {
            let cells = grid.cells(task, place)?;
            let Some(config) = cells.first().map(|cell| cell.run.written()) else { continue };
            for (key, rate, stays, others) in [
                ("bitfit.bias_learning_rate", config.bitfit.bias_learning_rate, "biases", "head"),
                (
                    "training.head_learning_rate",
                    config.training.head_learning_rate,
                    "head",
                    "biases",
                ),
            ] {
                if let Some(rate) = rate {
                    tracing::warn!(
                        "task {name:?}, arm {:?}: learning_rates apply to the {others} only, because {key} = {} sets the rate of the {stays}",
                        arm.name,
                        rate_name(rate.get())
                    );
                }
            }
        }
    }
    Ok(())
}

#[derive(Args)]
pub struct Compare {
    /// The grid, a TOML file with [compare], [[task]], [[arm]] and the sections of a run
    /// configuration.
    #[arg(long, value_name = "FILE", required_unless_present = "render")]
    config: Option<PathBuf>,
    /// Override a key of every run, or of the grid itself (compare.KEY=VALUE); may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// Replace runs of another configuration; with --render, replace another report.
    #[arg(long)]
    overwrite: bool,
    /// Read and check everything, print what each arm would train, and stop without writing.
    #[arg(long)]
    dry_run: bool,
    /// Write the pages and plots of a comparison again, from its report.json alone.
    #[arg(long, value_name = "REPORT.json", conflicts_with_all = ["config", "overrides", "dry_run"])]
    render: Option<PathBuf>,
    /// The directory for the files of --render [default: that of the report.json].
    #[arg(long, value_name = "DIR", requires = "render", conflicts_with = "config")]
    output: Option<PathBuf>,
    /// Write events to stdout as JSON lines; the last one says where the report is.
    #[arg(long)]
    pub json: bool,
}

impl Compare {
    pub fn run(&self) -> Result<()> {
        let bars = logging::start(self.json);
        if let Some(report) = &self.render {
            return self.render(report);
        }
        let config = self.config.as_deref().ok_or_else(|| Error::Bug("no --config".into()))?;
        let grid = Grid::read(config, &self.overrides)?;
        if self.dry_run {
            return self.show(&grid, &bars);
        }
        // Each run gets a fresh program in the same process (exec), so that its memory and speed
        // are those of bitfit-train. Each program finds the runs that are done on the disk.
        let Ok(going_on) = std::env::var(GOING_ON) else {
            warn_of_rates_that_stay(&grid)?;
            return again(None);
        };
        let stop = stop_on_signal(self.json);
        stop.fetch_or(going_on == "stop", Ordering::SeqCst);
        let mut progress = ComparisonProgress::new(bars, self.json);
        let (overwrite, going_on) = (self.overwrite, going_on != "0");
        let options = CompareOptions { overwrite, one_run: true, going_on };
        let mut on_event = |event: &CompareEvent<'_>| progress.on_event(event);
        let ended = compare::compare(&grid, options, &mut on_event, &stop);
        drop(progress);
        match ended? {
            Ended::Reported(report) => self.finish(&grid, &report),
            Ended::Again => again(Some(&stop)),
        }
    }

    /// Writes the files of a `report.json` again.
    fn render(&self, report: &Path) -> Result<()> {
        let page = compare::render(report, self.output.as_deref(), self.overwrite)?;
        if self.json {
            let json = page.with_extension("json");
            return print_json(&json!({"event": "rendered", "report": json, "page": page}));
        }
        tracing::info!("report: {}", page.display());
        Ok(())
    }

    /// Says where the report is, and whether runs failed.
    fn finish(&self, grid: &Grid, report: &CompareReport) -> Result<()> {
        let page = grid.output_dir.join("report.html");
        if self.json {
            let (done, failed) = (report.runs_done, report.failures.len());
            let json = page.with_extension("json");
            print_json(
                &json!({"event": "finished", "report": json, "page": page, "done": done, "failed": failed}),
            )?;
        } else {
            tracing::info!("report: {}", page.display());
        }
        match report.failures.len() {
            0 => Ok(()),
            failed => Err(Error::Failed(format!(
                "{failed} of {} runs failed; {} reports the others, and the errors",
                grid.total(),
                page.display()
            ))),
        }
    }

    /// Reads base and data of each arm, and prints what the arm would train.
    fn show(&self, grid: &Grid, bars: &MultiProgress) -> Result<()> {
        let mut arms = vec![];
        let mut text = format!(
            "{:<20} {:<28} {:>12} {:>9} {:>7} {:>10}  learning rates\n",
            "task", "arm", "trainable", "rows", "steps", "runs"
        );
        for (t, task) in grid.tasks.iter().enumerate() {
            for (a, arm) in grid.arms.iter().enumerate() {
                let cells = grid.cells(t, a)?;
                let Some(cell) = cells.first() else { continue };
                let plan =
                    ModelPlan::read(&cell.run, &Sources::find(&cell.run, &mut downloads(bars))?)?;
                let sampler = plan.data.sampler(&cell.run);
                let steps = Policy::of(&cell.run, &sampler).total;
                let (trainable, rows) = (plan.freeze.counts().trainable, plan.data.train.len());
                let runs = grid.count(a);
                // `compare::done` also counts runs at learning rates that are no longer chosen.
                let done = compare::done(grid, t, a)?.min(runs);
                let mut rates: Vec<f64> =
                    cells.iter().filter_map(|cell| cell.learning_rate).collect();
                rates.truncate(arm.learning_rates.len().max(1));
                arms.push(json!({
                    "task": task, "arm": arm.name, "trainable": trainable, "train_rows": rows, "steps": steps, "runs": runs, "done": done,
                    "learning_rates": rates, "seeds": grid.seeds, "tuned": grid.tunes(a),
                }));
                let rates: Vec<String> = rates.into_iter().map(rate_name).collect();
                let rates = rates.join(", ");
                let tuned = if grid.tunes(a) { ", the best on the first seed" } else { "" };
                let shown =
                    if done > 0 { format!("{runs} ({done} done)") } else { runs.to_string() };
                text += &format!(
                    "{task:<20} {:<28} {:>12} {:>9} {steps:>7} {shown:>10}  {rates}{tuned}\n",
                    arm.name,
                    thousands(trainable),
                    thousands(rows as u64)
                );
            }
        }
        let (total, output_dir) = (grid.total(), &grid.output_dir);
        if self.json {
            return print_json(&json!({"output_dir": output_dir, "runs": total, "arms": arms}));
        }
        print(&format!("{text}\n{total} runs, into {}", output_dir.display()))
    }
}
