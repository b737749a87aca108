//! libtorch's threads and OpenMP's.

use super::{check, ffi};
use crate::error::Result;

/// The environment variables that decide how many threads OpenMP gives, as messages list them.
pub(super) const OPENMP: &str =
    "OMP_THREAD_LIMIT, OMP_DYNAMIC, OMP_MAX_ACTIVE_LEVELS and OMP_NUM_THREADS";

/// Lowers libtorch's thread count, once per process, to what a limit of CPU time (cgroup) allows:
/// more threads would only stop one another. `OMP_NUM_THREADS` overrides the limit.
fn limit_to_quota() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let allowed = std::thread::available_parallelism().map_or(0, usize::from);
        let allowed = i32::try_from(allowed).unwrap_or(0);
        let is_free = std::env::var_os("OMP_NUM_THREADS").is_none();
        if is_free && allowed > 0 && allowed < tch::get_num_threads() {
            tch::set_num_threads(allowed);
        }
    });
}

/// Sets libtorch's thread count to the number of threads that OpenMP gives the calling thread. If
/// OpenMP gives fewer than libtorch counted on, warns once per process.
pub fn fit_threads() -> Result<()> {
    limit_to_quota();
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

/// Runs `work` without other OpenMP threads: libtorch's operations in it use this thread alone.
///
/// For threads beside the one that computes. A team of their own would stay until they end, and
/// where OpenMP has more threads than processors, GNU's OpenMP lets all threads that wait sleep at
/// once. A batch of one short text has some fifty parallel parts, and each then wakes a thread.
pub fn on_one_thread<T>(work: impl FnOnce() -> T) -> Result<T> {
    let _restored = ThreadCount(set_thread_count(1)?);
    Ok(work())
}

/// The calling thread's count of OpenMP threads, which is set again at the end.
struct ThreadCount(i64);

impl Drop for ThreadCount {
    fn drop(&mut self) {
        // The first call worked, so this one does.
        let _ = set_thread_count(self.0);
    }
}

/// Sets the number of OpenMP threads that operations of the calling thread use, and returns the
/// number before.
fn set_thread_count(count: i64) -> Result<i64> {
    let mut before = 1;
    // SAFETY: C++ writes to the variable only during the call.
    check(
        unsafe { ffi::bitfit_set_thread_count(count, &mut before) },
        "setting the number of OpenMP's threads",
    )?;
    Ok(before)
}
