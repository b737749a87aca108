//! A tensor as it lies in a weight file: what the file says of it, before any of its numbers is read.

use super::mapped::Mapped;
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Numbers that are read at once, where a tensor is not used as it lies.
const AT_ONCE: i64 = 1 << 18;

/// A file that is mapped into memory: its pages are read when they are first looked at, and shared with other processes.
#[derive(Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Tensor,
    /// What it was when it was mapped.
    pub mapped: Arc<Mapped>,
}

/// A stretch of a file's bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stretch {
    pub start: u64,
    pub length: u64,
    /// The CRC-32 that the file names, where it does.
    pub checksum: Option<u32>,
}

/// What a weight file says of a tensor.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The type of its numbers, by PyTorch's name.
    pub dtype: Cow<'static, str>,
    /// The same, where it is one that is read.
    pub kind: Option<Kind>,
    pub shape: Vec<i64>,
    /// In numbers, as PyTorch's.
    pub strides: Vec<i64>,
    /// The number that it begins with.
    pub offset: i64,
    /// The bytes that it is a view of.
    pub storage: Stretch,
}

impl Source {
    /// Maps a file, and opens it to read what it says of its tensors.
    pub fn open(path: &Path) -> Result<(Self, File)> {
        let (file, size) = crate::files::open_regular(path)?;
        let utf8 = path.to_str().ok_or_else(|| Error::file(path, "a path that is not UTF-8"))?;
        let size = i64::try_from(size).map_err(|_| Error::file(path, "too large"))?;
        let whole = (Kind::Uint8, Device::Cpu);
        // Nothing can be mapped of an empty file.
        let bytes = match size {
            0 => Tensor::f_empty([0], whole)?,
            _ => Tensor::f_from_file(utf8, false, size, whole)?,
        };
        let mapped = Arc::new(Mapped::new(path, &file, &bytes)?);
        Ok((Self { path: path.to_owned(), bytes, mapped }, file))
    }

    /// Compares a stretch with its checksum.
    pub fn check(&self, stretch: &Stretch) -> Result<()> {
        let Some(expected) = stretch.checksum else { return Ok(()) };
        let bytes = self.bytes.f_narrow(0, stretch.start as i64, stretch.length as i64)?;
        let mut hash = crc32fast::Hasher::new();
        each_piece(&bytes, Kind::Uint8, |piece| hash.update(piece))?;
        if hash.finalize() == expected {
            return Ok(());
        }
        let problem = "damaged: a tensor's checksum is not that of its contents";
        Err(Error::file(&self.path, problem))
    }
}

impl Stored {
    /// A tensor whose numbers lie one after the other.
    pub fn dense(
        dtype: Cow<'static, str>,
        kind: Option<Kind>,
        shape: Vec<i64>,
        storage: Stretch,
    ) -> Self {
        let mut strides = vec![1; shape.len()];
        let mut next = 1_i64;
        for (stride, &size) in strides.iter_mut().zip(&shape).rev() {
            *stride = next;
            next = next.saturating_mul(size.max(1));
        }
        Self { dtype, kind, shape, strides, offset: 0, storage }
    }

    /// Type and shape, for messages.
    pub fn described(&self) -> String {
        match self.shape.len() {
            0..=8 => format!("{} {:?}", self.dtype, self.shape),
            dimensions => format!("{} of {dimensions} dimensions", self.dtype),
        }
    }

    /// Its size in the file, in bytes; `None` where it reaches out of its storage, or is larger.
    pub fn bytes(&self) -> Option<u64> {
        let width = self.kind.map_or(1, Kind::elt_size_in_bytes) as u64;
        let there = i128::from(self.storage.length / width);
        let numel = self.shape.iter().fold(1, |n: i128, &size| n.saturating_mul(size.into()));
        let is_inside = numel == 0 || i128::from(self.offset) + self.span()? <= there;
        // One that repeats its storage's numbers, as a vector of zeros may, is small: a hostile one could be of any size.
        let fits = self.offset >= 0 && is_inside && numel <= there.max(1 << 16);
        fits.then_some(numel as u64 * width)
    }

    /// From its first number to behind its last one; `None` where a size or a stride is negative, or one is missing.
    fn span(&self) -> Option<i128> {
        let mut span = 1_i128;
        for (&size, &stride) in self.shape.iter().zip(&self.strides) {
            if size < 0 || stride < 0 {
                return None;
            }
            let step = i128::from(size.max(1) - 1) * i128::from(stride);
            span = span.saturating_add(step);
        }
        (self.shape.len() == self.strides.len()).then_some(span)
    }

    /// The tensor as a piece of its file, where that can be; [`Stored::bytes`] was there before.
    pub fn load(&self, file: &Source) -> Result<Tensor> {
        let kind = self.kind.unwrap_or(Kind::Uint8);
        let width = kind.elt_size_in_bytes() as i64;
        let span = self.span().and_then(|span| i64::try_from(span).ok());
        let (Some(span), Some(1..)) = (span, self.bytes()) else {
            return Ok(Tensor::f_zeros(&self.shape[..], (kind, Device::Cpu))?);
        };
        let start = self.storage.start as i64 + self.offset * width;
        let bytes = file.bytes.f_narrow(0, start, span * width)?;
        // Where the file has it askew, it is copied.
        let bytes = if start % width == 0 { bytes } else { bytes.f_detach_copy()? };
        let view = bytes.f_view_dtype(kind)?;
        Ok(view.f_as_strided(&self.shape[..], &self.strides[..], None::<i64>)?.f_contiguous()?)
    }
}

/// Hands a tensor's numbers over as the bytes of `kind`, some at a time.
pub fn each_piece(tensor: &Tensor, kind: Kind, mut take: impl FnMut(&[u8])) -> Result<()> {
    let flat = tensor.f_view(-1)?;
    let (count, mut at) = (flat.numel() as i64, 0);
    let mut bytes = vec![];
    while at < count {
        let length = AT_ONCE.min(count - at);
        let piece = flat.f_narrow(0, at, length)?.f_to_kind(kind)?;
        bytes.resize(kind.elt_size_in_bytes() * length as usize, 0);
        piece.f_copy_data_u8(&mut bytes, length as usize)?;
        take(&bytes);
        at += length;
    }
    Ok(())
}
