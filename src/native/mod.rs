//! Bindings to the C++ side, which has what `tch` does not bind, and to the system calls that want
//! unsafe code. All unsafe code of this crate is in this folder.
//!
//! `ffi` declares the C++ functions, as native.h does.
#![allow(unsafe_code)]

mod adamw;
mod cuda;
mod ffi;
mod flag;
mod flat;
mod kernels;
mod levels;
mod mapped;
mod memory;
mod nvrtc;
mod product;
mod profile;
mod routed;
mod signals;
mod sockets;
mod threads;
mod values;

pub use adamw::{AdamWState, adamw_state, adamw_step, set_adamw_state};
pub use cuda::{CUDA_LIBRARY, folder_of, has_cuda_library, has_driver, load_cuda_library};
pub use flag::Flag;
pub use flat::{bind, set_gradient};
pub use kernels::{
    Dropped, attention, bias_activation, capability, dropout, gpu_name, load_kernels, residual_norm,
};
pub use levels::{check_cpu_level, cpu_level, cpu_levels};
pub use mapped::{forget_mapped, name_mapped, report_bus_errors};
pub use memory::{
    fewer_at_once, forget, peak_gpu_mib, pinned, release_free_memory, reset_gpu_peak,
    use_memory_pool,
};
pub use nvrtc::{Image, Nvrtc, dotted};
pub use product::{
    allow_tf32, check_cache_capacity, check_product, check_product_by, kept_product,
    multiplies_bfloat16, product, product_by, product_time_ratio,
};
pub use profile::{profile_report, profile_start, profile_stop};
pub use routed::{
    LoraLayer, Routed, RowSpan, TaskLayer, TaskRow, TaskTables, has_kernels, routed_activation,
    routed_add, routed_linear, routed_norm,
};
pub use signals::{
    exit_now, explain_lack_of_memory, hold_signals, ignore_file_size_signal, ignores,
    kill_this_process, stop_this_process,
};
pub use sockets::drop_new_connections;
pub use threads::{fit_threads, on_one_thread};
pub use values::{MappedValues, Values};

use crate::error::{Error, Result};
use std::ffi::{CStr, c_int, c_void};
use tch::Tensor;

fn raw(tensor: &Tensor) -> *mut c_void {
    tensor.as_ptr().cast_mut().cast()
}

fn raw_or_null(tensor: Option<&Tensor>) -> *mut c_void {
    tensor.map_or(std::ptr::null_mut(), raw)
}

fn check(code: c_int, action: &str) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the message is NUL-terminated, belongs to this thread and lives until the thread's
    // next failing call.
    let message = unsafe { CStr::from_ptr(ffi::bitfit_last_error()) }.to_string_lossy();
    Err(Error::torch(action, &message))
}

/// Calls `kernel` and returns the tensor that it makes.
///
/// # Safety
///
/// The pointers in `args` must be valid, as native.h describes them.
unsafe fn made<A>(
    action: &str,
    kernel: unsafe extern "C" fn(*mut *mut c_void, *const A) -> c_int,
    args: &A,
) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the caller vouches for the arguments. On success `out` points to a new tensor that
    // the caller owns.
    unsafe {
        check(kernel(&mut out, args), action)?;
        Ok(Tensor::from_ptr(out.cast()))
    }
}

/// Like [`made`], for a kernel that may also make its result in half precision.
///
/// # Safety
///
/// As [`made`].
unsafe fn made_rounded<A>(
    action: &str,
    kernel: unsafe extern "C" fn(*mut *mut c_void, *mut *mut c_void, *const A) -> c_int,
    args: &A,
) -> Result<(Tensor, Option<Tensor>)> {
    let (mut out, mut rounded) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: as in `made`; `rounded` is null or points to a new tensor too.
    unsafe {
        check(kernel(&mut out, &mut rounded, args), action)?;
        let rounded = (!rounded.is_null()).then(|| Tensor::from_ptr(rounded.cast()));
        Ok((Tensor::from_ptr(out.cast()), rounded))
    }
}
