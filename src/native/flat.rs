//! The flat vector: variables and their gradients as views of it.

use super::{check, ffi, raw};
use crate::error::Result;
use tch::Tensor;

/// Makes `piece` a view of `flat[offset .. offset + numel]` and its gradient a view of the same
/// range of `gradient`. The values of `piece` are kept.
///
/// An optimizer of `flat` then sees the gradients that backward accumulates in `piece`.
pub fn bind(piece: &Tensor, flat: &Tensor, gradient: &Tensor, offset: i64) -> Result<()> {
    // SAFETY: the pointers are live tensors for the duration of the call, and C++ checks the
    // ranges.
    check(
        unsafe { ffi::bitfit_bind(raw(piece), raw(flat), raw(gradient), offset) },
        "binding a tensor to the flat vector",
    )
}

/// Sets the gradient of `flat` to the tensor `gradient`, which has the same shape.
pub fn set_gradient(flat: &Tensor, gradient: &Tensor) -> Result<()> {
    // SAFETY: the tensors outlive the call, and C++ checks their shapes.
    check(
        unsafe { ffi::bitfit_set_gradient(raw(flat), raw(gradient)) },
        "setting the flat gradient",
    )
}
