//! `metrics.jsonl`: the records of a run, a line each.

use super::events::{Event, Listener};
use crate::error::{Error, Result};
use crate::files::FileWriter;
use crate::{escape, files};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The name of the file of all records in a run's directory.
pub const FILE: &str = "metrics.jsonl";

/// Waits until all records are on the disk, and returns the size of `metrics.jsonl` in bytes.
pub fn flushed(output_dir: &Path) -> Result<u64> {
    let path = output_dir.join(FILE);
    // Nothing has been logged yet.
    if !files::is_there(&path)? {
        return Ok(0);
    }
    let file = FileWriter::append(&path)?;
    file.sync()?;
    file.size()
}

/// Cuts `metrics.jsonl` to `bytes`, its size when the checkpoint was saved. Warns if the file is
/// shorter.
pub fn cut(output_dir: &Path, bytes: u64) -> Result<()> {
    let path = output_dir.join(FILE);
    let mut file = FileWriter::append(&path)?;
    let there = file.size()?;
    if there < bytes {
        tracing::warn!(
            "{}: found {there} bytes, expected {bytes} or more; new records are appended",
            path.display()
        );
        return Ok(());
    }
    file.cut(bytes)
}

/// A listener that writes `metrics.jsonl` and can also write its lines and the summary to stdout.
pub struct MetricsFile {
    path: PathBuf,
    file: Option<FileWriter>,
    echo: bool,
}

impl MetricsFile {
    /// A listener for the run directory `output_dir`; with `echo`, it writes to stdout too.
    pub fn new(output_dir: &Path, echo: bool) -> Self {
        Self { path: output_dir.join(FILE), file: None, echo }
    }

    fn write(&mut self, value: &impl Serialize, to_file: bool) -> Result<()> {
        let line = serde_json::to_string(value).map_err(Error::bug)? + "\n";
        if to_file {
            if self.file.is_none() {
                // A resumed run has already cut the file to the records before its checkpoint.
                self.file = Some(FileWriter::append(&self.path)?);
            }
            if let Some(file) = &mut self.file {
                file.put(line.as_bytes())?;
            }
        }
        if self.echo {
            // If the reader of stdout is gone, the run goes on without it.
            self.echo = files::tell(&escape::json(&line))?;
        }
        Ok(())
    }
}

impl Listener for MetricsFile {
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Record(record) => self.write(record, true),
            Event::Finished { summary, .. } => {
                self.write(&serde_json::json!({ "summary": summary }), false)
            }
            _ => Ok(()),
        }
    }
}
