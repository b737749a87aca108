//! CUDA devices: libtorch's library for them, and bitfit's kernels.

mod kernels;
mod libtorch;

pub use kernels::{image, prepare};
pub use libtorch::VERSION;

use crate::native;
use tch::Cuda;

/// Returns the number of CUDA devices that libtorch sees. Before, loads libtorch's CUDA library if
/// the build lacks it.
///
/// Returns the reason if `BITFIT_LIBTORCH_DIR` names a libtorch that cannot be used.
pub fn device_count() -> Result<usize, String> {
    libtorch::load()?;
    Ok(usize::try_from(Cuda::device_count()).unwrap_or(0))
}

/// Returns the reason why libtorch sees no CUDA device.
pub fn why_none() -> String {
    if let Ok(Some(reason)) = libtorch::load() {
        return reason;
    }
    "libtorch sees no CUDA device on this machine (is the driver installed, and CUDA_VISIBLE_DEVICES right?)".into()
}

/// Warns, once in a process, if this machine has a GPU's driver, although libtorch sees no GPU.
/// Says nothing if CUDA_VISIBLE_DEVICES hides all GPUs.
pub fn warn_if_unused() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    let hidden = std::env::var("CUDA_VISIBLE_DEVICES")
        .is_ok_and(|visible| visible.is_empty() || visible == "-1");
    if !hidden && native::has_driver() {
        ONCE.call_once(|| {
            tracing::warn!("there is an NVIDIA driver, but the CPU is used: {}", why_none());
        });
    }
}
