//! Directories that are one process's alone, by a lock on a file in them.

use crate::error::{Error, Result};
use crate::fault;
use std::fs::{File, Metadata, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The file that is locked, within the directory. It stays when the lock is given back.
pub const FILE: &str = ".lock";

/// The directories that this process has locked, for [`check`].
static HELD: Mutex<Vec<(PathBuf, Arc<File>)>> = Mutex::new(vec![]);

/// A directory that no other process writes to, until this is dropped.
#[derive(Debug)]
pub struct Lock(Arc<File>);

impl Lock {
    /// Locks the directory `dir`; where another process has it, an error begins with `taken`, such as `another run is writing to`.
    pub fn take(dir: &Path, taken: &str) -> Result<Self> {
        let path = dir.join(FILE);
        let open = || File::options().create(true).append(true).open(&path);
        let created = fault::at("create", || ()).and_then(|()| open());
        let file = Arc::new(created.map_err(Error::io("create", &path))?);
        match attempt(&file) {
            Attempt::Locked => {}
            Attempt::Taken => {
                return Err(Error::Usage(format!("{taken} {}", dir.display())));
            }
            Attempt::Failed(error) if has_no_locks(&error) => tracing::warn!(
                "{}: its file system has no locks ({error}), so nothing stops a second process from writing there",
                dir.display()
            ),
            Attempt::Failed(error) => return Err(Error::io("lock", &path)(error)),
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

/// Checks, before `path` is written, that the locked directories above it still are those that this process locked: somebody may have
/// moved them away, and put others in their place.
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

/// Where the directory of a locked file is now, where Linux's /proc says so.
fn place(file: &File) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let is_it = same(&std::fs::metadata(&path).ok()?, &file.metadata().ok()?);
    path.parent().filter(|_| is_it).map(Path::to_owned)
}

/// Whether both are of one file.
pub fn same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// What came of [`attempt`].
#[derive(Debug)]
pub enum Attempt {
    /// This process has the lock, until the file is closed.
    Locked,
    /// Another process has it.
    Taken,
    /// Nobody can say.
    Failed(io::Error),
}

/// Locks an open file, if no other process has locked it.
pub fn attempt(file: &File) -> Attempt {
    match fault::at("lock", || ()).map_err(TryLockError::Error).and_then(|()| file.try_lock()) {
        Ok(()) => Attempt::Locked,
        Err(TryLockError::WouldBlock) => Attempt::Taken,
        Err(TryLockError::Error(error)) => Attempt::Failed(error),
    }
}

/// Whether `error` means that the file system knows no locks, as NFS and Lustre are often mounted, and some of FUSE.
pub fn has_no_locks(error: &io::Error) -> bool {
    [libc::EOPNOTSUPP, libc::ENOSYS, libc::ENOLCK].map(Some).contains(&error.raw_os_error())
}
