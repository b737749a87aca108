//! Values of tasks that threads share: in memory, or in a mapped file.

use crate::error::{Error, Result};
use std::fs::File;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// fp32 values that never change. Clones share them.
#[derive(Debug, Clone)]
pub struct Values {
    whole: Arc<Whole>,
    start: usize,
    length: usize,
}

#[derive(Debug)]
enum Whole {
    Memory(Box<[f32]>),
    Mapped(MappedValues),
}

impl From<Vec<f32>> for Values {
    fn from(values: Vec<f32>) -> Self {
        let length = values.len();
        Self { whole: Arc::new(Whole::Memory(values.into())), start: 0, length }
    }
}

impl From<MappedValues> for Values {
    fn from(values: MappedValues) -> Self {
        let length = values.length;
        Self { whole: Arc::new(Whole::Mapped(values)), start: 0, length }
    }
}

impl Values {
    /// A copy of the values of `tensor`, in the order of its rows.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        let flat = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
        Ok(Vec::<f32>::try_from(flat.f_reshape([-1])?)?.into())
    }

    /// The values from `start` on, `length` of them, without a copy; `None` if there are fewer.
    pub fn part(&self, start: usize, length: usize) -> Option<Self> {
        self.get(start..start.checked_add(length)?)?;
        Some(Self { whole: self.whole.clone(), start: self.start + start, length })
    }

    /// Whether `other` is a clone of these values, or the same part of them.
    pub fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.as_ptr(), other.as_ptr()) && self.length == other.length
    }

    /// Reads a value of each page of a mapped file, so that a later reader does not wait for the
    /// disk.
    pub fn touch(&self) {
        if matches!(*self.whole, Whole::Mapped(_)) {
            // Pages are never smaller.
            let sum: f32 = self.iter().step_by(4096 / size_of::<f32>()).sum();
            std::hint::black_box(sum);
        }
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let whole = match &*self.whole {
            Whole::Memory(values) => values,
            Whole::Mapped(values) => values.as_slice(),
        };
        whole.get(self.start..self.start + self.length).unwrap_or_default()
    }
}

/// fp32 values in a mapped file.
#[derive(Debug)]
pub struct MappedValues {
    address: *const f32,
    length: usize,
}

// SAFETY: the memory is mapped for reading alone, and its file has no other writer than the caller
// of `new`, which is done.
unsafe impl Send for MappedValues {}
// SAFETY: as for Send.
unsafe impl Sync for MappedValues {}

impl MappedValues {
    /// Maps the `length` values of `file`, which is in the directory `dir` and has no name.
    ///
    /// # Errors
    ///
    /// A mapping that the system refuses.
    pub fn new(file: &File, dir: &Path, length: usize) -> Result<Self> {
        let bytes = length.max(1) * size_of::<f32>();
        let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
        // SAFETY: the call maps new addresses. No other process can open the file and cut it.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, read, shared, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(Error::io("map a file in", dir)(std::io::Error::last_os_error()));
        }
        Ok(Self { address: address.cast(), length })
    }

    fn as_slice(&self) -> &[f32] {
        // SAFETY: the pages are mapped until `self` is dropped, and begin at a multiple of 4096.
        unsafe { std::slice::from_raw_parts(self.address, self.length) }
    }
}

impl Drop for MappedValues {
    fn drop(&mut self) {
        let bytes = self.length.max(1) * size_of::<f32>();
        // SAFETY: `new` mapped these addresses, and no slice of them outlives `self`.
        unsafe { libc::munmap(self.address.cast_mut().cast(), bytes) };
    }
}
