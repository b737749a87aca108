//! The run directory: whose it is, and how it begins.

use super::Prepared;
use crate::config::Run;
use crate::data::TOKENIZER_FILES;
use crate::error::{Error, Result};
use crate::files;
use std::fs::{File, TryLockError};
use std::path::Path;

/// What a run writes there, the copies of the tokenizer's files aside. The file that marks a run is the last to be removed.
const WRITTEN: [&str; 5] =
    ["delta.safetensors", "metrics.jsonl", "summary.json", "checkpoints", "config.toml"];

/// What a run would write over in a model's directory.
const MODELS: [&str; 2] = ["config.json", "model.safetensors"];

/// How the config.toml of a run begins: what tells a run from anything else of these names.
const MARK: &str = "# As it was run; written by bitfit";

/// Refuses a directory that holds a run, unless `overwrite`, or that holds something else under a run's names.
pub fn check(run: &Run, overwrite: bool) -> Result<()> {
    let (path, base) = (&run.config.training.output_dir, &run.config.model.model_name_or_path);
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if real(path) == real(base) {
        let expected = "another directory than the base, which is never written to";
        return Err(run.error("training.output_dir", &path.display(), expected));
    }
    if let Some(start) =
        run.config.model.init_delta.as_ref().filter(|start| real(start).starts_with(real(path)))
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
    let config = std::fs::read_to_string(path.join("config.toml")).unwrap_or_default();
    let shown = path.display();
    if !config.starts_with(MARK) {
        let (there, key) = (there.join(", "), "--set training.output_dir=DIR");
        return Err(Error::Usage(format!(
            "{shown} holds {there}, and not from a run; name another directory with {key}"
        )));
    }
    if !overwrite {
        return Err(Error::Usage(format!(
            "{shown} holds a run already; name another directory with --set training.output_dir=DIR, or replace it with --overwrite"
        )));
    }
    Ok(())
}

/// Begins the run's directory, the old run removed; it is this run's alone until what is returned is dropped.
pub fn begin(run: &Run, prepared: &Prepared, overwrite: bool) -> Result<File> {
    let path = &run.config.training.output_dir;
    files::create_dir(path)?;
    let lock_path = path.join(".lock");
    let lock = File::options()
        .create(true)
        .append(true)
        .open(&lock_path)
        .map_err(Error::io("create", &lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::Usage(format!("another run is writing to {}", path.display())));
        }
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &lock_path)(error)),
    }
    // Another run may have come and gone since the first look.
    check(run, overwrite)?;
    for name in WRITTEN {
        let old = path.join(name);
        files::remove_unfinished(&old)?;
        let removed =
            if old.is_dir() { std::fs::remove_dir_all(&old) } else { std::fs::remove_file(&old) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &old)(error));
            }
            _ => {}
        }
    }
    let config = format!("{MARK} {}.\n{}", env!("CARGO_PKG_VERSION"), prepared.resolved.to_toml()?);
    files::replace_with(&path.join("config.toml"), config.as_bytes())?;
    for file in &prepared.tokenizer.files {
        let bytes = std::fs::read(file).map_err(Error::io("read", file))?;
        files::replace_with(&path.join(file.file_name().unwrap_or_default()), &bytes)?;
    }
    Ok(lock)
}
