//! libtorch's threads and OpenMP's.

use super::{check, ffi};
use crate::error::Result;

/// The environment variables that decide how many threads OpenMP gives, as messages list them.
pub(super) const OPENMP: &str =
    "OMP_THREAD_LIMIT, OMP_DYNAMIC, OMP_MAX_ACTIVE_LEVELS and OMP_NUM_THREADS";

/// Sets libtorch's thread count to the number of threads that OpenMP gives the calling thread. If
/// OpenMP gives fewer than libtorch counted on, warns once per process.
pub fn fit_threads() -> Result<()> {
    static WARNED: std::sync::Once = std::sync::Once::new();
    let (mut wanted, mut found) = (0, 0);
    // SAFETY: C++ writes to both variables only during the call.
    check(
        unsafe { ffi::bitfit_fit_threads(&mut wanted, &mut found) },
        "counting OpenMP's threads",
    )?;
    if found < wanted {
        WARNED.call_once(|| {
            tracing::warn!(
                "OpenMP gives {found} of {wanted} threads, so {found} compute; {OPENMP} decide that, or a limit of threads"
            );
        });
    }
    Ok(())
}
