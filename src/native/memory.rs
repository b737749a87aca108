//! Memory of tensors: the pool of the CPU, the device's peak, and less of it after a failure.

use super::{check, ffi, raw};
use crate::error::{Error, Result};
use tch::{Device, Tensor};

/// Replaces libtorch's CPU allocator, in the whole process. From now on large tensors come
/// from a pool, which reuses a freed block for the next tensor of about its size. Further calls do
/// nothing.
pub fn use_memory_pool() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: each tensor keeps the deleter of the allocator that it came from.
    ONCE.call_once(|| unsafe { ffi::bitfit_pool_use() });
}

/// Drops the whole pages of `file` from memory; later accesses read them from disk again. `file` is
/// a mapped file, or a part of one, that was never written to. Tensors in other memory stay as they
/// are.
pub fn forget(file: &Tensor) {
    // SAFETY: C++ checks that the tensor is a view of a mapped file.
    unsafe { ffi::bitfit_forget(raw(file)) }
}

/// Returns the process's free memory to the system.
pub fn release_free_memory() {
    // SAFETY: the call frees only unused blocks.
    unsafe { ffi::bitfit_pool_empty() };
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call frees only unused blocks.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Returns free memory of the host and of `device` to the system, before a failed allocation is
/// tried again.
fn release_device_memory(device: Device) {
    release_free_memory();
    if device.is_cuda() {
        // SAFETY: the call frees only unused blocks, and a failure changes nothing.
        let _ = unsafe { ffi::bitfit_release_gpu_memory() };
    }
}

/// Returns the number of rows to try at once after a computation over `rows` rows failed with
/// `error`.
///
/// Returns `error` if it is not [`Error::OutOfMemory`] or if there are fewer than 2 rows.
pub fn fewer_at_once(error: Error, rows: usize, device: Device) -> Result<usize> {
    if rows < 2 || !matches!(error, Error::OutOfMemory(_)) {
        return Err(error);
    }
    release_device_memory(device);
    let half = rows.div_ceil(2);
    tracing::warn!("{error}; going on with {half} rows at once instead of {rows}");
    Ok(half)
}

/// Copies `tensor` to memory of the host that a GPU can read while the host goes on.
pub fn pinned(tensor: &Tensor) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the tensor outlives the call. On success `out` points to a new tensor that the caller
    // owns.
    unsafe {
        check(ffi::bitfit_pinned(&mut out, raw(tensor)), "copying to pinned memory")?;
        Ok(Tensor::from_ptr(out.cast()))
    }
}

/// Begins a new peak of the memory on `device`, so that what only loading took is left out. Does
/// nothing on the CPU.
pub fn reset_gpu_peak(device: Device) -> Result<()> {
    let Device::Cuda(index) = device else { return Ok(()) };
    let index = i64::try_from(index).unwrap_or(-1);
    // SAFETY: the call takes no pointers.
    check(unsafe { ffi::bitfit_reset_gpu_peak(index) }, "resetting the device's statistics")
}

/// Peak memory of tensors on a CUDA device so far, in MiB; `None` on the CPU.
pub fn peak_gpu_mib(device: Device) -> Result<Option<u64>> {
    let Device::Cuda(index) = device else { return Ok(None) };
    let mut bytes = 0;
    let index = i64::try_from(index).unwrap_or(-1);
    // SAFETY: C++ writes to `bytes` only during the call.
    check(
        unsafe { ffi::bitfit_peak_gpu_bytes(&mut bytes, index) },
        "reading the device's memory statistics",
    )?;
    Ok(Some(bytes.unsigned_abs() >> 20))
}
