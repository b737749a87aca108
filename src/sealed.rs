//! A safetensors file of ours: it carries the SHA-256 of itself, so that no damaged one is taken for whole.

use crate::error::{Error, Result};
use crate::files;
use crate::weights::write_safetensors;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use tch::Tensor;

/// The metadata's key of the checksum: of all of the file's bytes, with zeros in its own place.
const KEY: &str = "sha256";

/// What stands before the checksum; within any other text the quotes would be escaped.
const BEFORE: &[u8] = b"\"sha256\":\"";

/// Digits of the checksum.
const DIGITS: usize = 64;

/// What a safetensors file holds.
#[derive(Debug)]
pub struct Contents {
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
    /// Its tensors, fp32 on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// The checksum, where it has one; it is right.
    pub checksum: Option<String>,
}

/// The bytes of a sealed file; the same contents give the same ones.
pub fn to_bytes(
    mut metadata: BTreeMap<String, String>,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Vec<u8>> {
    metadata.insert(KEY.into(), "0".repeat(DIGITS));
    let mut bytes = Vec::new();
    write_safetensors(&mut bytes, Path::new("memory"), &metadata, tensors)?;
    let digest = files::hex(&Sha256::digest(&bytes));
    let place = place(&bytes).and_then(|place| bytes.get_mut(place..place + DIGITS));
    let place =
        place.ok_or_else(|| Error::Bug("a file without a place for its checksum".into()))?;
    place.copy_from_slice(digest.as_bytes());
    Ok(bytes)
}

/// The checksum in the bytes of a sealed file.
pub fn checksum(bytes: &[u8]) -> Option<&str> {
    let place = place(bytes)?;
    std::str::from_utf8(bytes.get(place..place + DIGITS)?).ok()
}

/// Reads a safetensors file; one with a wrong checksum is refused.
pub fn read(path: &Path) -> Result<Contents> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let broken = |problem: &dyn std::fmt::Display| {
        Error::file(path, format!("not a whole safetensors file: {problem}"))
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| broken(&e))?;
    let metadata: BTreeMap<String, String> =
        header.metadata().clone().unwrap_or_default().into_iter().collect();
    let checksum = metadata.get(KEY).cloned();
    if let Some(expected) = &checksum {
        let found = unsealed(&bytes).map(|bytes| files::hex(&Sha256::digest(bytes)));
        if found.as_ref() != Some(expected) {
            return Err(Error::file(path, "damaged: its checksum is not that of its contents"));
        }
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|e| broken(&e))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            let (expected, found) = ("float32".into(), format!("{:?}", view.dtype()));
            return Err(Error::Tensor { path: path.into(), tensor: name.into(), expected, found });
        }
        let shape: Vec<i64> =
            view.shape().iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, tch::Kind::Float)?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(Contents { metadata, tensors, checksum })
}

/// The bytes with zeros in the place of the checksum.
fn unsealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let place = place(bytes)?;
    let mut bytes = bytes.to_vec();
    bytes.get_mut(place..place + DIGITS)?.fill(b'0');
    Some(bytes)
}

/// Where the checksum begins: in the header, whose length the file begins with.
fn place(bytes: &[u8]) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk()?;
    let header = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let found = header.windows(BEFORE.len()).position(|window| window == BEFORE)?;
    Some(size_of::<u64>() + found + BEFORE.len())
}
