//! The index of sharded weights: which file holds which tensor (`model.safetensors.index.json`,
//! `pytorch_model.bin.index.json`).

use super::stored::short;
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

/// The ending of an index's file name.
pub const ENDING: &str = ".index.json";

/// Maximum size of an index in bytes. BERT-large's has 40 kB.
const MOST_BYTES: u64 = 16_000_000;

/// Maximum number of files. The largest models have fewer.
const MOST_SHARDS: usize = 1_000;

/// The file that holds each tensor, by the tensor's name.
#[derive(Deserialize)]
pub struct Index {
    pub weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads and checks an index. Returns an error unless each file name is a plain name, for a
    /// file beside the index.
    pub fn read(path: &Path) -> Result<Self> {
        let text = crate::files::read_small(path, MOST_BYTES)?;
        let index: Self = serde_json::from_slice(&text)
            .map_err(|e| Error::file(path, format!("not an index of weights: {e}")))?;
        let outside = |file: &&String| {
            let mut parts = Path::new(file).components();
            file.len() > 255
                || !matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == file.as_str())
        };
        if let Some(file) = index.weight_map.values().find(outside) {
            let problem = format!(
                "weight_map: found {:?}, expected the name of a file beside it",
                short(file)
            );
            return Err(Error::file(path, problem));
        }
        match index.files().len() {
            1..=MOST_SHARDS => Ok(index),
            count => Err(Error::file(
                path,
                format!("weight_map: found {count} files, expected 1 to {MOST_SHARDS}"),
            )),
        }
    }

    /// The names of the tensors that the index assigns to `file`.
    pub fn tensors_of(&self, file: &str) -> impl Iterator<Item = &str> {
        self.weight_map.iter().filter(move |(_, of)| *of == file).map(|(tensor, _)| tensor.as_str())
    }

    /// The names of the index's files, sorted.
    pub fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}

/// The names of the files in the index at `path`, sorted. Each is a plain name, for a file beside
/// the index.
pub fn shards(path: &Path) -> Result<Vec<String>> {
    Ok(Index::read(path)?.files().into_iter().map(str::to_owned).collect())
}
