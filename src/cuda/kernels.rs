//! The kernels of a CUDA device, which are compiled when a device of its kind is first used, and
//! kept in a cache.

use crate::error::Result;
use crate::files;
use crate::native::{self, Image, Nvrtc};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The devices whose kernels were asked for.
static PREPARED: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// Loads the kernels on the CUDA device `index`, once in a process. Without them plain tensor
/// operations compute there, and a warning says why.
pub fn prepare(index: usize) {
    let mut prepared = PREPARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !prepared.insert(index) {
        return;
    }
    if let Err(reason) = load(index) {
        tracing::warn!(
            "cuda:{index} computes by plain operations, which are several times slower: {reason}"
        );
    }
}

fn load(index: usize) -> std::result::Result<(), String> {
    let capability = native::capability(index).map_err(|error| error.to_string())?;
    let image = image(&Nvrtc::load(None)?, capability, folder().as_deref())?;
    native::load_kernels(index, &image).map_err(|error| error.to_string())
}

/// The compiled kernels for a device of `capability`: those in `cache`, or new ones. A file that is
/// damaged or cannot be read or written is no error.
pub fn image(
    nvrtc: &Nvrtc,
    capability: i64,
    cache: Option<&Path>,
) -> std::result::Result<Image, String> {
    let inputs = Sha256::digest(format!("{capability}\n{}", nvrtc.inputs()?));
    let path = cache.map(|folder| folder.join(format!("sm_{capability}-{}", files::hex(&inputs))));
    if let Some(image) = path.as_deref().and_then(kept) {
        return Ok(image);
    }
    tracing::info!("compiling the kernels for compute capability {}", native::dotted(capability));
    let image = nvrtc.compile(capability)?;
    if let Some(Err(error)) = path.map(|path| keep(&path, &image)) {
        tracing::debug!("the compiled kernels are not kept: {error}");
    }
    Ok(image)
}

/// The number of bytes of a file's checksum, at its start.
const CHECKSUM: usize = 32;

/// The image in a file of the cache, if the file is whole.
fn kept(path: &Path) -> Option<Image> {
    let bytes = std::fs::read(path).ok()?;
    let (sum, image) = bytes.split_at_checked(CHECKSUM)?;
    (Sha256::digest(image)[..] == *sum).then(|| image.to_vec())
}

fn keep(path: &Path, image: &[u8]) -> Result<()> {
    files::create_dir(path.parent().unwrap_or(Path::new(".")))?;
    let bytes = [&Sha256::digest(image)[..], image].concat();
    files::replace_with(path, &bytes)
}

/// The folder of the cache: `bitfit/kernels` in the user's cache. `None` if no variable says where
/// that is.
fn folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")))?;
    Some(cache.join("bitfit").join("kernels"))
}
