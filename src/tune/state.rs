//! `tune.json`: how far a tuning is.

use super::keys::Keys;
use super::space::Candidate;
use crate::error::{Error, Result};
use crate::files;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The name of the file in a tuning's directory.
pub const FILE: &str = "tune.json";

/// How much a tuning may train.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Minutes of the clock.
    Minutes(f64),
    /// Whole runs: the steps of this number of runs of the configuration on one split.
    Runs(f64),
}

/// The contents of `tune.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// What the tuning is of. Another value is another tuning.
    pub of: Purpose,
    /// Seconds that the tuning took so far.
    pub seconds: f64,
    /// The candidates, the configuration itself first.
    pub candidates: Vec<Tried>,
    /// Number of candidates before the first that changes the best of all candidates before it.
    pub first: usize,
    /// How many candidates of each stage the budget lets begin.
    pub widths: Vec<Width>,
}

/// What a tuning is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purpose {
    /// The configuration as TOML, with absolute paths.
    pub config: String,
    /// Methods that a user asked for.
    pub methods: Vec<String>,
    /// Number of splits that a user asked for.
    pub folds: Option<u64>,
    /// The fingerprint of each split's rows.
    pub data: Vec<String>,
}

/// A candidate, and how far it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tried {
    /// The name for people.
    pub name: String,
    /// The keys that differ from the configuration.
    pub keys: Keys,
    /// For each rung, the scores on the splits; `None` is NaN.
    pub rungs: Vec<Vec<Option<f64>>>,
    /// Why the candidate failed; `None` if it did not.
    pub failed: Option<String>,
    /// Whether other candidates were better, so that this one did not go on.
    pub dropped: bool,
}

/// How many candidates of a stage begin under a budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Width {
    /// The budget.
    pub budget: Budget,
    /// The number of candidates.
    pub count: usize,
}

impl State {
    /// A tuning that has not begun.
    pub fn new(of: Purpose, candidates: Vec<Candidate>) -> Self {
        let first = candidates.len();
        let candidates = candidates.into_iter().map(Tried::new).collect();
        Self { of, seconds: 0.0, candidates, first, widths: vec![] }
    }

    /// Reads `tune.json` in `dir`; `None` if there is no such file.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        if !files::is_there(&path)? {
            return Ok(None);
        }
        let read = serde_json::from_str(&files::read_text(&path)?);
        read.map(Some).map_err(|e| {
            Error::file(&path, format!("not the state of a tuning: {e}; --overwrite begins anew"))
        })
    }

    /// Writes `tune.json` into `dir`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(Error::bug)? + "\n";
        files::replace_with(&dir.join(FILE), text.as_bytes())
    }

    /// Errs if the state in `dir` is not of `of`, and says what differs.
    pub fn check(&self, of: &Purpose, dir: &Path) -> Result<()> {
        let what = match &self.of {
            before if before == of => return Ok(()),
            before if before.config != of.config => changed_keys(&before.config, &of.config)?,
            before if before.methods != of.methods => {
                format!("--methods was {}", list(&before.methods))
            }
            before if before.folds != of.folds => {
                let folds = before.folds.map_or("not given".into(), |folds| folds.to_string());
                format!("--folds was {folds}")
            }
            _ => "the rows of the data have changed".into(),
        };
        Err(Error::Usage(format!(
            "{} holds the tuning of another configuration: {what}; give the same to continue, --overwrite to begin anew, or another directory with --output-dir DIR",
            dir.display()
        )))
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "not given".into() } else { names.join(",") }
}

/// The keys that differ between two configurations, as TOML.
fn changed_keys(before: &str, now: &str) -> Result<String> {
    let keys = |text: &str| -> Result<std::collections::BTreeMap<String, String>> {
        let table: toml::Table = toml::from_str(text).map_err(Error::bug)?;
        let keys = table.iter().flat_map(|(section, values)| {
            let values = values.as_table().into_iter().flatten();
            values.map(move |(name, value)| (format!("{section}.{name}"), value.to_string()))
        });
        Ok(keys.collect())
    };
    let (before, now) = (keys(before)?, keys(now)?);
    let shown = |value: Option<&String>| value.map_or("its default", String::as_str).to_owned();
    let all: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let differ = all.into_iter().filter(|key| before.get(*key) != now.get(*key));
    let differ = differ
        .map(|key| format!("{key} was {} and is {}", shown(before.get(key)), shown(now.get(key))));
    Ok(differ.collect::<Vec<_>>().join("; "))
}

impl Tried {
    /// A candidate that has not begun.
    pub fn new(candidate: Candidate) -> Self {
        let Candidate { name, keys } = candidate;
        Self { name, keys, rungs: vec![], failed: None, dropped: false }
    }

    /// The scores of `rung` on each of `splits` splits; `None` before the rung is finished.
    pub fn scores(&self, rung: usize, splits: usize) -> Option<&[Option<f64>]> {
        self.rungs.get(rung).filter(|scores| scores.len() >= splits).map(Vec::as_slice)
    }

    /// The mean score of `rung`; `None` before the rung is finished, and for NaN.
    pub fn mean(&self, rung: usize, splits: usize) -> Option<f64> {
        let scores: Option<Vec<f64>> = self.scores(rung, splits)?.iter().copied().collect();
        let scores = scores.filter(|scores| !scores.is_empty())?;
        Some(scores.iter().sum::<f64>() / scores.len() as f64)
    }

    /// The candidate's name and keys.
    pub fn candidate(&self) -> Candidate {
        Candidate { name: self.name.clone(), keys: self.keys.clone() }
    }
}
