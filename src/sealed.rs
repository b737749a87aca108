//! A safetensors file of ours: it carries the SHA-256 of itself, so that no damaged one is taken for whole.

use crate::error::{Error, Result};
use crate::files;
use crate::native;
use crate::weights::{Mapped, Source, write_safetensors};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// The metadata's key of the checksum: of all of the file's bytes, with zeros in its own place.
const KEY: &str = "sha256";

/// What stands before the checksum; within any other text the quotes would be escaped.
const BEFORE: &[u8] = b"\"sha256\":\"";

/// Digits of the checksum.
const DIGITS: usize = 64;

/// The most bytes of a header. 10,000 labels, three times over, have some hundred thousand.
const MOST_HEADER: u64 = 16 << 20;

/// Files of so many bytes are mapped instead of read.
const MAPPED_FROM: u64 = 64 << 20;

/// Bytes that are looked at together.
const PIECE: usize = 1 << 22;

/// What a safetensors file holds.
#[derive(Debug)]
pub struct Contents {
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
    /// Its tensors, fp32 on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// The checksum, where it has one; it is right.
    pub checksum: Option<String>,
    /// The file, where the tensors are pieces of it.
    pub mapped: Option<Arc<Mapped>>,
}

/// The bytes of a sealed file; the same contents give the same ones.
pub fn to_bytes(
    mut metadata: BTreeMap<String, String>,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Vec<u8>> {
    metadata.insert(KEY.into(), "0".repeat(DIGITS));
    let mut bytes = Vec::new();
    write_safetensors(&mut bytes, Path::new("memory"), &metadata, tensors)?;
    // What cannot be read is not written.
    if let Some(length) = bytes.first_chunk().map(|length| u64::from_le_bytes(*length))
        && length > MOST_HEADER
    {
        return Err(Error::Usage(format!(
            "the task's labels and settings take {length} bytes, and {MOST_HEADER} are allowed; expected shorter names"
        )));
    }
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
///
/// The tensors are pieces of the file, which is mapped where it is large: no memory of their size is taken before they are used.
pub fn read(path: &Path) -> Result<Contents> {
    let broken = |problem: &dyn std::fmt::Display| {
        Error::file(path, format!("not a whole safetensors file: {problem}"))
    };
    let (whole, mapped) = open(path)?;
    let size = whole.numel();
    let length =
        bytes(&whole, 0, size_of::<u64>()).map_err(|_| broken(&format!("{size} bytes")))?;
    let length = length.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    let start = usize::try_from(length).ok().and_then(|length| length.checked_add(8));
    let start = start.filter(|&start| start <= size && length <= MOST_HEADER).ok_or_else(|| {
        broken(&format!(
            "a header of {length} bytes in a file of {size}; expected {MOST_HEADER} at most"
        ))
    })?;
    let head = bytes(&whole, 0, start)?;
    let header = head.get(8..).unwrap_or_default();
    let header: Metadata = serde_json::from_slice(header).map_err(|e| broken(&e))?;
    if start + header.data_len() != size {
        let expected = start + header.data_len();
        return Err(broken(&format!("{size} bytes, expected {expected}")));
    }
    let metadata: BTreeMap<String, String> =
        header.metadata().clone().unwrap_or_default().into_iter().collect();
    let checksum = metadata.get(KEY).cloned();
    if let Some(expected) = &checksum
        && digest(head, &whole)?.as_ref() != Some(expected)
    {
        return Err(Error::file(path, "damaged: its checksum is not that of its contents"));
    }
    let mut tensors = BTreeMap::new();
    for (name, info) in header.tensors() {
        if info.dtype != Dtype::F32 {
            let (expected, found) = ("float32".into(), format!("{:?}", info.dtype));
            return Err(Error::Tensor { path: path.into(), tensor: name, expected, found });
        }
        let shape: Vec<i64> =
            info.shape.iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect();
        let (from, to) = info.data_offsets;
        let mut piece = whole.f_narrow(0, (start + from) as i64, (to - from) as i64)?;
        // Where the file has it askew, it is copied.
        if !(start + from).is_multiple_of(size_of::<f32>()) {
            piece = piece.f_detach_copy()?;
        }
        tensors.insert(name, piece.f_view_dtype(Kind::Float)?.f_view(&shape[..])?);
    }
    Ok(Contents { metadata, tensors, checksum, mapped })
}

/// The bytes of a file; they are in memory where they are few, so that nobody who writes into the file changes them.
fn open(path: &Path) -> Result<(Tensor, Option<Arc<Mapped>>)> {
    let (mut file, size) = files::open_regular(path)?;
    if size < MAPPED_FROM {
        let mut bytes = vec![];
        file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        return Ok((Tensor::f_from_slice(&bytes)?, None));
    }
    let (source, _) = Source::open(path)?;
    Ok((source.bytes, Some(source.mapped)))
}

fn bytes(whole: &Tensor, start: usize, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    whole.f_narrow(0, start as i64, length as i64)?.f_copy_data_u8(&mut bytes, length)?;
    Ok(bytes)
}

/// The digest of a file that begins with `head`, with zeros in the place of the checksum.
fn digest(mut head: Vec<u8>, whole: &Tensor) -> Result<Option<String>> {
    let Some(place) = place(&head) else { return Ok(None) };
    let Some(digits) = head.get_mut(place..place + DIGITS) else { return Ok(None) };
    digits.fill(b'0');
    let mut hash = Sha256::new_with_prefix(&head);
    let mut start = head.len();
    while start < whole.numel() {
        // Whole pages, which are given back where the file is mapped.
        let first = start / PIECE * PIECE;
        let end = whole.numel().min(first + PIECE);
        hash.update(bytes(whole, start, end - start)?);
        if whole.numel() as u64 >= MAPPED_FROM {
            native::forget(&whole.f_narrow(0, first as i64, (end - first) as i64)?);
        }
        start = end;
    }
    Ok(Some(files::hex(&hash.finalize())))
}

/// Where the checksum begins: in the header, whose length the file begins with.
fn place(bytes: &[u8]) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk()?;
    let header = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let found = header.windows(BEFORE.len()).position(|window| window == BEFORE)?;
    Some(size_of::<u64>() + found + BEFORE.len())
}
