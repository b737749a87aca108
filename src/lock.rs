//! Locks a directory for one process, through a lock on a file in the directory.

use crate::error::{Error, Result};
use crate::fault;
use std::fs::{File, Metadata, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The name of the locked file in the directory. The file stays after the lock is released.
pub const FILE: &str = ".lock";

/// The directories that this process has locked, with their lock files, for [`check`].
static HELD: Mutex<Vec<(PathBuf, Arc<File>)>> = Mutex::new(vec![]);

/// A lock on a directory. Until it is dropped, no other process can lock the directory.
#[derive(Debug)]
pub struct Lock(Arc<File>);

impl Lock {
    /// Locks the directory `dir`.
    ///
    /// If another process holds the lock, the error's message begins with `taken`, such as
    /// `another run is writing to`. A file system without locks gives only a warning.
    pub fn take(dir: &Path, taken: &str) -> Result<Self> {
        let path = dir.join(FILE);
        let open = || File::options().create(true).append(true).open(&path);
        let created = fault::at("create", || ()).and_then(|()| open());
        let file = Arc::new(created.map_err(Error::io("create", &path))?);
        match attempt(&file) {
            LockOutcome::Locked => {}
            LockOutcome::Taken => {
                return Err(Error::Usage(format!("{taken} {}", dir.display())));
            }
            LockOutcome::Failed(error) if has_no_locks(&error) => warn_of_no_locks(dir, &error),
            LockOutcome::Failed(error) => return Err(Error::io("lock", &path)(error)),
        }
        if let Ok(mut held) = HELD.lock() {
            held.push((dir.to_owned(), file.clone()));
        }
        let lock = Self(file);
        check(&path)?;
        Ok(lock)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Ok(mut held) = HELD.lock() {
            held.retain(|(_, file)| !Arc::ptr_eq(file, &self.0));
        }
    }
}

/// Checks, before `path` is written, that each locked directory above `path` is still the one that
/// this process locked. A user may have moved a directory away and put another in its place.
///
/// Errs with [`Error::Moved`].
pub fn check(path: &Path) -> Result<()> {
    let Ok(held) = HELD.lock() else { return Ok(()) };
    for (dir, file) in held.iter().filter(|(dir, _)| path.starts_with(dir)) {
        let gone = match (std::fs::metadata(dir.join(FILE)), file.metadata()) {
            (Ok(there), Ok(held)) => !same(&there, &held),
            (Err(error), _) => {
                matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
            }
            _ => false,
        };
        if gone {
            return Err(Error::Moved { dir: dir.clone(), now: place(file) });
        }
    }
    Ok(())
}

/// The present directory of a locked file, by Linux's /proc; `None` if unknown.
fn place(file: &File) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let is_it = same(&std::fs::metadata(&path).ok()?, &file.metadata().ok()?);
    path.parent().filter(|_| is_it).map(Path::to_owned)
}

/// Whether `a` and `b` describe the same file.
pub fn same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// The result of [`attempt`].
#[derive(Debug)]
pub enum LockOutcome {
    /// This process holds the lock until the file is closed.
    Locked,
    /// Another process holds the lock.
    Taken,
    /// The system call failed; whether another process holds the lock is unknown.
    Failed(io::Error),
}

/// Locks an open file unless another process has locked it. Does not wait.
pub fn attempt(file: &File) -> LockOutcome {
    match fault::at("lock", || ()).map_err(TryLockError::Error).and_then(|()| file.try_lock()) {
        Ok(()) => LockOutcome::Locked,
        Err(TryLockError::WouldBlock) => LockOutcome::Taken,
        Err(TryLockError::Error(error)) => LockOutcome::Failed(error),
    }
}

/// Warns that `dir` is on a file system without locks, for an error of [`has_no_locks`].
pub fn warn_of_no_locks(dir: &Path, error: &io::Error) {
    tracing::warn!(
        "{}: the file system has no locks ({error}); make sure that no other process writes there",
        dir.display()
    );
}

/// Whether `error` means that the file system has no locks, as with many mounts of NFS and Lustre
/// and some of FUSE.
pub fn has_no_locks(error: &io::Error) -> bool {
    [libc::EOPNOTSUPP, libc::ENOSYS, libc::ENOLCK].map(Some).contains(&error.raw_os_error())
}
