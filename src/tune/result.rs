//! What a tuning found: the best candidate, and how it compares with the configuration as it is.

use super::keys::{Keys, shown};
use super::state::{State, Tried};
use crate::compare::{signed, spread};
use crate::config::Run;
use crate::stats::Spread;
use serde::Serialize;
use std::path::PathBuf;

/// Number of rungs: a quarter of the steps, half of them, all.
pub const RUNGS: usize = 3;

/// The share of a run's steps at the end of a rung, in quarters.
pub const QUARTERS: [u64; RUNGS] = [1, 2, 4];

/// How the best candidate compares with the configuration as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TuneVerdict {
    /// The configuration is the best candidate.
    AsConfigured,
    /// The budget was too small for another candidate.
    NothingElseTried,
    /// Another candidate has the better score, by less than the spread.
    WithinSpread,
    /// Another candidate is better.
    Better,
    /// The configuration has no score, because its run failed or gave NaN.
    ConfiguredFailed,
}

/// What a tuning found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TuneResult {
    /// The name of the best candidate.
    pub candidate: String,
    /// The keys that it changes.
    pub changes: Vec<String>,
    /// The metric.
    pub metric: String,
    /// Share of its steps after which the candidates were compared.
    pub share: f64,
    /// The best candidate's score over the splits.
    pub score: Option<Spread>,
    /// The configuration's score.
    pub configured: Option<Spread>,
    /// The best candidate's score minus the configuration's, split by split.
    pub difference: Option<Spread>,
    /// What the difference has to exceed: its standard deviation over the splits or, with one
    /// split, the standard error of a share of the held-out rows.
    pub noise: Option<f64>,
    /// The conclusion.
    pub verdict: TuneVerdict,
    /// Runs of the configuration that would have as many steps as all candidates took.
    pub runs: f64,
    /// Number of candidates that were measured.
    pub measured: usize,
    /// Number of all candidates.
    pub candidates: usize,
    /// The tuned configuration.
    pub tuned: PathBuf,
    /// The page.
    pub report: PathBuf,
    /// The best candidate's place among the candidates.
    #[serde(skip)]
    pub place: usize,
}

/// Whether the score `a` is better than `b`. A score is better than none.
pub fn better(a: Option<f64>, b: Option<f64>, greater_is_better: bool) -> bool {
    match (a, b) {
        (Some(a), Some(b)) if greater_is_better => a > b,
        (Some(a), Some(b)) => a < b,
        (a, None) => a.is_some(),
        (None, _) => false,
    }
}

/// The best candidate and the rung at which it is: of the deepest rung that another candidate
/// reached too, or else the first. A tie goes to the earlier candidate.
pub fn best(state: &State, splits: usize, greater_is_better: bool) -> (usize, usize) {
    let at = |rung: usize| -> Vec<(usize, Option<f64>)> {
        let tried = state.candidates.iter().enumerate();
        tried
            .filter(|(_, tried)| tried.failed.is_none() && tried.scores(rung, splits).is_some())
            .map(|(place, tried)| (place, tried.mean(rung, splits)))
            .collect()
    };
    let rung = (0..RUNGS).rev().find(|&rung| at(rung).len() > 1);
    let rung = rung.unwrap_or(RUNGS - 1);
    let mut best: Option<(usize, Option<f64>)> = None;
    for (place, mean) in at(rung) {
        if best.is_none_or(|(_, before)| better(mean, before, greater_is_better)) {
            best = Some((place, mean));
        }
    }
    (best.map_or(0, |(place, _)| place), rung)
}

/// What a finished tuning is about, beside its state.
pub struct Facts<'a> {
    /// The configuration.
    pub run: &'a Run,
    /// Number of splits.
    pub splits: usize,
    /// Number of held-out rows of a split.
    pub held_out: usize,
    /// Runs that the steps of all candidates make.
    pub runs: f64,
    /// The tuned configuration.
    pub tuned: PathBuf,
    /// The page.
    pub report: PathBuf,
}

impl TuneResult {
    /// What `state` shows.
    pub fn of(state: &State, facts: Facts<'_>) -> Self {
        let greater = facts.run.greater_is_better;
        let (place, rung) = best(state, facts.splits, greater);
        let scores = |place: usize| -> Option<Vec<f64>> {
            let tried = state.candidates.get(place).filter(|tried| tried.failed.is_none())?;
            tried.scores(rung, facts.splits)?.iter().copied().collect()
        };
        let (winner, configured) = (scores(place), scores(0));
        let differences: Option<Vec<f64>> =
            winner.as_ref().zip(configured.as_ref()).map(|(winner, configured)| {
                winner.iter().zip(configured).map(|(a, b)| a - b).collect()
            });
        let difference = differences.and_then(|all| Spread::of(&all));
        let configured = configured.and_then(|scores| Spread::of(&scores));
        let noise = match difference {
            Some(Spread { sd: Some(sd), .. }) => Some(sd),
            _ => configured.and_then(|score| standard_error(facts.run, score.mean, facts.held_out)),
        };
        let measured = measured(state, facts.splits);
        let verdict = match difference {
            _ if configured.is_none() => TuneVerdict::ConfiguredFailed,
            _ if measured < 2 => TuneVerdict::NothingElseTried,
            _ if place == 0 => TuneVerdict::AsConfigured,
            Some(found) if found.mean.abs() > noise.unwrap_or(0.0) => TuneVerdict::Better,
            _ => TuneVerdict::WithinSpread,
        };
        let winning = state.candidates.get(place);
        let none = Keys::new();
        Self {
            candidate: winning.map(|tried| tried.name.clone()).unwrap_or_default(),
            changes: shown(winning.map_or(&none, |tried| &tried.keys)),
            metric: facts.run.metric.name().into(),
            share: QUARTERS.get(rung).map_or(1.0, |quarters| *quarters as f64 / 4.0),
            score: winner.and_then(|scores| Spread::of(&scores)),
            configured,
            difference,
            noise,
            verdict,
            runs: facts.runs,
            measured,
            candidates: state.candidates.len(),
            tuned: facts.tuned,
            report: facts.report,
            place,
        }
    }

    /// What was found, in sentences.
    pub fn sentences(&self) -> Vec<String> {
        let score = |score: &Option<Spread>| score.as_ref().map_or("NaN".into(), spread);
        let (name, metric) = (&self.candidate, &self.metric);
        let at = match self.share {
            share if share < 1.0 => format!(" after {:.0} % of the steps", 100.0 * share),
            _ => String::new(),
        };
        let found = format!("{name}: {metric} {}{at}", score(&self.score));
        let against = format!("{found}, against {} as configured", score(&self.configured));
        let first = match self.verdict {
            TuneVerdict::NothingElseTried => format!(
                "{found}. The budget was too small for another candidate: give more --minutes or --runs."
            ),
            TuneVerdict::AsConfigured => {
                format!(
                    "The configuration is the best candidate as it is: {metric} {}{at}.",
                    score(&self.score)
                )
            }
            TuneVerdict::ConfiguredFailed => {
                format!("{found}. The configuration as it is gave no score.")
            }
            TuneVerdict::Better => format!("{against}: better by {}.", self.by()),
            TuneVerdict::WithinSpread => format!(
                "{against}. The difference, {}, is within its spread: as it is, the configuration does as well.",
                self.by()
            ),
        };
        let count = format!(
            "{} of {} candidates were measured, with the steps of {} runs.",
            self.measured,
            self.candidates,
            tenths(self.runs)
        );
        vec![first, count]
    }

    /// The difference with its noise.
    fn by(&self) -> String {
        let Some(difference) = &self.difference else { return "NaN".into() };
        match self.noise {
            Some(noise) => format!("{} ± {noise:.4}", signed(difference.mean)),
            None => signed(difference.mean),
        }
    }
}

/// A number of runs with one decimal, if it needs one.
fn tenths(runs: f64) -> String {
    let text = format!("{runs:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Number of candidates that were measured or failed.
fn measured(state: &State, splits: usize) -> usize {
    let begun = |tried: &&Tried| tried.scores(0, splits).is_some() || tried.failed.is_some();
    state.candidates.iter().filter(begun).count()
}

/// The standard error of a metric that is a share of `rows` rows; `None` for other metrics.
fn standard_error(run: &Run, mean: f64, rows: usize) -> Option<f64> {
    use crate::config::Metric::{Accuracy, F1, F1Macro, F1Micro};
    let is_share = [Accuracy, F1, F1Micro, F1Macro].contains(&run.metric);
    is_share.then(|| (mean * (1.0 - mean) / rows.max(1) as f64).max(0.0).sqrt())
}
