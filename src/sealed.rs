//! Safetensors files that carry their own SHA-256, so that a damaged file is not taken for an
//! intact one.

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

/// The metadata key of the checksum. It is the SHA-256 of the whole file, with zeros in the place
/// of the checksum.
const KEY: &str = "sha256";

/// The bytes before the checksum. They occur nowhere else in the header: JSON escapes quotes within
/// a string.
const BEFORE: &[u8] = b"\"sha256\":\"";

/// Digits of the checksum.
const DIGITS: usize = 64;

/// The most bytes of a header. Even 10,000 labels, stored three times, take only some hundred
/// thousand bytes.
const MOST_HEADER: u64 = 16 << 20;

/// The size in bytes from which files are mapped instead of read.
const MAPPED_FROM: u64 = 64 << 20;

/// The number of bytes that are hashed at once.
const PIECE: usize = 1 << 22;

/// The contents of a safetensors file.
#[derive(Debug)]
pub struct Contents {
    /// The metadata.
    pub metadata: BTreeMap<String, String>,
    /// The tensors, fp32 on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// The checksum, which was verified; `None` where the file has none.
    pub checksum: Option<String>,
    /// The mapped file that the tensors are views of; `None` where the file was read into memory.
    pub mapped: Option<Arc<Mapped>>,
}

/// The bytes of a sealed file; equal contents give equal bytes. Errs where the header is too long
/// for [`read`].
pub fn to_bytes(
    mut metadata: BTreeMap<String, String>,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Vec<u8>> {
    metadata.insert(KEY.into(), "0".repeat(DIGITS));
    let mut bytes = Vec::new();
    write_safetensors(&mut bytes, Path::new("memory"), &metadata, tensors)?;
    // `read` refuses a longer header.
    if let Some(length) = bytes.first_chunk().map(|length| u64::from_le_bytes(*length))
        && length > MOST_HEADER
    {
        return Err(Error::Usage(format!(
            "the task's labels and settings take {length} bytes, expected at most {MOST_HEADER}; use shorter names"
        )));
    }
    let digest = files::hex(&Sha256::digest(&bytes));
    let place = place(&bytes).and_then(|place| bytes.get_mut(place..place + DIGITS));
    let place =
        place.ok_or_else(|| Error::Bug("a file without a place for its checksum".into()))?;
    place.copy_from_slice(digest.as_bytes());
    Ok(bytes)
}

/// The checksum in the bytes of a sealed file; `None` in other bytes.
pub fn checksum(bytes: &[u8]) -> Option<&str> {
    let place = place(bytes)?;
    std::str::from_utf8(bytes.get(place..place + DIGITS)?).ok()
}

/// Reads a safetensors file. Errs where it is incomplete, where its checksum is wrong, or where a
/// tensor is not fp32.
///
/// Large files are mapped, and the tensors are views of the file: memory is taken only when they
/// are used.
pub fn read(path: &Path) -> Result<Contents> {
    let (whole, mapped) = open(path)?;
    of(path, whole, mapped)
}

/// Like [`read`], of the `bytes` of a file. Errors name `path`.
pub fn of_bytes(path: &Path, bytes: &[u8]) -> Result<Contents> {
    of(path, Tensor::f_from_slice(bytes)?, None)
}

fn of(path: &Path, whole: Tensor, mapped: Option<Arc<Mapped>>) -> Result<Contents> {
    let broken = |problem: &dyn std::fmt::Display| {
        Error::file(path, format!("not a complete safetensors file: {problem}"))
    };
    let size = whole.numel();
    let length =
        bytes(&whole, 0, size_of::<u64>()).map_err(|_| broken(&format!("{size} bytes")))?;
    let length = length.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    let start = usize::try_from(length).ok().and_then(|length| length.checked_add(8));
    let start = start.filter(|&start| start <= size && length <= MOST_HEADER).ok_or_else(|| {
        broken(&format!(
            "a header of {length} bytes in a file of {size}, expected at most {MOST_HEADER}"
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
        return Err(Error::file(path, "damaged: the checksum does not match the contents"));
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
        // fp32 views must be aligned, so a tensor at an unaligned offset is copied.
        if !(start + from).is_multiple_of(size_of::<f32>()) {
            piece = piece.f_detach_copy()?;
        }
        tensors.insert(name, piece.f_view_dtype(Kind::Float)?.f_view(&shape[..])?);
    }
    Ok(Contents { metadata, tensors, checksum, mapped })
}

/// The bytes of a file. Small files are read into memory, so that later writes to the file do not
/// change them; large files are mapped.
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

/// The SHA-256 of a file that begins with `head`, with zeros in the place of the checksum; `None`
/// where `head` has no such place.
fn digest(mut head: Vec<u8>, whole: &Tensor) -> Result<Option<String>> {
    let Some(place) = place(&head) else { return Ok(None) };
    let Some(digits) = head.get_mut(place..place + DIGITS) else { return Ok(None) };
    digits.fill(b'0');
    let mut hash = Sha256::new_with_prefix(&head);
    let mut start = head.len();
    while start < whole.numel() {
        // Pieces begin on page boundaries, so that pages of a mapped file can be released after
        // hashing.
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

/// The offset of the checksum in the header. The file begins with the header's length.
fn place(bytes: &[u8]) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk()?;
    let header = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let found = header.windows(BEFORE.len()).position(|window| window == BEFORE)?;
    Some(size_of::<u64>() + found + BEFORE.len())
}
