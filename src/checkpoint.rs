//! What a run saves on its way: `checkpoints/step-000100/`, the newest few.

use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::files;
use std::path::{Path, PathBuf};

/// Writes the task as it is after `step` steps below `output_dir`, then removes all but the newest `keep`.
pub fn save(output_dir: &Path, step: u64, delta: &Delta, keep: usize) -> Result<PathBuf> {
    let folder = output_dir.join("checkpoints");
    let path = folder.join(format!("step-{step:06}"));
    files::create_dir(&path)?;
    delta.write(&path.join("delta.safetensors"))?;
    let mut saved = steps(&folder)?;
    saved.sort();
    for (_, old) in saved.iter().rev().skip(keep) {
        std::fs::remove_dir_all(old).map_err(Error::io("remove", old))?;
    }
    Ok(path)
}

fn steps(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok();
    Ok(entries
        .flatten()
        .filter_map(|entry| step(&entry.path()).map(|number| (number, entry.path())))
        .collect())
}
