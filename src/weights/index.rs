//! `model.safetensors.index.json`, `pytorch_model.bin.index.json`: which file of a model in several holds which tensor.

use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

/// What an index ends with.
pub const ENDING: &str = ".index.json";

/// An index is far smaller: BERT-large's is 40 kB.
const MOST_BYTES: u64 = 16_000_000;

/// A model of the largest kind is in fewer files.
const MOST_SHARDS: usize = 1_000;

/// The file that holds each tensor, by the tensor's name.
#[derive(Deserialize)]
pub struct Index {
    pub weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads and checks an index; its files lie beside it.
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
                super::short(file)
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

    /// The tensors that it says are in a file.
    pub fn tensors_of(&self, file: &str) -> impl Iterator<Item = &str> {
        self.weight_map.iter().filter(move |(_, of)| *of == file).map(|(tensor, _)| tensor.as_str())
    }

    /// The names of its files, sorted.
    pub fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}

/// The names of the files that the index at `path` is about, sorted: each a plain name, of a file beside it.
pub fn shards(path: &Path) -> Result<Vec<String>> {
    Ok(Index::read(path)?.files().into_iter().map(str::to_owned).collect())
}
