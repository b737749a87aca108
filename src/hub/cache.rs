//! A repository's folder in the cache.
//!
//! `models--OWNER--NAME/` holds `blobs/HASH`, `snapshots/COMMIT/FILE` linking to them, `refs/BRANCH` naming a commit, and
//! `.no_exist/COMMIT/FILE` for what a commit is known not to have. huggingface_hub reads and writes the same.

use super::repo::{Repo, is_plain};
use crate::error::{Error, Result};
use crate::files::{self, Writer};
use crate::lock::{self, Attempt};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where a repository is kept.
pub struct Folder {
    path: PathBuf,
    locks: PathBuf,
}

impl Folder {
    /// The folder of `repo` in `cache`, be it there or not.
    pub fn of(repo: &Repo, cache: &Path) -> Self {
        let name = format!("{}--{}", repo.kind.plural(), repo.id.replace('/', "--"));
        Self { path: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// The files of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.path.join("snapshots").join(commit)
    }

    /// The commit that a branch or tag was when it was last asked for; a commit is its own.
    pub fn commit_of(&self, revision: &str) -> String {
        let noted = std::fs::read_to_string(self.path.join("refs").join(revision));
        let noted = noted.ok().map(|text| text.trim().to_owned()).filter(|text| is_plain(text));
        noted.unwrap_or_else(|| revision.to_owned())
    }

    /// Notes which commit a branch or tag is.
    pub fn note_commit(&self, revision: &str, commit: &str) {
        note(&self.path.join("refs").join(revision), commit);
    }

    /// Notes that a commit has no file of this name.
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

    /// The files of a commit, by their paths below its folder, sorted. Links to nowhere are among them.
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

    /// The file that holds the bytes with this hash, in a folder that is there.
    pub fn blob(&self, etag: &str) -> Result<PathBuf> {
        let blobs = self.path.join("blobs");
        files::create_dir(&blobs)?;
        Ok(blobs.join(etag))
    }

    /// Waits until no other process downloads these bytes, and keeps others waiting while the result lives.
    pub fn lock(&self, etag: &str) -> Result<Writer> {
        files::create_dir(&self.locks)?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file = Writer::append(&path)?;
        match lock::attempt(file.file()) {
            Attempt::Locked => {}
            Attempt::Taken => file.file().lock().map_err(Error::io("lock", &path))?,
            Attempt::Failed(error) if lock::has_no_locks(&error) => tracing::warn!(
                "{}: its file system has no locks ({error}); let no other program download the same now",
                self.path.display()
            ),
            Attempt::Failed(error) => return Err(Error::io("lock", &path)(error)),
        }
        Ok(file)
    }

    /// Makes the blob a commit's file of this name: by a link, and where there are none by moving a `new` blob there or copying an old one.
    pub fn link(&self, blob: &Path, commit: &str, name: &str, new: bool) -> Result<()> {
        let link = self.snapshot(commit).join(name);
        files::create_dir(link.parent().unwrap_or(&self.path))?;
        // A link of before that leads nowhere.
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

/// Writes what makes later runs faster, where it is not there yet: a cache that cannot be written serves as well without.
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
