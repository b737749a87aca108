//! The Hugging Face Hub: downloads models and data sets by their id into the standard cache, which
//! all programs that use the Hub share.
//!
//! The files in reading order; each imports only from those before it: `repo`, `environment`,
//! `remote`, `cache`, `choose`, `download`, `client`, `absent`.

#[cfg(not(feature = "hub"))]
mod absent;
#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod choose;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod environment;
#[cfg(feature = "hub")]
mod remote;
mod repo;

#[cfg(not(feature = "hub"))]
pub use absent::Hub;
#[cfg(feature = "hub")]
pub use client::Hub;
pub use repo::{Kind, MAIN, REVISION, Repo, is_id, is_revision};

use crate::error::Result;
use std::path::PathBuf;

/// A callback for progress: the file's name, the bytes so far, and the size if it is known. An
/// error ends the download; the partial file is kept.
pub type Progress<'a> = dyn FnMut(&str, u64, Option<u64>) -> Result<()> + 'a;

/// The files of a repository at a commit, in the cache.
#[derive(Debug)]
pub struct Snapshot {
    /// The folder that holds the files.
    pub folder: PathBuf,
    /// The commit.
    pub commit: String,
    /// The files that were asked for, as paths relative to the folder. For a model, the last is its
    /// weight file, or the index of sharded weights.
    files: Vec<String>,
}

impl Snapshot {
    /// The weight file of a model's snapshot, or the index of sharded weights.
    pub fn weights(&self) -> Option<&str> {
        self.files.last().map(String::as_str)
    }
}

/// The rows of one split of a data set.
#[derive(Debug)]
pub struct Split {
    /// The Parquet files, in order.
    pub files: Vec<PathBuf>,
    /// The commit.
    pub commit: String,
    /// The subset's name.
    pub subset: String,
    /// The split's name.
    pub split: String,
}
