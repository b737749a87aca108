//! Checkpoints of a run, such as `checkpoints/step-000100/`. A run that resumes from one continues
//! as if it had never stopped.
//!
//! `delta.safetensors` holds the task at that step, and `trainer_state.safetensors` the rest of the
//! run's state. `best.safetensors` is the run's own `delta.safetensors` at that time.

use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::eval::Constant;
use crate::optim::{LossScale, Moments};
use crate::stats::Course;
use crate::{files, sealed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// The directory of the checkpoints, within the run directory.
pub const FOLDER: &str = "checkpoints";

const DELTA: &str = "delta.safetensors";
const STATE: &str = "trainer_state.safetensors";
const BEST: &str = "best.safetensors";
const SCHEMA_VERSION: &str = "1";
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];
/// What the names of [`Checkpoint::unfolded`] begin with in the file.
const UNFOLDED: &str = "unfolded.";

/// The progress of a run. It needs no state of a random generator, because the order of the rows
/// and dropout are functions of seed, epoch and row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerState {
    /// Steps taken.
    pub step: u64,
    /// Steps of the whole run.
    pub total: u64,
    /// Whether the evaluation after the last step is still to be done.
    pub evaluation_due: bool,
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds spent in steps.
    pub seconds_in_steps: f64,
    /// Seconds spent in saving.
    pub seconds_saving: f64,
    /// Seconds that all processes of the run took so far.
    pub seconds_in_all: f64,
    /// Step and metrics of the state in the run's `delta.safetensors`; `None` before an evaluation
    /// wrote it.
    pub kept: Option<(u64, BTreeMap<String, f64>)>,
    /// The constant answer beside the metrics of `kept`; `None` without these metrics, and in
    /// states of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_constant: Option<Constant>,
    /// The checksum of the run's `delta.safetensors`; `None` in states of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_checksum: Option<String>,
    /// SHA-256 of the file `model.init_delta`; `None` without one, and in states of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_delta_sha256: Option<String>,
    /// The training loss over the steps; empty in states of older versions.
    #[serde(default)]
    pub losses: Course,
    /// The best evaluation's metric.
    pub best: Option<f64>,
    /// Evaluations since the last improvement.
    pub without_gain: u64,
    /// Length of `metrics.jsonl`, in bytes.
    pub metrics_bytes: u64,
    /// The loss scale of fp16; `None` with other precisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// The fingerprint of the training and evaluation rows.
    pub data_fingerprint: String,
    /// Device or number of CPU threads, and precision. With others, the last bits may differ.
    pub computed_on: String,
}

/// The state of a run, with all its tensors.
#[derive(Debug)]
pub struct Checkpoint {
    /// The run's progress.
    pub state: TrainerState,
    /// The task as trained so far.
    pub delta: Delta,
    /// AdamW's moments, by tensor.
    pub moments: BTreeMap<String, Moments>,
    /// Tensors of which `delta` has rounded values, by name, exactly as they train.
    pub unfolded: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// Writes the checkpoint below `output_dir`, with the run's `best` delta, into a temporary
    /// directory that is then renamed. Then removes all but the newest `keep` checkpoints. Returns
    /// the checkpoint's directory.
    pub fn save(&self, output_dir: &Path, best: Option<&Path>, keep: usize) -> Result<PathBuf> {
        let path = output_dir.join(FOLDER).join(name(self.state.step));
        let delta = self.delta.to_bytes()?;
        let state = self.state_bytes(sealed::checksum(&delta).unwrap_or_default())?;
        files::replace_dir(&path, |dir| {
            files::write(&dir.join(DELTA), &delta)?;
            files::write(&dir.join(STATE), &state)?;
            // A link is enough, because the run replaces its own file instead of writing into it.
            best.map_or(Ok(()), |best| files::link(best, &dir.join(BEST)))
        })?;
        remove_older(output_dir, keep)?;
        Ok(path)
    }

    fn state_bytes(&self, delta: &str) -> Result<Vec<u8>> {
        let state = serde_json::to_string(&self.state).map_err(Error::bug)?;
        let metadata = [("state", &*state), ("delta", delta), ("schema_version", SCHEMA_VERSION)];
        let tensors = self.moments.iter().flat_map(|(name, moments)| {
            let both = [&moments.exp_avg, &moments.exp_avg_sq];
            MOMENTS
                .iter()
                .zip(both)
                .map(move |(moment, tensor)| (format!("{moment}.{name}"), tensor.shallow_clone()))
        });
        let unfolded = self.unfolded.iter();
        let unfolded =
            unfolded.map(|(name, tensor)| (format!("{UNFOLDED}{name}"), tensor.shallow_clone()));
        sealed::to_bytes(
            metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            &tensors.chain(unfolded).collect(),
        )
    }

    /// Reads the checkpoint in `folder`. Errs where a file is missing, damaged, or saved with
    /// another checkpoint.
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
        let mut state: TrainerState =
            serde_json::from_str(value("state")).map_err(|error| wrong(error.to_string()))?;
        let (mut moments, mut unfolded) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in &contents.tensors {
            if let Some(name) = name.strip_prefix(UNFOLDED) {
                unfolded.insert(name.to_owned(), tensor.shallow_clone());
            }
            let Some(name) = name.strip_prefix("exp_avg.") else { continue };
            let exp_avg_sq = contents.tensors.get(&format!("exp_avg_sq.{name}"));
            let exp_avg_sq =
                exp_avg_sq.ok_or_else(|| wrong(format!("no second moment of {name}")))?;
            let (exp_avg, exp_avg_sq) = (tensor.shallow_clone(), exp_avg_sq.shallow_clone());
            moments.insert(name.to_owned(), Moments { exp_avg, exp_avg_sq });
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
                let problem = "not the best state that the trainer state beside it was saved with";
                return Err(Error::file(&path, problem));
            }
            state.kept_checksum.clone_from(&best.checksum);
            Delta::of(&path, best)?;
        }
        Ok(Self { state, delta: Delta::of(&delta_path, delta)?, moments, unfolded })
    }

    /// The newest intact checkpoint of a run, and its directory; `None` where there are no
    /// checkpoints. Damaged checkpoints that are newer are reported and removed. Errs where all are
    /// damaged.
    pub fn newest(output_dir: &Path) -> Result<Option<(PathBuf, Self)>> {
        let mut problems: Vec<(PathBuf, Error)> = vec![];
        for (_, path) in steps(output_dir)?.into_iter().rev() {
            match Self::read(&path) {
                Ok(found) => {
                    for (path, error) in problems {
                        tracing::warn!("{error}; the previous checkpoint is used");
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
                    "no intact checkpoint among {} ({error}); start again with --overwrite",
                    problems.len()
                );
                Err(Error::file(&output_dir.join(FOLDER), problem))
            }
        }
    }

    /// Restores the run's `delta.safetensors`, at `run_delta`, to what it was when the checkpoint
    /// in `folder` was saved.
    pub fn restore_best(folder: &Path, run_delta: &Path) -> Result<()> {
        let best = folder.join(BEST);
        let bytes = files::read(&best)?;
        if files::read(run_delta).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        files::replace_with(run_delta, &bytes)
    }
}

/// Creates the directory of a run's checkpoints, and removes what a killed process left there:
/// unfinished checkpoints, and those beyond the newest `keep`.
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

/// The checkpoints of a run: step and directory, in ascending order of steps.
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
