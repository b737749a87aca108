//! Files written beside and renamed: a reader sees the old file or the whole new one.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The file that [`replace`] or the directory that [`new_dir`] is writing, for [`abandon`].
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Writes `path` through `write`: into a sibling first, flushed to the disk, then renamed over it.
///
/// A link is followed, and what is no regular file, such as a pipe or `/dev/stdout`, is written to as it is.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let target = std::fs::canonicalize(path)
        .or_else(|_| std::fs::read_link(path).map(|link| folder_of(path).join(link)));
    let path = target.as_deref().unwrap_or(path);
    let there = std::fs::metadata(path).ok();
    if there.as_ref().is_some_and(|file| !file.is_file()) {
        let open = File::options().write(true).open(path);
        return write(&mut open.map_err(Error::io("write", path))?);
    }
    let mode = there.map_or(0o644, |file| file.permissions().mode() & 0o7777);
    let mut file = tempfile::Builder::new()
        .prefix(&unfinished_prefix(path))
        .permissions(PermissionsExt::from_mode(mode))
        .tempfile_in(folder_of(path))
        .map_err(Error::io("write", path))?;
    note(Some(file.path().to_owned()));
    let written = write(file.as_file_mut())
        .and_then(|()| file.as_file().sync_all().map_err(Error::io("write", path)))
        .and_then(|()| file.persist(path).map(drop).map_err(|e| Error::io("write", path)(e.error)));
    note(None);
    written?;
    // The rename itself must reach the disk too.
    File::open(folder_of(path))
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("write", path))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn unfinished_prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

fn note(path: Option<PathBuf>) {
    if let Ok(mut unfinished) = UNFINISHED.lock() {
        *unfinished = path;
    }
}

/// Removes what [`replace`] has not finished, for a process that is about to end.
pub fn abandon() {
    if let Some(path) = UNFINISHED.lock().ok().and_then(|mut unfinished| unfinished.take()) {
        let _ =
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
}

/// Removes what a killed process left unfinished of `path`.
pub fn remove_unfinished(path: &Path) -> Result<()> {
    let (folder, prefix) = (folder_of(path), unfinished_prefix(path));
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))?.flatten() {
        let named = entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
        if named && entry.path().is_file() {
            std::fs::remove_file(entry.path()).map_err(Error::io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// [`replace`] with these bytes.
pub fn replace_with(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |file| file.write_all(bytes).map_err(Error::io("write", path)))
}

/// Makes the directory `path` through `fill`: into a sibling first, then renamed. It must not exist, or be empty.
pub fn new_dir(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let taken = match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.symlink_metadata().is_ok(),
    };
    if taken {
        return Err(Error::file(path, "it exists already; expected a new or an empty directory"));
    }
    create_dir(folder_of(path))?;
    replace_dir(path, fill)
}

/// The same where a directory may be there already, which is replaced; the one above must be there.
pub fn replace_dir(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = folder_of(path);
    let dir = tempfile::Builder::new()
        .prefix(&unfinished_prefix(path))
        .permissions(PermissionsExt::from_mode(0o755))
        .tempdir_in(folder)
        .map_err(Error::io("create", path))?;
    note(Some(dir.path().to_owned()));
    let made = fill(dir.path())
        .and_then(|()| sync(dir.path()))
        .and_then(|()| remove_dir(path))
        .and_then(|()| std::fs::rename(dir.path(), path).map_err(Error::io("create", path)))
        .and_then(|()| {
            File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io("write", folder))
        });
    note(None);
    if made.is_ok() {
        let _ = dir.keep();
    }
    made
}

/// Removes a directory with what is in it, if it is there.
pub fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Waits until a folder and its files are on the disk.
fn sync(folder: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("read", folder))?.flatten();
    for path in entries.map(|entry| entry.path()).chain([folder.to_owned()]) {
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(Error::io("write", &path))?;
    }
    Ok(())
}

/// Creates a directory and those above it.
pub fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// Whether there is a file at `path`. A link to nowhere is an error, and so is a path that cannot be looked at.
pub fn is_there(path: &Path) -> Result<bool> {
    let is_missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    match std::fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => match std::fs::read_link(path) {
            Ok(target) => {
                let problem = format!("a link to {}, which is not there", target.display());
                Err(Error::file(path, problem))
            }
            Err(_) => Ok(false),
        },
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Opens a regular file, or a link to one, with its size. Anything else is an error: a pipe or a device may never end.
pub fn open_regular(path: &Path) -> Result<(File, u64)> {
    // Without the flag a pipe that nobody writes to would be waited for.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(Error::io("read", path))?;
    let metadata = file.metadata().map_err(Error::io("read", path))?;
    let kind = metadata.file_type();
    let found = match () {
        () if kind.is_file() => return Ok((file, metadata.len())),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "no regular file",
    };
    Err(Error::file(path, format!("{found}; expected a file")))
}

/// Reads a small regular file, or a link to one; one of more than `most` bytes is an error.
pub fn read_small(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (file, size) = open_regular(path)?;
    let mut bytes = vec![];
    if size <= most {
        // It may have grown meanwhile.
        file.take(most + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    }
    let size = size.max(bytes.len() as u64);
    if size > most {
        return Err(Error::file(path, format!("{size} bytes; expected {most} at most")));
    }
    Ok(bytes)
}

/// Reads a small text file, as [`read_small`] and [`read_text`] do.
pub fn read_small_text(path: &Path, most: u64) -> Result<String> {
    text_of(path, read_small(path, most)?)
}

/// Reads a text file; one that is not UTF-8 is an error that names the line.
pub fn read_text(path: &Path) -> Result<String> {
    text_of(path, std::fs::read(path).map_err(Error::io("read", path))?)
}

/// The text that the bytes of a file are; if they are not UTF-8, an error that names the line.
pub fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let line = 1 + e.as_bytes().iter().take(good).filter(|&&b| b == b'\n').count();
        Error::data(
            path,
            line,
            format!("not UTF-8 (byte {good} of the file); convert it, say with iconv"),
        )
    })
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes `line` to stdout; returns whether somebody is there to read on, who may have seen enough, or whose terminal was closed.
pub fn tell(line: &str) -> Result<bool> {
    let mut out = std::io::stdout();
    match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EIO) && is_device(&out) => Ok(false),
        Err(error) => Err(Error::io("write", Path::new("stdout"))(error)),
    }
}

/// Whether `out` is a device, such as a terminal, and no file on a disk.
fn is_device(out: &std::io::Stdout) -> bool {
    let file = out.as_fd().try_clone_to_owned().map(File::from);
    file.and_then(|file| file.metadata()).is_ok_and(|about| about.file_type().is_char_device())
}
