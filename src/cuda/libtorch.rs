//! libtorch's CUDA library. A build for the CPU loads it from another libtorch of the same version,
//! so that one program serves machines with and without a GPU.

use crate::native::{self, CUDA_LIBRARY};
use std::env;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The environment variable that names a libtorch with CUDA.
const VARIABLE: &str = "BITFIT_LIBTORCH_DIR";

/// The version that this build needs, such as 2.13.0.
pub const VERSION: &str = match option_env!("BITFIT_LIBTORCH") {
    Some(version) => version,
    None => "unknown",
};

/// Loads libtorch's CUDA library if the machine has a GPU's driver and the build lacks the library;
/// searches once in a process. This must come before libtorch is first asked about CUDA, because
/// libtorch remembers the answer.
///
/// Returns the reason if a driver is there, but no library. `Err` is the reason why the libtorch
/// that `BITFIT_LIBTORCH_DIR` names cannot be used.
pub fn load() -> Result<Option<String>, String> {
    static DONE: OnceLock<Result<Option<String>, String>> = OnceLock::new();
    DONE.get_or_init(|| {
        if native::has_cuda_library() || !native::has_driver() {
            return Ok(None);
        }
        if let Some(dir) = env::var_os(VARIABLE).filter(|dir| !dir.is_empty()) {
            return open(Path::new(&dir)).map(|()| None).map_err(|e| format!("{VARIABLE}: {e}"));
        }
        let mut reasons = vec![];
        for dir in own_dir().into_iter().chain(python_dirs()).filter(|dir| dir.exists()) {
            match open(&dir) {
                Ok(()) => return Ok(None),
                Err(reason) => reasons.push(reason),
            }
        }
        Ok(Some(format!(
            "no libtorch {VERSION} with CUDA was found ({}); install it with pip install torch=={VERSION}, or let {VARIABLE} name one",
            if reasons.is_empty() { "none is installed".into() } else { reasons.join("; ") }
        )))
    })
    .clone()
}

/// Loads the CUDA library of the libtorch in `dir`, for as long as the process lives.
fn open(dir: &Path) -> Result<(), String> {
    let (shown, version) = (dir.display(), version_in(dir).unwrap_or_default());
    // What follows a plus sign says for which CUDA it was built.
    if version.split('+').next() != Some(VERSION) {
        let found = if version.is_empty() { "no libtorch".into() } else { version };
        return Err(format!("{shown} has {found}, expected libtorch {VERSION} with CUDA"));
    }
    let path = dir.join("lib").join(CUDA_LIBRARY);
    // scripts/download_libtorch.sh makes a linker script of this name for the CPU.
    if !is_elf(&path) {
        return Err(format!("{shown} has libtorch {version} without lib/{CUDA_LIBRARY}"));
    }
    native::load_cuda_library(&path)
        .map_err(|error| format!("cannot load {}: {error}", path.display()))?;
    tracing::debug!("loaded {}", path.display());
    Ok(())
}

/// Whether the file `path` exists and is a library or a program.
fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *b"\x7fELF"
}

/// The version of the libtorch in `dir`, such as `2.13.0+cu130`.
fn version_in(dir: &Path) -> Option<String> {
    if let Ok(text) = std::fs::read_to_string(dir.join("build-version")) {
        return Some(text.trim().to_owned());
    }
    // PyTorch's packages have a Python file: __version__ = '2.13.0+cu130'.
    let text = std::fs::read_to_string(dir.join("version.py")).ok()?;
    let line = text.lines().find(|line| line.starts_with("__version__"))?;
    line.split(['\'', '"']).nth(1).map(str::to_owned)
}

/// The folder of the libtorch that this process has loaded.
fn own_dir() -> Option<PathBuf> {
    Some(native::folder_of("libtorch_cpu.so")?.parent()?.to_owned())
}

/// The folders where the Python environment in use would have PyTorch.
fn python_dirs() -> Vec<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let mut prefixes: Vec<PathBuf> =
        ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).collect();
    let path = env::var_os("PATH").unwrap_or_default();
    if let Some(bin) = env::split_paths(&path).find(|dir| dir.join("python3").exists()) {
        prefixes.extend(bin.parent().map(Path::to_owned));
        // Where pip installs for a system's python3.
        prefixes.push("/usr/local".into());
        prefixes.extend(variable("HOME").map(|home| home.join(".local")));
    }
    let mut dirs = vec![];
    for prefix in prefixes {
        let entries = std::fs::read_dir(prefix.join("lib")).into_iter().flatten().flatten();
        let pythons = entries.map(|entry| entry.path()).filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3"))
        });
        for python in pythons {
            dirs.extend(["site-packages", "dist-packages"].map(|name| python.join(name)));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    dirs.retain(|dir| seen.insert(dir.clone()));
    dirs.into_iter().map(|dir| dir.join("torch")).collect()
}
