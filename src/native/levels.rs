//! The level of processor: which instructions the kernels use.

use super::ffi;
use crate::error::{Error, Result};
use std::ffi::{CStr, c_char};

/// The environment variable that chooses a level.
const VARIABLE: &str = "BITFIT_CPU_LEVEL";

/// The levels of all processors.
const LEVELS: [&str; 4] = ["avx512", "avx2", "sse2", "neon"];

/// The level of processor in use: `avx512`, `avx2` or `sse2` on x86-64, `neon` on aarch64. Another
/// level may give results that differ in their last bits.
pub fn cpu_level() -> &'static str {
    // SAFETY: the function returns a constant.
    unsafe { text(ffi::bitfit_cpu_level()) }
}

/// The levels of this processor, the highest first.
pub fn cpu_levels() -> impl Iterator<Item = &'static str> {
    // SAFETY: the function returns a text that is never freed.
    unsafe { text(ffi::bitfit_cpu_levels()) }.split(' ')
}

/// Checks the environment variable `BITFIT_CPU_LEVEL`. Errs unless it names a level of this
/// processor, or is unset or empty.
pub fn check_cpu_level() -> Result<()> {
    let wanted = std::env::var_os(VARIABLE).unwrap_or_default();
    if wanted.is_empty() || wanted == cpu_level() {
        return Ok(());
    }
    let (wanted, levels) = (wanted.to_string_lossy(), cpu_levels().collect::<Vec<_>>().join(", "));
    Err(Error::Usage(match LEVELS.contains(&&*wanted) {
        true => {
            format!("{VARIABLE}: found {wanted:?}, expected a level of this processor: {levels}")
        }
        false => format!("{VARIABLE}: found {wanted:?}, expected one of {levels}"),
    }))
}

/// # Safety
///
/// `from` must be NUL-terminated and never freed.
unsafe fn text(from: *const c_char) -> &'static str {
    // SAFETY: the caller vouches for it.
    unsafe { CStr::from_ptr(from) }.to_str().unwrap_or_default()
}
