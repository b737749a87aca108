//! A weight file that is mapped: its tensors are pieces of the file, read when they are first looked at, so that whoever writes into the file changes the tensors.

use crate::error::{Error, Result};
use crate::{lock, native};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tch::Tensor;

/// A mapped file, and what it was then.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    file: File,
    stamp: Mutex<Stamp>,
}

/// Size and times of a file. Whatever writes to it sets the time of its modification; a new name or other rights, that of its change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

impl Mapped {
    /// Notes what `file` is, which was opened at `path` before all its bytes were mapped as `whole`.
    pub fn new(path: &Path, file: &File, whole: &Tensor) -> Result<Self> {
        native::name_mapped(whole, path);
        let file = file.try_clone().map_err(Error::io("read", path))?;
        let stamp = Stamp::of(&file.metadata().map_err(Error::io("read", path))?);
        let mapped = Self { path: path.to_owned(), file, stamp: Mutex::new(stamp) };
        // Another may have been mapped than was opened.
        let is_whole = stamp.size == whole.numel() as u64;
        if is_whole && mapped.is_at_its_path() { Ok(mapped) } else { Err(mapped.changed()) }
    }

    fn is_at_its_path(&self) -> bool {
        let both = std::fs::metadata(&self.path).ok().zip(self.file.metadata().ok());
        both.is_some_and(|(there, own)| lock::same(&there, &own))
    }

    /// Checks that nothing was written to the file. Where only its name or its rights seem to have changed, `holds_the_same` reads it again.
    pub fn check_unchanged(&self, holds_the_same: impl FnOnce() -> Result<bool>) -> Result<()> {
        let found = self.file.metadata().map_err(Error::io("read", &self.path))?;
        let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, now) = (*stamp, Stamp::of(&found));
        if before == now {
            return Ok(());
        }
        let is_written_to = (before.size, before.modified) != (now.size, now.modified);
        // A file that another was renamed over stays what it was, for those who have it open.
        if is_written_to || (self.is_at_its_path() && !holds_the_same()?) {
            return Err(self.changed());
        }
        *stamp = now;
        Ok(())
    }

    fn changed(&self) -> Error {
        let problem = "written to while it was in use, so what is computed from here on would be of another base. Bring it back as it was, and start \
                       the same command again (a training with --resume). To change a base that is in use, write another file and rename it";
        Error::file(&self.path, problem)
    }
}
