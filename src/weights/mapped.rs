//! Mapped weight files. The tensors are views of the file and are read on first use, so writing to
//! the file changes the tensors.

use crate::error::{Error, Result};
use crate::{lock, native};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tch::Tensor;

/// A mapped file, with its size and times when it was mapped.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    file: File,
    stamp: Mutex<Stamp>,
    /// The record of [`native::name_mapped`].
    named: Option<usize>,
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if let Some(place) = self.named {
            native::forget_mapped(place);
        }
    }
}

/// The size and times of a file. Writing to a file sets its modification time. Renaming a file or
/// changing its permissions sets only its change time.
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
    /// Records the state of `file`, which was opened at `path` before all its bytes were mapped as
    /// `whole`. Returns an error if another file was mapped than was opened.
    pub fn new(path: &Path, file: &File, whole: &Tensor) -> Result<Self> {
        let named = native::name_mapped(whole, path);
        let file = file.try_clone().map_err(Error::io("read", path))?;
        let stamp = Stamp::of(&file.metadata().map_err(Error::io("read", path))?);
        let mapped = Self { path: path.to_owned(), file, stamp: Mutex::new(stamp), named };
        // The file at `path` may have been replaced between opening and mapping.
        let is_whole = stamp.size == whole.numel() as u64;
        if is_whole && mapped.is_at_its_path() { Ok(mapped) } else { Err(mapped.changed()) }
    }

    fn is_at_its_path(&self) -> bool {
        let both = std::fs::metadata(&self.path).ok().zip(self.file.metadata().ok());
        both.is_some_and(|(there, own)| lock::same(&there, &own))
    }

    /// Checks that nothing was written to the file. If only its change time differs,
    /// `holds_the_same` reads it again. Returns an error if the contents may differ.
    pub fn check_unchanged(&self, holds_the_same: impl FnOnce() -> Result<bool>) -> Result<()> {
        let found = self.file.metadata().map_err(Error::io("read", &self.path))?;
        let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, now) = (*stamp, Stamp::of(&found));
        if before == now {
            return Ok(());
        }
        let is_written_to = (before.size, before.modified) != (now.size, now.modified);
        // Renaming another file over this one does not change the contents that are mapped.
        if is_written_to || (self.is_at_its_path() && !holds_the_same()?) {
            return Err(self.changed());
        }
        *stamp = now;
        Ok(())
    }

    fn changed(&self) -> Error {
        let problem = "written to while it was in use, so later results would be those of another base. Restore it, and run the \
                       command again (a training with --resume). To change a base that is in use, write a new file and rename it to this name";
        Error::file(&self.path, problem)
    }
}
