//! The search for the configuration of one task that does best on held-out rows: [`tune`].
//!
//! Candidates are trained by successive halving: all to a quarter of their steps, the better half
//! of them to a half, and the better half of these to the end. A candidate that goes on continues
//! from its checkpoint, so no step is computed twice.

mod events;
mod keys;
mod pages;
mod result;
mod rung;
mod space;
mod splits;
mod state;
mod tuned;

pub use events::TuneEvent;
pub use result::{TuneResult, TuneVerdict};
pub use state::Budget;

use crate::config::{MethodName, Run, RunConfig};
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::sources::Sources;
use crate::{checkpoint, files};
use keys::{Keys, parts, table_of, with_keys};
use result::{Facts, RUNGS, better};
use rung::{Advance, Clock};
use splits::Splits;
use state::{Purpose, State, Tried, Width};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// How a tuning goes about its work.
#[derive(Debug, Clone)]
pub struct TuneOptions {
    /// The configuration's file.
    pub config: PathBuf,
    /// The overrides `SECTION.KEY=VALUE` of the configuration.
    pub overrides: Vec<String>,
    /// How much may be trained.
    pub budget: Budget,
    /// Number of splits of the training rows; `None` for a number that fits the data.
    pub folds: Option<u64>,
    /// The methods to try; empty for that of the configuration.
    pub methods: Vec<MethodName>,
    /// The directory of the tuning; `None` for the run directory's name with `-tune`.
    pub output_dir: Option<PathBuf>,
    /// Whether to continue the tuning in the directory.
    pub resume: bool,
    /// Whether to replace the tuning in the directory.
    pub overwrite: bool,
}

/// A function that gets the events of a tuning; its error ends the tuning.
pub type OnTuneEvent<'a> = dyn FnMut(&TuneEvent<'_>) -> Result<()> + 'a;

/// The names that a tuning writes in its directory.
const WRITTEN: [&str; 4] = [RUNS, pages::MARKDOWN, pages::HTML, state::FILE];

/// The directory of the runs.
const RUNS: &str = "runs";

/// Searches for the best configuration of a task, and writes it beside the configuration's file.
///
/// Returns [`Error::Interrupted`] once `stop` is set, after saving. Also errs if the directory
/// holds another tuning, or other files under a tuning's names, or if the tuned configuration would
/// replace a file that no tuning wrote.
pub fn tune(
    options: &TuneOptions,
    on_event: &mut OnTuneEvent<'_>,
    stop: &AtomicBool,
) -> Result<TuneResult> {
    let clock = Clock::start();
    let run = Run::read(&options.config, &options.overrides)?;
    let tuned = tuned::path_of(&options.config);
    tuned::check(&options.config, &tuned)?;
    let dir = directory(options, &run)?;
    check_dir(options, &dir)?;
    let sources = Sources::find(&run, &mut |file, done, total| {
        on_event(&TuneEvent::Downloading { file, done, total })?;
        rung::go_on(stop)
    })?;
    let splits = Splits::read(&run, &sources, options.folds)?;
    let methods = space::methods(&run, &options.methods);
    let of = Purpose {
        config: run.written().to_toml()?,
        methods: options.methods.iter().map(name_of).collect::<Result<_>>()?,
        folds: options.folds,
        data: splits.all.iter().map(|split| split.fingerprint.clone()).collect(),
    };
    let candidates = space::candidates(&run, &splits, &methods)?;
    let _ours_alone = claim(options, &dir)?;
    let state = match State::read(&dir)? {
        Some(state) => {
            state.check(&of, &dir)?;
            state
        }
        None => State::new(of, candidates),
    };
    state.write(&dir)?;
    let held_out = splits.describe();
    let (candidates, count) = (state.candidates.len(), splits.all.len());
    on_event(&TuneEvent::Planned { candidates, splits: count, held_out: &held_out })?;
    let clock = clock.with(state.seconds);
    let mut tuning =
        Tuning { options, run, dir, base: sources.model.dir, splits, state, on_event, stop, clock };
    tuning.search()?;
    tuning.finish(tuned)
}

/// A method's name in configurations.
fn name_of(method: &MethodName) -> Result<String> {
    let name = toml::Value::try_from(method).map_err(Error::bug)?;
    Ok(name.as_str().unwrap_or_default().to_owned())
}

/// The directory of the tuning.
fn directory(options: &TuneOptions, run: &Run) -> Result<PathBuf> {
    if let Some(dir) = &options.output_dir {
        return std::path::absolute(dir).map_err(Error::io("find", dir));
    }
    let of_run = run.output_dir();
    let name = of_run.file_name().unwrap_or_default().to_string_lossy();
    Ok(of_run.with_file_name(format!("{name}-tune")))
}

/// Errs if `dir` holds a tuning that the options neither continue nor replace, or other files under
/// a tuning's names.
fn check_dir(options: &TuneOptions, dir: &Path) -> Result<()> {
    let there: Vec<&str> = WRITTEN.into_iter().filter(|name| dir.join(name).exists()).collect();
    let shown = dir.display();
    if there.is_empty() {
        return Ok(());
    }
    if !there.contains(&state::FILE) {
        return Err(Error::Usage(format!(
            "{shown} holds {}, which are not from a tuning; choose another directory with --output-dir DIR",
            there.join(", ")
        )));
    }
    if options.resume || options.overwrite {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{shown} already holds a tuning; continue it with --resume, replace it with --overwrite, or choose another directory with --output-dir DIR"
    )))
}

/// Creates and locks the tuning's directory. With `--overwrite`, removes the tuning there.
fn claim(options: &TuneOptions, dir: &Path) -> Result<Lock> {
    let lock = files::claim_dir(dir, "another tuning is writing to")?;
    // Another tuning may have written here since the first check.
    check_dir(options, dir)?;
    files::remove_unfinished(dir);
    if options.overwrite {
        // The state marks a tuning's directory, so it is removed last.
        WRITTEN.into_iter().try_for_each(|name| files::remove(&dir.join(name)))?;
    }
    Ok(lock)
}

/// A tuning.
struct Tuning<'a> {
    options: &'a TuneOptions,
    /// The configuration.
    run: Run,
    dir: PathBuf,
    /// The directory of the base.
    base: PathBuf,
    splits: Splits,
    state: State,
    on_event: &'a mut OnTuneEvent<'a>,
    stop: &'a AtomicBool,
    clock: Clock,
}

impl Tuning<'_> {
    /// Trains the candidates, as far as the budget allows.
    fn search(&mut self) -> Result<()> {
        // The configuration as it is runs to the end whatever the budget, since all others are
        // compared with it.
        for rung in 0..RUNGS {
            self.climb(0, rung, false)?;
        }
        self.clean(0)?;
        let first: Vec<usize> = (0..self.state.first).collect();
        if !self.stage(0, first)? {
            return Ok(());
        }
        let (best, _) =
            result::best(&self.state, self.splits.all.len(), self.run.greater_is_better);
        if self.state.candidates.len() == self.state.first {
            let Some(winner) = self.state.candidates.get(best).map(Tried::candidate) else {
                return Ok(());
            };
            let extras = space::extras(&self.run, &self.splits, &self.base, &winner)?;
            self.state.candidates.extend(extras.into_iter().map(Tried::new));
            self.save()?;
        }
        let extras = self.state.first..self.state.candidates.len();
        self.stage(1, [best].into_iter().chain(extras).collect()).map(drop)
    }

    /// Trains the candidates of `pool`, of which the first has run to the end, by halving. Returns
    /// whether the budget was enough for all of them.
    fn stage(&mut self, stage: usize, mut pool: Vec<usize>) -> Result<bool> {
        let all = pool.len();
        pool.truncate(self.width(stage, &pool)?);
        let whole = pool.len() == all;
        for rung in 0..RUNGS {
            for &place in &pool {
                if !self.climb(place, rung, true)? {
                    return Ok(false);
                }
            }
            if rung + 1 < RUNGS {
                pool = self.halve(pool, rung)?;
            }
        }
        for &place in &pool {
            self.clean(place)?;
        }
        Ok(whole)
    }

    /// The better half of `pool` after `rung`, best first. The others are dropped.
    fn halve(&mut self, mut pool: Vec<usize>, rung: usize) -> Result<Vec<usize>> {
        let (splits, greater) = (self.splits.all.len(), self.run.greater_is_better);
        let half = pool.len().div_ceil(2);
        let tried = |place: &usize| self.state.candidates.get(*place);
        pool.retain(|place| tried(place).is_some_and(|tried| tried.failed.is_none()));
        let mean = |place: &usize| tried(place).and_then(|tried| tried.mean(rung, splits));
        pool.sort_by(|a, b| {
            let (a, b) = (mean(a), mean(b));
            better(b, a, greater).cmp(&better(a, b, greater))
        });
        for place in pool.split_off(half.min(pool.len())) {
            let Some(tried) = self.state.candidates.get_mut(place) else { continue };
            if tried.rungs.len() >= RUNGS || tried.dropped {
                continue;
            }
            tried.dropped = true;
            let name = tried.name.clone();
            self.save()?;
            self.clean(place)?;
            (self.on_event)(&TuneEvent::Dropped { candidate: &name })?;
        }
        Ok(pool)
    }

    /// Trains a candidate on every split to the end of `rung`, if it is not there yet. Returns
    /// `false` if the budget ended before. A failure is recorded.
    fn climb(&mut self, place: usize, rung: usize, bounded: bool) -> Result<bool> {
        let splits = self.splits.all.len();
        let Some(tried) = self.state.candidates.get(place) else { return Ok(true) };
        if tried.failed.is_some() || tried.scores(rung, splits).is_some() {
            return Ok(true);
        }
        let done = tried.rungs.get(rung).map_or(0, Vec::len);
        if bounded && !self.affords(place, rung)? {
            return Ok(false);
        }
        for split in done..splits {
            match self.advance(place, rung, split, bounded) {
                Ok(Advance::Score(score)) => self.record(place, rung, score)?,
                Ok(Advance::OutOfTime) => return Ok(false),
                Err(error) if rung::is_of_candidate(&error, place == 0) => {
                    self.fail(place, &error)?;
                    return Ok(true);
                }
                Err(error) => {
                    self.save()?;
                    return Err(error);
                }
            }
        }
        self.tell(place, rung)?;
        Ok(true)
    }

    fn record(&mut self, place: usize, rung: usize, score: Option<f64>) -> Result<()> {
        let Some(tried) = self.state.candidates.get_mut(place) else { return Ok(()) };
        tried.dropped = false;
        if tried.rungs.len() <= rung {
            tried.rungs.resize(rung + 1, vec![]);
        }
        tried.rungs.get_mut(rung).into_iter().for_each(|scores| scores.push(score));
        self.save()
    }

    fn fail(&mut self, place: usize, error: &Error) -> Result<()> {
        let problem = match error {
            Error::Ended { problem, .. } => problem.to_string(),
            other => other.to_string(),
        };
        let Some(tried) = self.state.candidates.get_mut(place) else { return Ok(()) };
        tried.failed = Some(problem.clone());
        let name = tried.name.clone();
        self.save()?;
        self.clean(place)?;
        (self.on_event)(&TuneEvent::Failed { candidate: &name, error: &problem })
    }

    fn tell(&mut self, place: usize, rung: usize) -> Result<()> {
        let splits = self.splits.all.len();
        let Some(tried) = self.state.candidates.get(place) else { return Ok(()) };
        let share = result::QUARTERS.get(rung).map_or(1.0, |quarters| *quarters as f64 / 4.0);
        (self.on_event)(&TuneEvent::Measured {
            candidate: &tried.name,
            share,
            mean: tried.mean(rung, splits),
            scores: tried.scores(rung, splits).unwrap_or_default(),
        })
    }

    /// Writes the state, with the time so far.
    fn save(&mut self) -> Result<()> {
        self.state.seconds = self.clock.seconds();
        self.state.write(&self.dir)
    }

    /// Removes the checkpoints and the task files of a candidate that trains no more.
    fn clean(&self, place: usize) -> Result<()> {
        for split in 0..self.splits.all.len() {
            let dir = self.run_dir(place, split);
            files::remove(&dir.join(checkpoint::FOLDER))?;
            files::remove(&dir.join("delta.safetensors"))?;
        }
        Ok(())
    }

    /// The directory of a candidate's run on a split.
    fn run_dir(&self, place: usize, split: usize) -> PathBuf {
        let (candidate, split) = (format!("candidate-{place:02}"), format!("split-{}", split + 1));
        self.dir.join(RUNS).join(candidate).join(split)
    }

    /// How many of `pool` begin: all, or as many as the whole halving of them fits the budget.
    fn width(&mut self, stage: usize, pool: &[usize]) -> Result<usize> {
        let budget = self.options.budget;
        match self.state.widths.get(stage) {
            Some(width) if width.budget == budget => return Ok(width.count.min(pool.len())),
            _ => {}
        }
        let spent = self.spent()?;
        let mut left = match budget {
            Budget::Runs(runs) => runs - spent,
            Budget::Minutes(minutes) => {
                let seconds = self.clock.seconds();
                (60.0 * minutes - seconds) / (seconds / spent.max(0.1))
            }
        };
        let mut weights = vec![];
        for &place in pool.iter().skip(1) {
            weights.push(self.weight(place)?);
            // What an earlier budget has paid for.
            left += self.spent_on(place)?;
        }
        let splits = self.splits.all.len() as f64;
        let fits = |count: &usize| {
            let begun = weights.get(..*count).unwrap_or_default();
            splits * cost_of_halving(begun) <= left
        };
        let others = (1..=weights.len()).take_while(fits).last().unwrap_or(0);
        self.state.widths.truncate(stage);
        self.state.widths.push(Width { budget, count: 1 + others });
        self.save()?;
        if others < weights.len() {
            tracing::info!(
                "the budget is enough for {} of {} candidates; more --minutes or --runs try the others",
                1 + others,
                pool.len()
            );
        }
        Ok(1 + others)
    }

    /// Writes the tuned configuration and the page.
    fn finish(&mut self, tuned: PathBuf) -> Result<TuneResult> {
        self.save()?;
        let facts = Facts {
            run: &self.run,
            splits: self.splits.all.len(),
            held_out: self.splits.all.first().map_or(0, |split| split.held_out),
            runs: self.spent()?,
            tuned: tuned.clone(),
            report: self.dir.join(pages::HTML),
        };
        let result = TuneResult::of(&self.state, facts);
        let winner = self.state.candidates.get(result.place);
        let mut keys = overridden(self.run.written(), &self.options.overrides)?;
        keys.extend(winner.into_iter().flat_map(|tried| tried.keys.clone()));
        let mut found = result.sentences();
        found.push(format!("The page: {}", self.dir.join(pages::MARKDOWN).display()));
        pages::write(&self.dir, &self.title(), &result, &self.state, &self.splits)?;
        if result.score.is_none() {
            return Err(Error::Failed(format!(
                "no candidate gave a score, so there is no tuned configuration; {} has the errors",
                result.report.display()
            )));
        }
        tuned::write(&self.options.config, &tuned, &keys, &found)?;
        (self.on_event)(&TuneEvent::Finished { result: &result })?;
        Ok(result)
    }

    fn title(&self) -> String {
        let name = self.options.config.file_stem().unwrap_or_default().to_string_lossy();
        format!("Tuning of {name}")
    }
}

/// Runs of the configuration that the halving of candidates takes at most, on one split, beside a
/// candidate that has run to the end. The candidates' lengths are in such runs.
fn cost_of_halving(weights: &[f64]) -> f64 {
    let mut longest = weights.to_vec();
    longest.sort_by(|a, b| b.total_cmp(a));
    let pool = weights.len() + 1;
    let (half, quarter) = (pool.div_ceil(2), pool.div_ceil(2).div_ceil(2));
    let sum = |count: usize| longest.iter().take(count).sum::<f64>();
    0.25 * sum(longest.len()) + 0.25 * sum(half) + 0.5 * sum(quarter)
}

/// The keys of the overrides, with their values in `config`.
fn overridden(config: &RunConfig, overrides: &[String]) -> Result<Keys> {
    let table = table_of(config)?;
    let key = |text: &String| text.split_once('=').map(|(key, _)| key.trim().to_owned());
    let mut keys = vec![];
    for key in overrides.iter().filter_map(key) {
        let (section, name) = parts(&key)?;
        let value = table.get(section).and_then(|section| section.get(name)).cloned();
        keys.push((key, value));
    }
    Ok(keys)
}
