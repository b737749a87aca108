//! A boolean that the device computes, and that the host reads later.

use super::{check, ffi, raw};
use crate::error::Result;
use std::ffi::c_void;
use tch::Tensor;

/// A boolean that is copied from the device to the host while the host goes on.
#[derive(Debug)]
pub struct Flag(*mut c_void);

// SAFETY: a flag owns its tensor and its event, and neither is bound to a thread.
unsafe impl Send for Flag {}

impl Flag {
    /// Starts the copy of `flag`, a boolean scalar.
    pub fn send(flag: &Tensor) -> Result<Self> {
        let mut out = std::ptr::null_mut();
        // SAFETY: the tensors outlive the call; on success `out` is freed by `drop` alone.
        check(unsafe { ffi::bitfit_flag_send(&mut out, raw(flag)) }, "sending a flag")?;
        Ok(Self(out))
    }

    /// Waits for the copy and returns the value.
    pub fn receive(&self) -> Result<bool> {
        let mut value = false;
        // SAFETY: the pointer is alive until `drop`.
        check(unsafe { ffi::bitfit_flag_receive(self.0, &mut value) }, "receiving a flag")?;
        Ok(value)
    }
}

impl Drop for Flag {
    fn drop(&mut self) {
        // SAFETY: only `drop` frees the pointer.
        unsafe { ffi::bitfit_flag_free(self.0) };
    }
}
