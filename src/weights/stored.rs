//! The descriptions of the tensors in a weight file, which are read before any tensor data.

use super::mapped::Mapped;
use crate::error::{Error, Result};
use crate::{escape, native};
use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Number of elements that are converted at a time.
const AT_ONCE: i64 = 1 << 18;

/// A mapped file. The pages are read on first use, and shared with other processes.
#[derive(Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The file's bytes.
    pub bytes: Tensor,
    /// The file's state when it was mapped.
    pub mapped: Arc<Mapped>,
}

/// A range of a file's bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRange {
    pub start: u64,
    pub length: u64,
    /// The CRC-32 that the file records, if any.
    pub checksum: Option<u32>,
}

/// The description of a tensor in a weight file.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The dtype, by PyTorch's name.
    pub dtype: Cow<'static, str>,
    /// The same dtype as a [`Kind`]; `None` if it is not supported.
    pub kind: Option<Kind>,
    pub shape: Vec<i64>,
    /// The strides in elements, as in PyTorch.
    pub strides: Vec<i64>,
    /// The offset of the first element in the storage, in elements.
    pub offset: i64,
    /// The bytes of the storage that the tensor is a view of.
    pub storage: ByteRange,
}

impl Source {
    /// Maps a file. Also returns the open file, to read the descriptions of its tensors.
    pub fn open(path: &Path) -> Result<(Self, File)> {
        let (file, size) = crate::files::open_regular(path)?;
        let utf8 = path.to_str().ok_or_else(|| Error::file(path, "the path is not UTF-8"))?;
        let size = i64::try_from(size).map_err(|_| Error::file(path, "too large"))?;
        let whole = (Kind::Uint8, Device::Cpu);
        // An empty file cannot be mapped.
        let bytes = match size {
            0 => Tensor::f_empty([0], whole)?,
            _ => Tensor::f_from_file(utf8, false, size, whole)?,
        };
        let mapped = Arc::new(Mapped::new(path, &file, &bytes)?);
        Ok((Self { path: path.to_owned(), bytes, mapped }, file))
    }

    /// Compares a range of bytes with its checksum, if it has one. Returns an error if they differ.
    pub fn check(&self, stretch: &ByteRange) -> Result<()> {
        let Some(expected) = stretch.checksum else { return Ok(()) };
        let bytes = self.bytes.f_narrow(0, stretch.start as i64, stretch.length as i64)?;
        let mut hash = crc32fast::Hasher::new();
        each_piece(&bytes, Kind::Uint8, |piece| hash.update(piece))?;
        if hash.finalize() == expected {
            return Ok(());
        }
        let problem = "damaged: a tensor's checksum does not match its contents";
        Err(Error::file(&self.path, problem))
    }
}

impl Stored {
    /// Describes a contiguous tensor.
    pub fn dense(
        dtype: Cow<'static, str>,
        kind: Option<Kind>,
        shape: Vec<i64>,
        storage: ByteRange,
    ) -> Self {
        let mut strides = vec![1; shape.len()];
        let mut next = 1_i64;
        for (stride, &size) in strides.iter_mut().zip(&shape).rev() {
            *stride = next;
            next = next.saturating_mul(size.max(1));
        }
        Self { dtype, kind, shape, strides, offset: 0, storage }
    }

    /// The dtype and the shape, for messages.
    pub fn described(&self) -> String {
        match self.shape.len() {
            0..=8 => format!("{} {:?}", self.dtype, self.shape),
            dimensions => format!("{} of {dimensions} dimensions", self.dtype),
        }
    }

    /// The tensor's size in bytes. `None` if the tensor reaches out of its storage, or is much
    /// larger than its storage.
    pub fn bytes(&self) -> Option<u64> {
        let width = self.kind.map_or(1, Kind::elt_size_in_bytes) as u64;
        let there = i128::from(self.storage.length / width);
        let numel = self.shape.iter().fold(1, |n: i128, &size| n.saturating_mul(size.into()));
        let is_inside = numel == 0 || i128::from(self.offset) + self.span()? <= there;
        // A tensor may repeat its storage's elements, as a vector of zeros does, but only a small
        // one: a hostile file could give it any size.
        let fits = self.offset >= 0 && is_inside && numel <= there.max(1 << 16);
        fits.then_some(numel as u64 * width)
    }

    /// Number of elements from the first one to the last one in the storage. `None` if a size or a
    /// stride is negative, or their numbers differ.
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

    /// The tensor: a view of its file if possible, otherwise a copy. The caller must have checked
    /// that [`Stored::bytes`] is not `None`.
    pub fn load(&self, file: &Source) -> Result<Tensor> {
        let kind = self.kind.unwrap_or(Kind::Uint8);
        let width = kind.elt_size_in_bytes() as i64;
        let span = self.span().and_then(|span| i64::try_from(span).ok());
        let (Some(span), Some(1..)) = (span, self.bytes()) else {
            return Ok(Tensor::f_zeros(&self.shape[..], (kind, Device::Cpu))?);
        };
        let start = self.storage.start as i64 + self.offset * width;
        let bytes = file.bytes.f_narrow(0, start, span * width)?;
        // An unaligned tensor is copied, because a view must be aligned.
        let bytes = if start % width == 0 { bytes } else { bytes.f_detach_copy()? };
        let view = bytes.f_view_dtype(kind)?;
        Ok(view.f_as_strided(&self.shape[..], &self.strides[..], None::<i64>)?.f_contiguous()?)
    }
}

/// Passes a tensor's elements to `take` as bytes of `kind`, in pieces. The pages of a mapped file
/// that were read are dropped again.
pub fn each_piece(tensor: &Tensor, kind: Kind, mut take: impl FnMut(&[u8])) -> Result<()> {
    let flat = tensor.f_view(-1)?;
    let (count, mut at) = (flat.numel() as i64, 0);
    let mut bytes = vec![];
    while at < count {
        let length = AT_ONCE.min(count - at);
        let stored = flat.f_narrow(0, at, length)?;
        let piece = stored.f_to_kind(kind)?;
        bytes.resize(kind.elt_size_in_bytes() * length as usize, 0);
        piece.f_copy_data_u8(&mut bytes, length as usize)?;
        take(&bytes);
        native::forget(&stored);
        at += length;
    }
    Ok(())
}

/// A tensor's or file's name for messages, shortened.
pub fn short(name: &str) -> String {
    escape::short(name, 200)
}
