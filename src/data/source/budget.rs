//! How much may come out of a file that holds more than its size says: a compressed one, a Parquet.

use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What any file may hold.
const LEAST: u64 = 256 << 20;

/// What a larger file may hold, for each of its bytes. Texts are rarely compressed to less than a thirtieth.
const TIMES: u64 = 64;

/// What a row takes beside its texts and labels.
pub const ROW: u64 = 256;

/// What a value in a list takes beside its text.
pub const ENTRY: u64 = 64;

/// Bytes that may still come out of a file: unpacked ones, and the rows made of them.
#[derive(Debug, Clone)]
pub struct Budget {
    file: u64,
    limit: u64,
    spent: Arc<AtomicU64>,
}

impl Budget {
    /// The budget of a file of so many bytes.
    pub fn of(file: u64) -> Self {
        let limit = file.saturating_mul(TIMES).max(LEAST);
        Self { file, limit, spent: Arc::default() }
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

    /// The error of a file that holds more.
    pub fn exceeded(&self, path: &Path) -> Error {
        let problem = format!(
            "its {} bytes unpack to more than {} MiB; expected at most 256 MiB, or {TIMES} times its size; if that is right, save it \
             uncompressed, as .csv or .jsonl",
            self.file,
            self.limit >> 20
        );
        Error::data(path, None, problem)
    }

    /// [`Budget::spend`], or the error.
    pub fn take(&self, bytes: u64, path: &Path) -> Result<()> {
        if self.spend(bytes) { Ok(()) } else { Err(self.exceeded(path)) }
    }
}
