//! A repository's folder in the cache, in the layout of huggingface_hub.
//!
//! `models--OWNER--NAME/` has four kinds of files: `blobs/HASH` holds a file's bytes,
//! `snapshots/COMMIT/FILE` links to a blob, `refs/BRANCH` names a commit, and
//! `.no_exist/COMMIT/FILE` records that the commit has no such file.

use super::repo::{Repo, is_plain};
use crate::error::{Error, Result};
use crate::files::{self, FileWriter};
use crate::lock::{self, LockOutcome};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Once;

/// The folder of one repository.
pub struct Folder {
    path: PathBuf,
    locks: PathBuf,
    /// Done once the user knows that the file system has no locks.
    warned: Once,
}

impl Folder {
    /// The folder of `repo` in `cache`. The folder need not exist.
    pub fn of(repo: &Repo, cache: &Path) -> Self {
        let name = format!("{}--{}", repo.kind.plural(), repo.id.replace('/', "--"));
        Self {
            path: cache.join(&name),
            locks: cache.join(".locks").join(name),
            warned: Once::new(),
        }
    }

    /// The folder with the files of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.path.join("snapshots").join(commit)
    }

    /// The commit that `refs` records for the branch or tag `revision`, or else `revision` itself.
    pub fn commit_of(&self, revision: &str) -> String {
        let noted = std::fs::read_to_string(self.path.join("refs").join(revision));
        let noted = noted.ok().map(|text| text.trim().to_owned()).filter(|text| is_plain(text));
        noted.unwrap_or_else(|| revision.to_owned())
    }

    /// Records the commit of a branch or tag. Does not fail if the cache cannot be written.
    pub fn note_commit(&self, revision: &str, commit: &str) {
        note(&self.path.join("refs").join(revision), commit);
    }

    /// Records that a commit has no file of this name. Does not fail if the cache cannot be
    /// written.
    pub fn note_absent(&self, commit: &str, name: &str) {
        note(&self.no_exist(commit, name), "");
    }

    /// Whether a commit is known to have no file of this name.
    pub fn is_absent(&self, commit: &str, name: &str) -> bool {
        self.no_exist(commit, name).exists()
    }

    fn no_exist(&self, commit: &str, name: &str) -> PathBuf {
        self.path.join(".no_exist").join(commit).join(name)
    }

    /// The paths of a commit's files, relative to the commit's folder and sorted. Dangling links
    /// are included.
    pub fn list(&self, commit: &str) -> Vec<String> {
        fn below(folder: &Path, prefix: &str, files: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if std::fs::metadata(entry.path()).is_ok_and(|found| found.is_dir()) {
                    below(&entry.path(), &format!("{name}/"), files);
                } else {
                    files.push(name);
                }
            }
        }
        let mut files = vec![];
        below(&self.snapshot(commit), "", &mut files);
        files.sort();
        files
    }

    /// The path of the blob with the hash `etag`. Creates the folder of blobs.
    pub fn blob(&self, etag: &str) -> Result<PathBuf> {
        let blobs = self.path.join("blobs");
        files::create_dir(&blobs)?;
        Ok(blobs.join(etag))
    }

    /// Locks the blob with the hash `etag` until the result is dropped. Waits while another process
    /// holds the lock.
    ///
    /// On a file system without locks, warns the first time and locks nothing.
    pub fn lock(&self, etag: &str) -> Result<FileWriter> {
        files::create_dir(&self.locks)?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file = FileWriter::append(&path)?;
        match lock::attempt(file.file()) {
            LockOutcome::Locked => {}
            LockOutcome::Taken => file.file().lock().map_err(Error::io("lock", &path))?,
            LockOutcome::Failed(error) if lock::has_no_locks(&error) => {
                self.warned.call_once(|| lock::warn_of_no_locks(&self.path, &error));
            }
            LockOutcome::Failed(error) => return Err(Error::io("lock", &path)(error)),
        }
        Ok(file)
    }

    /// Puts the blob into a commit's folder under this name, as a symbolic link. If the file system
    /// has no links, a `new` blob is moved there and an old one is copied.
    pub fn link(&self, blob: &Path, commit: &str, name: &str, new: bool) -> Result<()> {
        let link = self.snapshot(commit).join(name);
        files::create_dir(link.parent().unwrap_or(&self.path))?;
        // Remove an earlier link that dangles.
        if link.is_symlink() && !link.exists() {
            files::remove(&link)?;
        }
        let up = "../".repeat(2 + name.matches('/').count());
        let target = format!("{up}blobs/{}", blob.file_name().unwrap_or_default().display());
        match files::symlink(Path::new(&target), &link) {
            Err(Error::Io { source, .. }) if source.kind() != ErrorKind::AlreadyExists => {
                tracing::debug!("{}: no link ({source}), but the file itself", link.display());
                if new { files::rename(blob, &link) } else { files::copy(blob, &link) }
            }
            Err(Error::Io { .. }) => Ok(()),
            other => other,
        }
    }
}

/// Writes `text` to `path`, if it is not there yet. These files only make later runs faster, so
/// that a failure is logged and ignored.
fn note(path: &Path, text: &str) {
    if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
        return;
    }
    let folder = path.parent().unwrap_or(path);
    let written =
        files::create_dir(folder).and_then(|()| files::replace_with(path, text.as_bytes()));
    if let Err(error) = written {
        tracing::debug!("{error}");
    }
}
