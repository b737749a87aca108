//! A limit on what compressed files and Parquet may expand to, because they can hold far more than
//! their size.

use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that files of any size may expand to.
const LEAST: u64 = 256 << 20;

/// Bytes that larger files may expand to, per byte of their size. Texts are rarely compressed to
/// less than a thirtieth.
const TIMES: u64 = 64;

/// Bytes that a row takes besides its texts and labels.
pub const ROW: u64 = 256;

/// Bytes that a value in a list takes besides its text.
pub const ENTRY: u64 = 64;

/// The bytes that files may still expand to: decompressed bytes, and the rows made of them. Clones
/// share what is left.
#[derive(Debug, Clone)]
pub struct Budget {
    size: u64,
    limit: u64,
    spent: Arc<AtomicU64>,
}

impl Budget {
    /// The budget of files that are read together.
    pub fn of(files: &[impl AsRef<Path>]) -> Self {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |about| about.len());
        let size = files.iter().map(|path| size(path.as_ref())).fold(0, u64::saturating_add);
        let limit = size.saturating_mul(TIMES).max(LEAST);
        Self { size, limit, spent: Arc::default() }
    }

    /// Bytes that are left.
    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.spent.load(Ordering::Relaxed))
    }

    /// Takes `bytes` off. Returns false once the budget is exceeded.
    pub fn spend(&self, bytes: u64) -> bool {
        let spent = self.spent.load(Ordering::Relaxed).saturating_add(bytes);
        self.spent.store(spent, Ordering::Relaxed);
        spent <= self.limit
    }

    /// Whether more than the limit was spent.
    pub fn is_exceeded(&self) -> bool {
        self.spent.load(Ordering::Relaxed) > self.limit
    }

    /// The error for the file that exceeds the budget.
    pub fn exceeded(&self, path: &Path) -> Error {
        let problem = format!(
            "{} bytes decompress to more than {} MiB; expected at most 256 MiB, or {TIMES} times the size; if the data is \
             really this large, save it uncompressed, as .csv or .jsonl",
            self.size,
            self.limit >> 20
        );
        Error::data(path, None, problem)
    }

    /// Takes `bytes` off, as [`Budget::spend`] does. Errs once the budget is exceeded.
    pub fn take(&self, bytes: u64, path: &Path) -> Result<()> {
        if self.spend(bytes) { Ok(()) } else { Err(self.exceeded(path)) }
    }
}
