//! The run directory: checks that a run may use it, and writes its first files.

use super::plan::ModelPlan;
use super::{manifest, metrics_file, summary, tensorboard};
use crate::checkpoint;
use crate::config::{CONFIG, Run, RunConfig};
use crate::data::TOKENIZER_FILES;
use crate::error::{Error, Result};
use crate::files;
use crate::lock::Lock;
use std::collections::BTreeMap;
use std::path::Path;

/// The action for a run that the output directory already holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Refuse to start.
    Fresh,
    /// Replace the run.
    Overwrite,
    /// Resume the run.
    Resume,
}

/// Names that a run writes in its directory, without the copies of the tokenizer's files.
const WRITTEN: [&str; 7] = [
    "delta.safetensors",
    metrics_file::FILE,
    summary::FILE,
    manifest::FILE,
    tensorboard::FOLDER,
    checkpoint::FOLDER,
    CONFIG,
];

/// Names of a model's files. A run does not write into a model's directory.
const MODELS: [&str; 2] = ["config.json", "model.safetensors"];

/// The beginning of a run's `config.toml`. Any other `config.toml` lacks it.
const MARK: &str = "# As it was run; written by bitfit";

/// Keys that may change when a run is resumed: the run's directory, length, saving, logging, device
/// and memory use, and the paths of inputs that are checked by fingerprint.
const FREE: [&str; 13] = [
    "model.model_name_or_path",
    "model.weights",
    "data.train",
    "data.eval",
    "training.output_dir",
    "training.num_train_epochs",
    "training.max_steps",
    "training.save_strategy",
    "training.save_steps",
    "training.save_total_limit",
    "training.device",
    "training.logging_steps",
    "training.gradient_checkpointing",
];

/// Checks that the run may write to its output directory. Errs in four cases: the directory is the
/// base's; it contains `model.init_delta`; it holds a run that `start` neither replaces nor
/// resumes; it holds other files under a run's names.
pub fn check(run: &Run, start: Start) -> Result<()> {
    let (path, base) = (run.output_dir(), &run.model().model_name_or_path);
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if real(path) == real(base) {
        let expected = "another directory than the base, which is never written to";
        return Err(run.error("training.output_dir", &path.display(), expected));
    }
    if let Some(start) =
        run.model().init_delta.as_ref().filter(|start| real(start).starts_with(real(path)))
    {
        let expected = "another directory than the one that model.init_delta is in";
        return Err(run.error("training.output_dir", &start.display(), expected));
    }
    let there: Vec<&str> = WRITTEN
        .into_iter()
        .chain(MODELS)
        .chain(TOKENIZER_FILES)
        .filter(|name| path.join(name).exists())
        .collect();
    if there.is_empty() {
        return Ok(());
    }
    let shown = path.display();
    if !holds_run(path)? {
        let (there, key) = (there.join(", "), "--set training.output_dir=DIR");
        return Err(Error::Usage(format!(
            "{shown} holds {there}, which are not from a run; choose another directory with {key}"
        )));
    }
    if start == Start::Fresh {
        return Err(Error::Usage(format!(
            "{shown} already holds a run; continue it with --resume, replace it with --overwrite, or choose another directory with --set training.output_dir=DIR"
        )));
    }
    Ok(())
}

/// Whether the directory `path` holds a run, which means a `config.toml` written by training.
pub fn holds_run(path: &Path) -> Result<bool> {
    let path = path.join(CONFIG);
    Ok(files::is_there(&path)? && files::read_text(&path)?.starts_with(MARK))
}

/// Reads the configuration of the run in the directory `path`; `None` if it has no `config.toml`.
fn as_it_was_run(path: &Path) -> Result<Option<RunConfig>> {
    let path = path.join(CONFIG);
    if files::is_there(&path)? { RunConfig::read(&path, &[]).map(Some) } else { Ok(None) }
}

/// Returns `run`, on a resume with what the earlier run found: the Hub's revisions, and the
/// precision. A revision is set only if `run` names none, and names the same model or data as the
/// earlier run; a precision only if `run` has `auto`.
pub fn pinned(run: &Run, start: Start) -> Result<Run> {
    let run = run.clone();
    if start != Start::Resume {
        return Ok(run);
    }
    let Some(RunConfig { model, data, training, .. }) = as_it_was_run(run.output_dir())? else {
        return Ok(run);
    };
    let same_base = run.model().model_name_or_path == model.model_name_or_path;
    let same_data = run.data().train == data.train && run.data().eval == data.eval;
    let of_base = model.revision.filter(|_| same_base);
    let run = run.with_revisions(of_base, data.revision.filter(|_| same_data));
    Ok(run.with_precision(training.precision))
}

/// Errs if the output directory holds a run of another configuration. The keys in `FREE` may
/// differ.
fn check_same(run: &Run, resolved: &RunConfig) -> Result<()> {
    let path = run.output_dir();
    let Some(before) = as_it_was_run(path)? else { return Ok(()) };
    let (before, now) = (keys(&before)?, keys(resolved)?);
    let shown = |value: Option<&String>| value.map_or("its default", String::as_str).to_owned();
    let all: std::collections::BTreeSet<_> = before.keys().chain(now.keys()).collect();
    let other: Vec<String> = all
        .into_iter()
        .filter(|key| !FREE.contains(&key.as_str()) && before.get(*key) != now.get(*key))
        .map(|key| format!("{key} was {} and is {}", shown(before.get(key)), shown(now.get(key))))
        .collect();
    if other.is_empty() {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{} holds a run of another configuration: {}; continue with the same configuration, replace the run with --overwrite, or choose another directory with --set training.output_dir=DIR",
        path.display(),
        other.join("; ")
    )))
}

/// Returns every key, as `section.key`, with its value as TOML.
fn keys(config: &RunConfig) -> Result<BTreeMap<String, String>> {
    let table = toml::Table::try_from(config).map_err(|e| Error::Usage(e.to_string()))?;
    let values = table.iter().flat_map(|(section, values)| {
        let values = values.as_table().into_iter().flatten();
        values.map(move |(key, value)| (format!("{section}.{key}"), value.to_string()))
    });
    Ok(values.collect())
}

/// Creates and locks the run's directory, checks the directory again, and changes nothing else in
/// it. The directory is this run's alone until the returned lock is dropped.
pub fn claim(run: &Run, plan: &ModelPlan, start: Start) -> Result<Lock> {
    let path = run.output_dir();
    let lock = files::claim_dir(path, "another run is writing to")?;
    // Another run may have written here since the first check.
    check(run, start)?;
    if start == Start::Resume {
        check_same(run, &plan.resolved)?;
    }
    Ok(lock)
}

/// Begins the run in its directory, or resumes it: writes the configuration and the tokenizer's
/// files. Unless the run is resumed, removes the files of an earlier run first.
pub fn begin(run: &Run, plan: &ModelPlan, start: Start) -> Result<()> {
    let path = run.output_dir();
    files::remove_unfinished(path);
    if start != Start::Resume {
        // `config.toml` marks a run, so it is replaced and never missing: a run that is killed here
        // leaves a directory that is still known as a run's.
        let old = WRITTEN.into_iter().filter(|name| *name != CONFIG);
        old.map(|name| path.join(name)).try_for_each(|old| files::remove(&old))?;
    }
    let config = format!("{MARK} {}.\n{}", env!("CARGO_PKG_VERSION"), plan.resolved.to_toml()?);
    files::replace_with(&path.join(CONFIG), config.as_bytes())?;
    checkpoint::prepare(path, run.training().save_total_limit.size())?;
    for (name, bytes) in plan.data.tokenizer.files()? {
        files::replace_with(&path.join(name), &bytes)?;
    }
    Ok(())
}
