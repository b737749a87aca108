//! The keys of `--api-key-file`.

use crate::error::{Error, Result};
use crate::files;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use subtle::ConstantTimeEq;

/// The most bytes of a file of keys.
const MOST: u64 = 1 << 20;

/// Characters that a key has at least: a shorter one can be guessed.
const SHORTEST: usize = 16;

/// The keys that requests may have.
pub struct Keys {
    path: PathBuf,
    /// The SHA-256 of each key.
    digests: RwLock<Vec<[u8; 32]>>,
}

impl Keys {
    /// Reads a file with a key a line. Empty lines, and lines that begin with `#`, are left out.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or has no keys, and a key that is too short.
    pub fn read(path: &Path) -> Result<Self> {
        let digests = RwLock::new(digests(path)?);
        Ok(Self { path: path.to_owned(), digests })
    }

    /// Reads the file again. The keys stay as they are if that fails.
    ///
    /// # Errors
    ///
    /// As [`Keys::read`].
    pub fn reload(&self) -> Result<()> {
        let new = digests(&self.path)?;
        *self.digests.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Whether `key` is one of the keys. The time says nothing about them.
    pub fn has(&self, key: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let digests = self.digests.read().unwrap_or_else(PoisonError::into_inner);
        let each = digests.iter().map(|known| known.ct_eq(&digest));
        each.fold(0.into(), |found: subtle::Choice, is| found | is).into()
    }
}

fn digests(path: &Path) -> Result<Vec<[u8; 32]>> {
    let text = files::read_small_text(path, MOST)?;
    let mut digests = vec![];
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.len() < SHORTEST || line.contains(char::is_whitespace) {
            let problem = format!("expected a key of {SHORTEST} or more characters without spaces");
            return Err(Error::data(path, number, problem));
        }
        digests.push(Sha256::digest(line).into());
    }
    if digests.is_empty() {
        return Err(Error::file(path, "no keys; expected one a line"));
    }
    Ok(digests)
}
