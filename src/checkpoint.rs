//! What a run saves on its way: `checkpoints/step-000100/`, from each of which it goes on as if it had never stopped.
//!
//! `delta.safetensors` is the task as it was then, `trainer_state.safetensors` what else the run needs, `best.safetensors` what the
//! run's own `delta.safetensors` was.

use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::optim::{LossScale, Memory};
use crate::{files, sealed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The directory of the checkpoints, within a run's.
pub const FOLDER: &str = "checkpoints";

const DELTA: &str = "delta.safetensors";
const STATE: &str = "trainer_state.safetensors";
const BEST: &str = "best.safetensors";
const SCHEMA_VERSION: &str = "1";
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// Where a run stands. Nothing random is in it: the order of the rows and dropout are functions of seed, epoch and row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Steps taken.
    pub step: u64,
    /// Steps of the whole run.
    pub total: u64,
    /// Whether the evaluation after that step is still to be done.
    pub evaluation_due: bool,
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds in steps.
    pub seconds_in_steps: f64,
    /// Seconds in saving.
    pub seconds_saving: f64,
    /// Seconds of the processes that were the run so far.
    pub seconds_in_all: f64,
    /// Step and metrics of what the run's `delta.safetensors` holds.
    pub kept: Option<(u64, BTreeMap<String, f64>)>,
    /// The checksum of that file; states of an older version did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_checksum: Option<String>,
    /// SHA-256 of the file `model.init_delta`, where the run began from one; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_delta_sha256: Option<String>,
    /// The best evaluation's metric.
    pub best: Option<f64>,
    /// Evaluations since one gained something.
    pub without_gain: u64,
    /// Length of `metrics.jsonl`.
    pub metrics_bytes: u64,
    /// fp16's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// Of the rows, training and evaluation.
    pub data_fingerprint: String,
    /// What it was computed on: with another, the last bits may differ.
    pub computed_on: String,
}

/// A state with all its tensors.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where the run stands.
    pub state: State,
    /// What was trained.
    pub delta: Delta,
    /// AdamW's moments, by tensor.
    pub memories: BTreeMap<String, Memory>,
}

impl Checkpoint {
    /// Writes it below `output_dir`, beside and renamed, with the run's `best` delta; then removes all but the newest `keep`.
    pub fn save(&self, output_dir: &Path, best: Option<&Path>, keep: usize) -> Result<PathBuf> {
        let path = output_dir.join(FOLDER).join(name(self.state.step));
        let delta = self.delta.to_bytes()?;
        let state = self.state_bytes(sealed::checksum(&delta).unwrap_or_default())?;
        files::replace_dir(&path, |dir| {
            files::write(&dir.join(DELTA), &delta)?;
            files::write(&dir.join(STATE), &state)?;
            // A link costs nothing, and the run replaces its own file instead of writing into it.
            best.map_or(Ok(()), |best| files::link(best, &dir.join(BEST)))
        })?;
        remove_older(output_dir, keep)?;
        Ok(path)
    }

    fn state_bytes(&self, delta: &str) -> Result<Vec<u8>> {
        let state = serde_json::to_string(&self.state).map_err(|e| Error::Bug(e.to_string()))?;
        let metadata = [("state", &*state), ("delta", delta), ("schema_version", SCHEMA_VERSION)];
        let tensors = self.memories.iter().flat_map(|(name, memory)| {
            let both = [&memory.exp_avg, &memory.exp_avg_sq];
            MOMENTS
                .iter()
                .zip(both)
                .map(move |(moment, tensor)| (format!("{moment}.{name}"), tensor.shallow_clone()))
        });
        sealed::to_bytes(
            metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            &tensors.collect(),
        )
    }

    /// Reads the checkpoint in `folder`; one that is not whole is refused.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(STATE);
        let contents = sealed::read(&path)?;
        let wrong = |problem: String| Error::file(&path, format!("not a trainer state: {problem}"));
        let value = |key| contents.metadata.get(key).map_or("", String::as_str);
        let version = value("schema_version");
        if contents.checksum.is_none() || version != SCHEMA_VERSION {
            return Err(wrong(format!(
                "schema version {version:?}, expected {SCHEMA_VERSION} and a checksum"
            )));
        }
        let mut state: State =
            serde_json::from_str(value("state")).map_err(|error| wrong(error.to_string()))?;
        let mut memories = BTreeMap::new();
        for (name, exp_avg) in &contents.tensors {
            let Some(name) = name.strip_prefix("exp_avg.") else { continue };
            let exp_avg_sq = contents.tensors.get(&format!("exp_avg_sq.{name}"));
            let exp_avg_sq =
                exp_avg_sq.ok_or_else(|| wrong(format!("no second moment of {name}")))?;
            let (exp_avg, exp_avg_sq) = (exp_avg.shallow_clone(), exp_avg_sq.shallow_clone());
            memories.insert(name.to_owned(), Memory { exp_avg, exp_avg_sq });
        }
        let delta_path = folder.join(DELTA);
        let delta = sealed::read(&delta_path)?;
        if delta.checksum.as_deref() != Some(value("delta")) {
            return Err(Error::file(
                &delta_path,
                "not the delta that the trainer state beside it was saved with",
            ));
        }
        if state.kept.is_some() {
            let path = folder.join(BEST);
            let best = sealed::read(&path)?;
            if state.kept_checksum.is_some() && state.kept_checksum != best.checksum {
                let problem =
                    "not the best state of the run that the trainer state beside it is of";
                return Err(Error::file(&path, problem));
            }
            state.kept_checksum.clone_from(&best.checksum);
            Delta::of(&path, best)?;
        }
        Ok(Self { state, delta: Delta::of(&delta_path, delta)?, memories })
    }

    /// The newest whole checkpoint of a run; those that are not whole are reported, and removed with all that are newer.
    pub fn newest(output_dir: &Path) -> Result<Option<(PathBuf, Self)>> {
        let mut problems: Vec<(PathBuf, Error)> = vec![];
        for (_, path) in steps(output_dir)?.into_iter().rev() {
            match Self::read(&path) {
                Ok(found) => {
                    for (path, error) in problems {
                        tracing::warn!("{error}; the state before it is used");
                        files::remove(&path)?;
                    }
                    return Ok(Some((path, found)));
                }
                Err(error) => problems.push((path, error)),
            }
        }
        match problems.first() {
            None => Ok(None),
            Some((_, error)) => {
                let problem = format!(
                    "no whole state among {} ({error}); begin anew with --overwrite",
                    problems.len()
                );
                Err(Error::file(&output_dir.join(FOLDER), problem))
            }
        }
    }

    /// Puts the run's `delta.safetensors` back to what it was when the checkpoint in `folder` was saved.
    pub fn restore_best(folder: &Path, run_delta: &Path) -> Result<()> {
        let best = folder.join(BEST);
        let bytes = files::read(&best)?;
        if files::read(run_delta).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        files::replace_with(run_delta, &bytes)
    }
}

/// Makes the directory of a run's checkpoints, without what a killed process left there: unfinished ones, and more than the newest `keep`.
pub fn prepare(output_dir: &Path, keep: usize) -> Result<()> {
    let folder = output_dir.join(FOLDER);
    files::create_dir(&folder)?;
    files::remove_unfinished(&folder);
    remove_older(output_dir, keep)
}

/// Removes all checkpoints but the newest `keep`.
fn remove_older(output_dir: &Path, keep: usize) -> Result<()> {
    let older = steps(output_dir)?.into_iter().rev().skip(keep);
    older.map(|(_, path)| path).try_for_each(|path| files::remove(&path))
}

fn name(step: u64) -> String {
    format!("step-{step:06}")
}

/// The checkpoints of a run, by step.
pub fn steps(output_dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let folder = output_dir.join(FOLDER);
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(Error::io("read", &folder))?,
    };
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok();
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| step(&entry.path()).map(|number| (number, entry.path())))
        .collect();
    found.sort();
    Ok(found)
}
