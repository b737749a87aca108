//! The configuration in a run's directory.

use crate::error::{Error, Result};
use crate::files;
use std::path::{Path, PathBuf};

/// The configuration's file in a run's directory.
pub const CONFIG: &str = "config.toml";

/// The path of the configuration of the run in `dir`. Errs if `dir` has none.
pub fn config_of(dir: &Path) -> Result<PathBuf> {
    let path = dir.join(CONFIG);
    if !files::is_there(&path)? {
        let problem =
            "not a run directory: no config.toml there; expected the output_dir of a training";
        return Err(Error::file(dir, problem));
    }
    Ok(path)
}
