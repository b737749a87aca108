//! Files written beside and renamed: a reader sees the old file or the whole new one.

use crate::error::{Error, Result};
use std::io::Write;
use std::path::Path;

/// What the name of a file begins with until it is whole.
const UNFINISHED: &str = ".bitfit-";

/// Writes `path` through `write`: into a sibling first, flushed to the disk, then renamed over it.
///
/// A link is followed, and what is no regular file, such as a pipe or `/dev/stdout`, is written to as it is.
pub fn replace(path: &Path, write: impl FnOnce(&mut std::fs::File) -> Result<()>) -> Result<()> {
    let resolved = std::fs::canonicalize(path);
    let path = resolved.as_deref().unwrap_or(path);
    if path.exists() && !path.is_file() {
        let open = std::fs::OpenOptions::new().write(true).open(path);
        return write(&mut open.map_err(Error::io("write", path))?);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(Error::io("write", path))?;
    write(file.as_file_mut())?;
    file.as_file().sync_all().map_err(Error::io("write", path))?;
    file.persist(path).map_err(|e| e.error).map_err(Error::io("write", path))?;
    // The rename itself must reach the disk too.
    std::fs::File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io("write", path))
}

/// Removes what killed processes left unfinished in `folder`.
pub fn remove_unfinished(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            std::fs::remove_file(entry.path()).map_err(Error::io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// [`replace`] with these bytes.
pub fn replace_with(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |file| file.write_all(bytes).map_err(Error::io("write", path)))
}

/// Creates a directory and those above it.
pub fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// Reads a text file; one that is not UTF-8 is an error that names the line.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let line = 1 + e.as_bytes()[..good].iter().filter(|&&b| b == b'\n').count();
        Error::data(
            path,
            line,
            format!("not UTF-8 (byte {good} of the file); convert it, say with iconv"),
        )
    })
}
