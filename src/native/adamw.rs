//! The fused step of AdamW, and its moments, which tch does not expose.

use super::{check, ffi, raw, raw_or_null};
use crate::error::Result;
use std::ffi::c_void;
use tch::{COptimizer, Tensor};

// tch does not expose an optimizer's state. `COptimizer` holds nothing but a pointer to a
// `torch::optim::Optimizer`, so we read that pointer.
const _: () = assert!(size_of::<COptimizer>() == size_of::<*mut c_void>());

fn raw_optimizer(optimizer: &COptimizer) -> *mut c_void {
    // SAFETY: the assertion above checks the size, and Cargo.toml pins the exact version of tch.
    unsafe { std::ptr::from_ref(optimizer).cast::<*mut c_void>().read() }
}

/// AdamW's state for one parameter: the step count and the moments of the gradient. The moments
/// share the optimizer's tensors and are not copies.
#[derive(Debug)]
pub struct AdamWState {
    /// The number of steps taken.
    pub step: i64,
    /// The first moment.
    pub exp_avg: Tensor,
    /// The second moment.
    pub exp_avg_sq: Tensor,
}

/// Returns the state of `optimizer`, an AdamW, for `parameter`; `None` before the first step.
pub fn adamw_state(optimizer: &COptimizer, parameter: &Tensor) -> Result<Option<AdamWState>> {
    let null = std::ptr::null_mut();
    let mut args = ffi::AdamwArgs { step: 0, exp_avg: null, exp_avg_sq: null };
    // SAFETY: optimizer and parameter outlive the call, and C++ writes to `args` only during it.
    let code =
        unsafe { ffi::bitfit_adamw_get(raw_optimizer(optimizer), raw(parameter), &mut args) };
    check(code, "reading AdamW's moments")?;
    let ffi::AdamwArgs { step, exp_avg, exp_avg_sq } = args;
    if exp_avg.is_null() || exp_avg_sq.is_null() {
        return Ok(None);
    }
    // SAFETY: both are new handles that the caller owns.
    let (exp_avg, exp_avg_sq) =
        unsafe { (Tensor::from_ptr(exp_avg.cast()), Tensor::from_ptr(exp_avg_sq.cast())) };
    Ok(Some(AdamWState { step, exp_avg, exp_avg_sq }))
}

/// Sets the state of `optimizer`, an AdamW, for `parameter`.
///
/// Errs if a moment's shape, kind or device differs from the parameter's.
pub fn set_adamw_state(
    optimizer: &mut COptimizer,
    parameter: &Tensor,
    state: &AdamWState,
) -> Result<()> {
    let AdamWState { step, exp_avg, exp_avg_sq } = state;
    let args = ffi::AdamwArgs { step: *step, exp_avg: raw(exp_avg), exp_avg_sq: raw(exp_avg_sq) };
    // SAFETY: the tensors outlive the call; C++ keeps handles of its own and checks their shapes.
    let code = unsafe { ffi::bitfit_adamw_set(raw_optimizer(optimizer), raw(parameter), &args) };
    check(code, "setting AdamW's moments")
}

/// Takes one step of `optimizer`, an AdamW whose only parameter is `parameter`, in one fused pass
/// over gradient, moments and values. Where `skip`, an fp32 scalar on the parameter's device, is 1,
/// nothing changes but the count of steps. Errs if `parameter` has no gradient.
pub fn adamw_step(
    optimizer: &mut COptimizer,
    parameter: &Tensor,
    skip: Option<&Tensor>,
) -> Result<()> {
    let (optimizer, skip) = (raw_optimizer(optimizer), raw_or_null(skip));
    // SAFETY: the tensors outlive the call; C++ checks that there is a gradient.
    let code = unsafe { ffi::bitfit_adamw_step(optimizer, raw(parameter), skip) };
    check(code, "AdamW's step")
}
