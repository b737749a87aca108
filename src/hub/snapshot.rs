//! What a download gives: the files of a model, or of a data set's split.

use crate::error::Result;
use std::path::PathBuf;

/// A callback for progress: the file's name, the bytes so far, and the size if it is known. An
/// error ends the download; the partial file is kept.
pub type DownloadProgress<'a> = dyn FnMut(&str, u64, Option<u64>) -> Result<()> + 'a;

/// The files of a repository at a commit, in the cache.
#[derive(Debug)]
pub struct HubSnapshot {
    /// The folder that holds the files.
    pub folder: PathBuf,
    /// The commit.
    pub commit: String,
    /// The files that were asked for, as paths relative to the folder. For a model, the last is its
    /// weight file, or the index of sharded weights.
    pub(super) files: Vec<String>,
}

impl HubSnapshot {
    /// The weight file of a model's snapshot, or the index of sharded weights.
    pub fn weights(&self) -> Option<&str> {
        self.files.last().map(String::as_str)
    }
}

/// The rows of one split of a data set.
#[derive(Debug)]
pub struct DatasetSplit {
    /// The Parquet files, in order.
    pub files: Vec<PathBuf>,
    /// The commit.
    pub commit: String,
    /// The subset's name.
    pub subset: String,
    /// The split's name.
    pub split: String,
}
