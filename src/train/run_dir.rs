//! Reads the directory of an earlier run.

use super::summary::Summary;
use super::{metrics_file, output};
use crate::config::{RunConfig, config_of};
use crate::error::{Error, Result};
use crate::files;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An evaluation in `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// Steps so far.
    pub step: u64,
    /// Epochs so far.
    pub epoch: f64,
    /// The metrics, by name.
    pub metrics: BTreeMap<String, f64>,
}

/// The contents of a run directory.
#[derive(Debug, Clone)]
pub struct RunDir {
    /// The directory.
    pub dir: PathBuf,
    /// The configuration as it was run.
    pub config: RunConfig,
    /// The summary; `None` if the run has not ended.
    pub summary: Option<Summary>,
}

impl RunDir {
    /// Reads the run in `dir`. Errs if `dir` has no `config.toml`.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = config_of(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            config: RunConfig::read(&path, &[])?,
            summary: Summary::read(dir)?,
        })
    }

    /// Finds the run directories in `dir`: `dir` itself if it holds a run, else all below it,
    /// sorted.
    pub fn below(dir: &Path) -> Result<Vec<PathBuf>> {
        if output::holds_run(dir)? {
            return Ok(vec![dir.to_owned()]);
        }
        let entries = std::fs::read_dir(dir).map_err(Error::io("read", dir))?.flatten();
        let mut folders: Vec<PathBuf> = entries
            // Links are not followed, because they may lead back here.
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        folders.sort();
        let found: Result<Vec<_>> = folders.iter().map(|folder| Self::below(folder)).collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// Reads the evaluations of the run in `dir`, in order; empty if there is no `metrics.jsonl`.
    pub fn evaluations(dir: &Path) -> Result<Vec<Evaluated>> {
        let path = dir.join(metrics_file::FILE);
        if !files::is_there(&path)? {
            return Ok(vec![]);
        }
        let mut found = vec![];
        for line in files::read_text(&path)?.lines() {
            // A line that a kill cut short is skipped.
            let Ok(record) = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(line)
            else {
                continue;
            };
            let number = |key: &str| record.get(key).and_then(serde_json::Value::as_f64);
            let metrics: BTreeMap<String, f64> = record
                .iter()
                .filter_map(|(key, value)| {
                    Some((key.strip_prefix("eval_")?.to_owned(), value.as_f64()?))
                })
                .collect();
            if let (Some(step), Some(epoch), false) =
                (number("step"), number("epoch"), metrics.is_empty())
            {
                found.push(Evaluated { step: step as u64, epoch, metrics });
            }
        }
        Ok(found)
    }
}
