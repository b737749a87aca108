//! The profile: seconds in each operation.

use super::{check, ffi};
use crate::error::Result;
use std::ffi::CStr;

/// Starts the profile, which records the seconds in each operation of all threads until
/// [`profile_stop`].
pub fn profile_start() -> Result<()> {
    // SAFETY: the call takes no pointers.
    check(unsafe { ffi::bitfit_profile_start() }, "starting the profile")
}

/// Stops the profile. The next [`profile_start`] adds to the same figures.
pub fn profile_stop() -> Result<()> {
    // SAFETY: as in `profile_start`.
    check(unsafe { ffi::bitfit_profile_stop() }, "stopping the profile")
}

/// Returns each operation's name, its own seconds and its number of calls. The operations that it
/// calls are not counted in its seconds. Names of products include their sizes.
pub fn profile_report() -> Result<Vec<(String, f64, u64)>> {
    let mut out = std::ptr::null();
    // SAFETY: on success `out` points to a string that lives until the next report, and there is
    // one caller at a time.
    check(unsafe { ffi::bitfit_profile_report(&mut out) }, "reading the profile")?;
    // SAFETY: as above.
    let text = unsafe { CStr::from_ptr(out) }.to_string_lossy().into_owned();
    let entry = |line: &str| {
        let mut fields = line.split('\t');
        let name = fields.next()?.to_owned();
        Some((name, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Ok(text.lines().filter_map(entry).collect())
}
