//! Libraries for CUDA, loaded at run time: the driver, and libtorch's part for CUDA.

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The library with libtorch's code for CUDA.
pub const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// Whether the machine has a GPU's driver.
pub fn has_driver() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    // SAFETY: the driver's initializers have no conditions, and libtorch loads it too.
    *FOUND.get_or_init(|| unsafe { Library::new("libcuda.so.1") }.map(std::mem::forget).is_ok())
}

/// Whether the process has libtorch's CUDA library, as a build with CUDA does.
pub fn has_cuda_library() -> bool {
    // SAFETY: RTLD_NOLOAD runs no initializers.
    unsafe { Library::open(Some(CUDA_LIBRARY), RTLD_NOW | libc::RTLD_NOLOAD) }.is_ok()
}

/// The folder of the library `name`, if the process has loaded it.
pub fn folder_of(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with(&format!("/{name}")))?;
    Some(Path::new(line.get(line.find('/')?..)?).parent()?.to_owned())
}

/// Loads the file `path`, libtorch's CUDA library of the version that this program was built with,
/// for as long as the process lives. The library registers itself. Returns the reason if it cannot
/// be loaded.
pub fn load_cuda_library(path: &Path) -> Result<(), String> {
    // SAFETY: the caller checked the version. The initializers register the operations of CUDA.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
    library.map(std::mem::forget).map_err(|error| error.to_string())
}
