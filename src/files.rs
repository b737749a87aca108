//! Everything that is written: files and directories made beside and renamed, so that a reader sees the old one or the whole new one;
//! files that grow; what is removed.
//!
//! Each operation is counted by `fault`, and made only while the directories that this process locked are in their place ([`lock`]).

#![allow(clippy::disallowed_methods)]

use crate::error::{Error, Result};
use crate::fault;
use crate::lock::{self, Attempt};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tempfile::Builder;

/// What this process is writing beside its place, for [`abandon`].
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(vec![]);

/// How the name of something unfinished ends; who writes it holds a lock on it.
const UNFINISHED_ENDING: &str = ".unfinished";

/// A file that is being written. Where its directory is moved away meanwhile, it stays a file of that directory.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
}

impl Writer {
    /// Opens `path` to add to what is in it; creates it where it is not there.
    pub fn append(path: &Path) -> Result<Self> {
        Self::open(path, File::options().create(true).append(true))
    }

    /// Creates `path`, which must not be there yet, to add to it.
    pub fn append_new(path: &Path) -> Result<Self> {
        Self::open(path, File::options().create_new(true).append(true))
    }

    /// Creates `path`, without what was in it, for a directory that [`replace_dir`] makes.
    pub fn create(path: &Path) -> Result<Self> {
        Self::open(path, File::options().create(true).truncate(true).write(true))
    }

    fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        lock::check(path)?;
        // A pipe that nobody reads would be waited for.
        let options = options.clone().custom_flags(libc::O_NONBLOCK).to_owned();
        let opened = fault::at("create", || ()).and_then(|()| options.open(path));
        let file = opened.map_err(failed("create", path))?;
        if !file.metadata().is_ok_and(|about| about.is_file()) {
            return Err(Error::file(path, "a pipe or a device; expected a file"));
        }
        Ok(Self { path: path.to_owned(), file })
    }

    /// A file in `folder` without a name, which can be read too, and is gone with the process.
    pub fn nameless(folder: &Path) -> Result<Self> {
        lock::check(folder)?;
        let file = fault::at("create", || ()).and_then(|()| tempfile::tempfile_in(folder));
        let file = file.map_err(failed("write a file in", folder))?;
        Ok(Self { path: folder.to_owned(), file })
    }

    /// Writes `bytes`, all of them.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).map_err(failed("write", &self.path))
    }

    /// How many bytes the file has.
    pub fn size(&self) -> Result<u64> {
        let metadata = self.file.metadata().map_err(Error::io("read", &self.path))?;
        Ok(metadata.len())
    }

    /// Cuts the file to its first `size` bytes.
    pub fn cut(&mut self, size: u64) -> Result<()> {
        let done = fault::at("cut", || ()).and_then(|()| self.file.set_len(size));
        done.map_err(failed("write", &self.path))
    }

    /// Waits until what was written is on the disk.
    pub fn sync(&self) -> Result<()> {
        let done = fault::at("sync", || ()).and_then(|()| self.file.sync_all());
        done.map_err(failed("write", &self.path))
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Write for Writer {
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

/// Writes `path` through `write`: into a sibling first, flushed to the disk, then renamed over it.
///
/// A link is followed, and what is no regular file, such as a pipe or `/dev/stdout`, is written to as it is. What a killed process left
/// of the same is removed.
pub fn replace(path: &Path, write: impl FnOnce(&mut Writer) -> Result<()>) -> Result<()> {
    check_name(path)?;
    lock::check(path)?;
    let target = std::fs::canonicalize(path)
        .or_else(|_| std::fs::read_link(path).map(|link| folder_of(path).join(link)));
    let (asked, path) = (path, target.as_deref().unwrap_or(path));
    let there = std::fs::metadata(path).ok();
    if there.as_ref().is_some_and(|file| !file.is_file()) {
        let file = File::options().write(true).open(path).map_err(failed("write", asked))?;
        return write(&mut Writer { path: path.to_owned(), file });
    }
    let mode = there.map_or(0o644, |file| file.permissions().mode() & 0o7777);
    let made = beside(path, mode, |builder, folder| builder.tempfile_in(folder));
    let (unfinished, _locked) = made.map_err(failed("write", asked))?;
    let (file, unfinished) = unfinished.into_parts();
    let name = unfinished.to_path_buf();
    // Under its own name, which is what messages are to name.
    let mut writer = Writer { path: path.to_owned(), file };
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

/// Makes something unfinished beside `path` and locks it, so that other processes know it from what a killed one left.
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
        // Between the two, somebody who clears up may have taken it for a killed process's.
        let taken = matches!(lock::attempt(&locked), Attempt::Taken);
        let there = std::fs::metadata(made.as_ref()).ok().zip(locked.metadata().ok());
        if !taken && there.is_some_and(|(there, own)| lock::same(&there, &own)) {
            if let Ok(mut unfinished) = UNFINISHED.lock() {
                unfinished.push(made.as_ref().to_owned());
            }
            return Ok((made, locked));
        }
    }
}

/// The error of an operation on `path`: that its directory was moved, where that is why.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| lock::check(path).err().unwrap_or_else(|| Error::io(action, path)(error))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// How the name of something unfinished begins: short enough for any file system, however long `path` is.
fn unfinished_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!(".{}.", name.chars().take(40).collect::<String>())
}

/// Notes that what was written under the name `path` is in its place, or gone.
fn finished(path: &Path) {
    if let Ok(mut unfinished) = UNFINISHED.lock() {
        unfinished.retain(|other| other != path);
    }
}

/// Removes what this process has not finished, when it is about to end.
pub fn abandon() {
    let unfinished = UNFINISHED.lock().map(|mut all| std::mem::take(&mut *all));
    for path in unfinished.unwrap_or_default() {
        let _ = remove(&path);
    }
}

/// Removes what killed processes left unfinished in `folder`, which is this process's alone.
pub fn remove_unfinished(folder: &Path) {
    clear(folder, ".", true);
}

/// Removes what killed processes left in `folder` under names that begin with `prefix`; what cannot be removed stays. Where the file
/// system has no locks to tell by, `alone` says that nobody else writes there.
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
            Attempt::Locked => true,
            Attempt::Taken => false,
            Attempt::Failed(_) => alone,
        };
        if left && remove(&path).is_ok() {
            tracing::debug!("{}: left by a killed process, and removed", path.display());
        }
    }
}

/// [`replace`] with these bytes.
pub fn replace_with(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |file| file.put(bytes))
}

/// [`replace`] with what the file `from` holds.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(Error::io("read", from))?;
    replace(to, |file| io::copy(&mut source, file).map(drop).map_err(failed("write", to)))
}

/// Writes a file of a directory that [`replace_dir`] makes.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    Writer::create(path)?.put(bytes)
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

/// Like [`new_dir`], but replaces a directory that is there already. The one above `path` must exist.
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

/// Renames `from` to `to`, which is replaced if it is a file.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    lock::check(to)?;
    let done = fault::at("rename", || ()).and_then(|()| std::fs::rename(from, to));
    done.map_err(failed("create", to))
}

/// Makes `to` a hard link to the file `from`, or where the file system has none, a copy.
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

/// Removes a file, or a directory with what is in it, if it is there.
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

/// Waits until the files of a folder, and their names, are on the disk.
fn sync(folder: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("read", folder))?.flatten();
    for path in entries.map(|entry| entry.path()) {
        let opened = fault::at("sync", || ()).and_then(|()| File::open(&path));
        opened.and_then(|file| file.sync_all()).map_err(failed("write", &path))?;
    }
    sync_dir(folder)
}

/// Waits until the names in a folder are on the disk. Some file systems (FUSE, SMB) do that on their own, and know no way to ask.
fn sync_dir(folder: &Path) -> Result<()> {
    let opened = fault::at("sync_dir", || ()).and_then(|()| File::open(folder));
    match opened.and_then(|folder| folder.sync_all()) {
        Err(error) if [ErrorKind::InvalidInput, ErrorKind::Unsupported].contains(&error.kind()) => {
            Ok(())
        }
        other => other.map_err(failed("write", folder)),
    }
}

/// Creates a directory and those above it.
pub fn create_dir(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    lock::check(path)?;
    let done = fault::at("create_dir", || ()).and_then(|()| std::fs::create_dir_all(path));
    done.map_err(failed("create", path))
}

/// SHA-256 of a file's bytes, in hexadecimal, as `sha256sum` prints it.
pub fn sha256(path: &Path) -> Result<String> {
    let (mut file, _) = open_regular(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(Error::io("read", path))? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(buffer.get(..count).unwrap_or_default()),
        }
    }
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

/// Checks that a file could have this name, before what is to be in it is computed.
fn check_name(path: &Path) -> Result<()> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let code = match path.file_name() {
        _ if bytes.ends_with(b"/") => libc::EISDIR,
        Some(name) if name.len() > 255 => libc::ENAMETOOLONG,
        _ => return Ok(()),
    };
    Err(Error::io("write", path)(std::io::Error::from_raw_os_error(code)))
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

/// No file that is read into memory whole is as large: what BERT-large has as float32 is 1.3 GB.
const MOST: u64 = 16 << 30;

/// Reads a small regular file, or a link to one; one of more than `most` bytes is an error.
pub fn read_small(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (file, size) = open_regular(path)?;
    if size > most {
        return Err(Error::file(path, format!("{size} bytes; expected {most} at most")));
    }
    // It may have grown meanwhile.
    read_at_most(path, file, most)
}

/// The text of a file or of a pipe, such as bash's `<(command)`; one of more than `most` bytes is an error.
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
        return Err(Error::file(path, format!("more than {most} bytes; expected fewer")));
    }
    Ok(bytes)
}

/// Reads a small text file, as [`read_small`] and [`text_of`] do.
pub fn read_small_text(path: &Path, most: u64) -> Result<String> {
    text_of(path, read_small(path, most)?)
}

/// Reads a whole regular file, or a link to one.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    read_small(path, MOST)
}

/// Reads a text file, as [`read`] does; one that is not UTF-8 is an error that names the line.
pub fn read_text(path: &Path) -> Result<String> {
    text_of(path, read(path)?)
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
