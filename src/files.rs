//! Writes, renames and removes files and directories.
//!
//! A new file or directory is made beside its final path and then renamed, so that a reader sees
//! either the old one or the whole new one. Files that grow, such as logs, are appended to in
//! place.
//!
//! Each operation is counted by `fault`, and is done only while the directories that this process
//! locked are in their place ([`lock`]).

#![allow(clippy::disallowed_methods)]

use crate::error::{Error, Result};
use crate::fault;
use crate::lock::{self, Lock, LockOutcome};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tempfile::Builder;

/// The files and directories that this process is writing and has not renamed yet, for [`abandon`].
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(vec![]);

/// The ending of the name of an unfinished file or directory. The process that writes it holds a
/// lock on it.
const UNFINISHED_ENDING: &str = ".unfinished";

/// A file that is being written. If its directory is moved meanwhile, the file moves with its
/// directory.
#[derive(Debug)]
pub struct FileWriter {
    path: PathBuf,
    file: File,
}

impl FileWriter {
    /// Opens `path` to append to it; creates the file if it does not exist.
    pub fn append(path: &Path) -> Result<Self> {
        Self::open(path, File::options().create(true).append(true))
    }

    /// Creates `path` to append to it; errs if `path` exists.
    pub fn append_new(path: &Path) -> Result<Self> {
        Self::open(path, File::options().create_new(true).append(true))
    }

    /// Creates or truncates `path`, a file of a directory that [`replace_dir`] makes.
    pub fn create(path: &Path) -> Result<Self> {
        Self::open(path, File::options().create(true).truncate(true).write(true))
    }

    fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        lock::check(path)?;
        // Without the flag, opening a pipe that nobody reads would wait.
        let options = options.clone().custom_flags(libc::O_NONBLOCK).to_owned();
        let opened = fault::at("create", || ()).and_then(|()| options.open(path));
        let file = opened.map_err(failed("create", path))?;
        if !file.metadata().is_ok_and(|about| about.is_file()) {
            return Err(Error::file(path, "a pipe or a device; expected a file"));
        }
        Ok(Self { path: path.to_owned(), file })
    }

    /// Creates a file without a name in `folder`. It can be read too, and vanishes when the process
    /// ends.
    pub fn unnamed(folder: &Path) -> Result<Self> {
        lock::check(folder)?;
        let file = fault::at("create", || ()).and_then(|()| tempfile::tempfile_in(folder));
        let file = file.map_err(failed("write a file in", folder))?;
        Ok(Self { path: folder.to_owned(), file })
    }

    /// Writes all of `bytes`.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).map_err(failed("write", &self.path))
    }

    /// The size of the file in bytes.
    pub fn size(&self) -> Result<u64> {
        let metadata = self.file.metadata().map_err(Error::io("read", &self.path))?;
        Ok(metadata.len())
    }

    /// Truncates the file to its first `size` bytes.
    pub fn cut(&mut self, size: u64) -> Result<()> {
        let done = fault::at("cut", || ()).and_then(|()| self.file.set_len(size));
        done.map_err(failed("write", &self.path))
    }

    /// Waits until what was written is on the disk.
    pub fn sync(&self) -> Result<()> {
        let done = fault::at("sync", || ()).and_then(|()| self.file.sync_all());
        done.map_err(failed("write", &self.path))
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        fault::at("write", || {
            let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
            let _ = (&self.file).write_all(half);
        })?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes `path` through `write`: into a sibling file, which is flushed to the disk and then
/// renamed to `path`.
///
/// A symbolic link is followed. A target that is not a regular file, such as a pipe or
/// `/dev/stdout`, is written to directly. Unfinished siblings of `path` that killed processes left
/// are removed.
pub fn replace(path: &Path, write: impl FnOnce(&mut FileWriter) -> Result<()>) -> Result<()> {
    check_name(path)?;
    lock::check(path)?;
    let target = std::fs::canonicalize(path)
        .or_else(|_| std::fs::read_link(path).map(|link| folder_of(path).join(link)));
    let (asked, path) = (path, target.as_deref().unwrap_or(path));
    let there = std::fs::metadata(path).ok();
    if there.as_ref().is_some_and(|file| !file.is_file()) {
        let file = File::options().write(true).open(path).map_err(failed("write", asked))?;
        return write(&mut FileWriter { path: path.to_owned(), file });
    }
    let mode = there.map_or(0o644, |file| file.permissions().mode() & 0o7777);
    let made = beside(path, mode, |builder, folder| builder.tempfile_in(folder));
    let (unfinished, _locked) = made.map_err(failed("write", asked))?;
    let (file, unfinished) = unfinished.into_parts();
    let name = unfinished.to_path_buf();
    // The writer gets the final path, for the messages of its errors.
    let mut writer = FileWriter { path: path.to_owned(), file };
    let written = write(&mut writer).and_then(|()| writer.sync()).and_then(|()| {
        lock::check(asked)?;
        let renamed = fault::at("rename", || ()).and_then(|()| Ok(unfinished.persist(path)?));
        renamed.map_err(failed("write", asked))
    });
    finished(&name);
    written?;
    // The rename itself must reach the disk too.
    sync_dir(folder_of(path))
}

/// Makes an unfinished file or directory beside `path` and locks it. The lock tells other processes
/// that it is not a leftover of a killed process. Returns it with its locked file.
fn beside<T: AsRef<Path>>(
    path: &Path,
    mode: u32,
    make: impl Fn(&Builder<'_, '_>, &Path) -> io::Result<T>,
) -> io::Result<(T, File)> {
    let (folder, prefix) = (folder_of(path), unfinished_prefix(path));
    clear(folder, &prefix, false);
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(UNFINISHED_ENDING);
    builder.permissions(PermissionsExt::from_mode(mode));
    loop {
        fault::at("create", || ())?;
        let made = make(&builder, folder)?;
        let locked = File::open(made.as_ref())?;
        // Before it was locked, another process may have removed it as a leftover; then make
        // another.
        let taken = matches!(lock::attempt(&locked), LockOutcome::Taken);
        let there = std::fs::metadata(made.as_ref()).ok().zip(locked.metadata().ok());
        if !taken && there.is_some_and(|(there, own)| lock::same(&there, &own)) {
            if let Ok(mut unfinished) = UNFINISHED.lock() {
                unfinished.push(made.as_ref().to_owned());
            }
            return Ok((made, locked));
        }
    }
}

/// The error of an operation on `path`: [`Error::Moved`] if a locked directory above was moved,
/// else [`Error::Io`].
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| lock::check(path).err().unwrap_or_else(|| Error::io(action, path)(error))
}

/// The directory that contains `path`: `.` for a bare file name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The beginning of the name of an unfinished file or directory for `path`: short enough for any
/// file system, however long the name of `path` is.
fn unfinished_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!(".{}.", name.chars().take(40).collect::<String>())
}

/// Forgets the unfinished file or directory `path`, which was renamed or removed.
fn finished(path: &Path) {
    if let Ok(mut unfinished) = UNFINISHED.lock() {
        unfinished.retain(|other| other != path);
    }
}

/// Removes the files and directories that this process has not finished. Call it before the process
/// ends.
pub fn abandon() {
    let unfinished = UNFINISHED.lock().map(|mut all| std::mem::take(&mut *all));
    for path in unfinished.unwrap_or_default() {
        let _ = remove(&path);
    }
}

/// Removes what killed processes left unfinished in `folder`, which no other process writes to.
pub fn remove_unfinished(folder: &Path) {
    clear(folder, ".", true);
}

/// Removes the unfinished files and directories that killed processes left in `folder`, if their
/// names begin with `prefix`. Failures to remove are ignored.
///
/// A lock tells the files of a running process from those of a killed one. On a file system without
/// locks they are removed only if `alone` says that no other process writes to `folder`.
fn clear(folder: &Path, prefix: &str, alone: bool) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        let kind = entry.file_type().is_ok_and(|kind| kind.is_file() || kind.is_dir());
        if !kind || !name.starts_with(prefix) || !name.ends_with(UNFINISHED_ENDING) {
            continue;
        }
        let Ok(file) = File::open(&path) else { continue };
        let left = match lock::attempt(&file) {
            LockOutcome::Locked => true,
            LockOutcome::Taken => false,
            LockOutcome::Failed(_) => alone,
        };
        if left && remove(&path).is_ok() {
            tracing::debug!("{}: left by a killed process, and removed", path.display());
        }
    }
}

/// Writes `bytes` to `path`, as [`replace`] does.
pub fn replace_with(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |file| file.put(bytes))
}

/// Copies the file `from` to `to`, as [`replace`] writes it.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(Error::io("read", from))?;
    replace(to, |file| io::copy(&mut source, file).map(drop).map_err(failed("write", to)))
}

/// Writes `bytes` to `path`, a file of a directory that [`replace_dir`] makes.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    FileWriter::create(path)?.put(bytes)
}

/// Makes the directory `path` through `fill`: as a sibling, which is then renamed to `path`. Errs
/// if `path` exists and is not an empty directory. Creates missing parents.
pub fn new_dir(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let taken = match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.symlink_metadata().is_ok(),
    };
    if taken {
        return Err(Error::file(path, "already exists; expected a new or an empty directory"));
    }
    create_dir(folder_of(path))?;
    replace_dir(path, fill)
}

/// Like [`new_dir`], but replaces an existing `path`. The parent must exist.
pub fn replace_dir(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    lock::check(path)?;
    let made = beside(path, 0o755, |builder, folder| builder.tempdir_in(folder));
    let (dir, _locked) = made.map_err(failed("create", path))?;
    let made = fill(dir.path()).and_then(|()| sync(dir.path())).and_then(|()| {
        remove(path)?;
        rename(dir.path(), path)?;
        sync_dir(folder_of(path))
    });
    finished(dir.path());
    if made.is_ok() {
        let _ = dir.keep();
    }
    made
}

/// Renames `from` to `to`. An existing file `to` is replaced.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    lock::check(to)?;
    let done = fault::at("rename", || ()).and_then(|()| std::fs::rename(from, to));
    done.map_err(failed("create", to))
}

/// Makes `to` a hard link to the file `from`, or a copy if linking fails, as on a file system
/// without hard links.
pub fn link(from: &Path, to: &Path) -> Result<()> {
    lock::check(to)?;
    fault::at("link", || ())
        .and_then(|()| std::fs::hard_link(from, to))
        .or_else(|_| std::fs::copy(from, to).map(drop))
        .map_err(failed("write", to))
}

/// Makes `link` a symbolic link to `target`.
pub fn symlink(target: &Path, link: &Path) -> Result<()> {
    lock::check(link)?;
    let done = fault::at("symlink", || ()).and_then(|()| std::os::unix::fs::symlink(target, link));
    done.map_err(failed("create", link))
}

/// Removes a file, or a directory with its contents. Does nothing if `path` does not exist.
pub fn remove(path: &Path) -> Result<()> {
    let Ok(there) = path.symlink_metadata() else { return Ok(()) };
    lock::check(path)?;
    let some_of_it = || {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten().take(1) {
            let _ = std::fs::remove_file(entry.path());
        }
    };
    let done = fault::at("remove", some_of_it).and_then(|()| match there.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    });
    match done {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Waits until the files of a folder and their names are on the disk.
fn sync(folder: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("read", folder))?.flatten();
    for path in entries.map(|entry| entry.path()) {
        let opened = fault::at("sync", || ()).and_then(|()| File::open(&path));
        opened.and_then(|file| file.sync_all()).map_err(failed("write", &path))?;
    }
    sync_dir(folder)
}

/// Waits until the names in a folder are on the disk. Some file systems (FUSE, SMB) do not support
/// this call and write names on their own.
fn sync_dir(folder: &Path) -> Result<()> {
    let opened = fault::at("sync_dir", || ()).and_then(|()| File::open(folder));
    match opened.and_then(|folder| folder.sync_all()) {
        Err(error) if [ErrorKind::InvalidInput, ErrorKind::Unsupported].contains(&error.kind()) => {
            Ok(())
        }
        other => other.map_err(failed("write", folder)),
    }
}

/// Creates the directory `path` and its missing parents.
pub fn create_dir(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    lock::check(path)?;
    let done = fault::at("create_dir", || ()).and_then(|()| std::fs::create_dir_all(path));
    done.map_err(failed("create", path))
}

/// Creates the directory `dir`, unless it exists, and locks it as [`Lock::take`] does.
pub fn claim_dir(dir: &Path, taken: &str) -> Result<Lock> {
    create_dir(dir)?;
    Lock::take(dir, taken)
}

/// SHA-256 of a file's bytes, in hexadecimal, as `sha256sum` prints it.
pub fn sha256(path: &Path) -> Result<String> {
    digest(path, open_regular(path)?.0, Sha256::new())
}

/// The digest of all bytes of `file`, which is at `path`, in hexadecimal.
pub fn digest(path: &Path, mut file: File, mut digest: impl Digest) -> Result<String> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(Error::io("read", path))? {
            0 => return Ok(hex(&digest.finalize())),
            count => digest.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// Whether `path` exists. Errs if `path` is a symbolic link to a missing target, or cannot be
/// accessed.
pub fn is_there(path: &Path) -> Result<bool> {
    let is_missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    match std::fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => match std::fs::read_link(path) {
            Ok(target) => {
                let problem = format!("a link to {}, which does not exist", target.display());
                Err(Error::file(path, problem))
            }
            Err(_) => Ok(false),
        },
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

/// Checks that `path` can name a file, before the contents of the file are computed.
fn check_name(path: &Path) -> Result<()> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let code = match path.file_name() {
        _ if bytes.ends_with(b"/") => libc::EISDIR,
        Some(name) if name.len() > 255 => libc::ENAMETOOLONG,
        _ => return Ok(()),
    };
    Err(Error::io("write", path)(std::io::Error::from_raw_os_error(code)))
}

/// Opens a regular file, or a link to one. Returns the file with its size in bytes. Anything else
/// is an error, because a pipe or a device may never end.
pub fn open_regular(path: &Path) -> Result<(File, u64)> {
    // Without the flag, opening a pipe that nobody writes to would wait.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(Error::io("read", path))?;
    let metadata = file.metadata().map_err(Error::io("read", path))?;
    let kind = metadata.file_type();
    let found = match () {
        () if kind.is_file() => return Ok((file, metadata.len())),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "not a regular file",
    };
    Err(Error::file(path, format!("{found}; expected a file")))
}

/// The maximum size in bytes of a file that [`read`] reads into memory. BERT-large in float32 has
/// 1.3 GB.
const MOST: u64 = 16 << 30;

/// Reads a small regular file, or a link to one. More than `most` bytes are an error.
pub fn read_small(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (file, size) = open_regular(path)?;
    if size > most {
        return Err(Error::file(path, format!("{size} bytes, expected at most {most}")));
    }
    // The file may have grown since its size was read.
    read_at_most(path, file, most)
}

/// Reads the text of a file, or of a pipe such as bash's `<(command)`. More than `most` bytes are
/// an error. Only paths under `/dev` and `/proc/self/fd` may be pipes.
pub fn read_pipe(path: &Path, most: u64) -> Result<String> {
    let is_pipe = path.starts_with("/dev") || path.starts_with("/proc/self/fd");
    if !is_pipe {
        return read_small_text(path, most);
    }
    let file = File::open(path).map_err(Error::io("read", path))?;
    text_of(path, read_at_most(path, file, most)?)
}

fn read_at_most(path: &Path, file: File, most: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    file.take(most + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > most {
        return Err(Error::file(path, format!("more than {most} bytes, expected at most {most}")));
    }
    Ok(bytes)
}

/// Reads a small text file. Errs like [`read_small`] and [`text_of`].
pub fn read_small_text(path: &Path, most: u64) -> Result<String> {
    text_of(path, read_small(path, most)?)
}

/// Reads a whole regular file, or a link to one.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    read_small(path, MOST)
}

/// Reads a whole text file. Errs like [`read`] and [`text_of`].
pub fn read_text(path: &Path) -> Result<String> {
    text_of(path, read(path)?)
}

/// The text of `bytes`, the contents of the file `path`. If they are not UTF-8, the error names the
/// line.
pub fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let line = 1 + e.as_bytes().iter().take(good).filter(|&&b| b == b'\n').count();
        Error::data(
            path,
            line,
            format!(
                "not UTF-8 (byte {good} of the file); convert the file, for example with iconv"
            ),
        )
    })
}

/// `bytes` in lowercase hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes `line` to stdout and flushes it. Returns `false` if the reader is gone: a program that
/// closed the pipe, such as `head`, or a closed terminal.
pub fn tell(line: &str) -> Result<bool> {
    let mut out = std::io::stdout();
    match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EIO) && is_device(&out) => Ok(false),
        Err(error) => Err(Error::io("write", Path::new("stdout"))(error)),
    }
}

/// Writes `text` to stderr. Errors are ignored, because stderr may be closed or full.
pub fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Whether `out` is a character device, such as a terminal, rather than a file on a disk.
fn is_device(out: &std::io::Stdout) -> bool {
    let file = out.as_fd().try_clone_to_owned().map(File::from);
    file.and_then(|file| file.metadata()).is_ok_and(|about| about.file_type().is_char_device())
}
