//! How much may come out of files that hold more than their size says: compressed ones, Parquet.

use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What files of any size may hold.
const LEAST: u64 = 256 << 20;

/// What larger files may hold, for each of their bytes. Texts are rarely compressed to less than a thirtieth.
const TIMES: u64 = 64;

/// What a row takes beside its texts and labels.
pub const ROW: u64 = 256;

/// What a value in a list takes beside its text.
pub const ENTRY: u64 = 64;

/// Bytes that may still come out of files: unpacked ones, and the rows made of them.
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

    /// Takes `bytes` off; false where the budget does not have them, and from then on.
    pub fn spend(&self, bytes: u64) -> bool {
        let spent = self.spent.load(Ordering::Relaxed).saturating_add(bytes);
        self.spent.store(spent, Ordering::Relaxed);
        spent <= self.limit
    }

    /// Whether more was spent than there was.
    pub fn is_exceeded(&self) -> bool {
        self.spent.load(Ordering::Relaxed) > self.limit
    }

    /// The error of the file that exceeds it.
    pub fn exceeded(&self, path: &Path) -> Error {
        let problem = format!(
            "{} bytes unpack to more than {} MiB; expected at most 256 MiB, or {TIMES} times as many; if that is right, save them \
             uncompressed, as .csv or .jsonl",
            self.size,
            self.limit >> 20
        );
        Error::data(path, None, problem)
    }

    /// [`Budget::spend`], or the error.
    pub fn take(&self, bytes: u64, path: &Path) -> Result<()> {
        if self.spend(bytes) { Ok(()) } else { Err(self.exceeded(path)) }
    }
}
