//! Downloads a file into the cache. A broken download is resumed, and the size is limited.

use super::cache::Folder;
use super::remote::{ATTEMPTS, Ask, Expected, FetchError, Remote, header, pause};
use super::repo::Repo;
use super::snapshot::DownloadProgress;
use crate::error::{Error, Result};
use crate::files::{self, FileWriter};
use crate::numbers::thousands;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use ureq::Body;
use ureq::http::{Response, StatusCode};

/// The bytes that an attempt must add to the best before it, so that the connection counts as slow,
/// not as broken.
const PROGRESS: u64 = 1 << 20;

/// The maximum size of a text file (`.json`, `.txt`), in bytes.
const MOST_OF_A_TEXT: u64 = 64 << 20;

/// The maximum size of a file whose size is not announced, in bytes: the Hub's own limit for a
/// file.
const MOST_OF_A_FILE: u64 = 50_000_000_000;

/// The size of a read buffer, in bytes.
const BUFFER: usize = 1 << 16;

/// Downloads a file of a commit into `folder`, or links it if its blob is there. A broken download
/// is resumed, by this run or the next.
///
/// Errs if there is no room, if the hash is wrong, or if the Hub does not send the whole file.
pub fn download_file(
    remote: &Remote,
    repo: &Repo,
    folder: &Folder,
    commit: &str,
    name: &str,
    progress: &mut DownloadProgress<'_>,
) -> Result<()> {
    let url = remote.address(repo, commit, name);
    let Expected { etag, size } = remote.expected(repo, name, &url)?;
    let blob = folder.blob(&etag)?;
    let _lock = folder.lock(&etag)?;
    // Another process may have downloaded the file while we waited for the lock.
    if folder.snapshot(commit).join(name).exists() {
        return Ok(());
    }
    let new = !blob.exists();
    if new {
        let part = blob.with_file_name(format!("{etag}.incomplete"));
        tracing::info!("downloading {name} of {}", repo.id);
        let mut download = Download::new(remote, repo, name, &url, &part, size)?;
        download.run(progress)?;
        download.verify(&etag)?;
        files::rename(&part, &blob)?;
    }
    folder.link(&blob, commit, name, new)
}

/// A file that is being downloaded.
struct Download<'a> {
    remote: &'a Remote,
    repo: &'a Repo,
    name: &'a str,
    url: &'a str,
    part: &'a Path,
    /// The announced size in bytes, if there is one.
    size: Option<u64>,
    /// The maximum number of bytes to accept.
    most: u64,
    file: FileWriter,
    /// The bytes downloaded so far.
    there: u64,
}

/// The outcome of an attempt.
enum AttemptOutcome {
    /// The body ended.
    Ended,
    /// The connection broke off. Holds the reason.
    BrokeOff(String),
    /// The body is longer than `most`.
    TooLong,
}

impl<'a> Download<'a> {
    /// A download of the file `name` from `url` into `part`, which may already hold its first
    /// bytes.
    fn new(
        remote: &'a Remote,
        repo: &'a Repo,
        name: &'a str,
        url: &'a str,
        part: &'a Path,
        size: Option<u64>,
    ) -> Result<Self> {
        let file = FileWriter::append(part)?;
        let there = file.size()?;
        let mut download = Self { remote, repo, name, url, part, size, most: 0, file, there };
        download.most = download.room()?;
        Ok(download)
    }

    /// The maximum number of bytes to accept: the announced size, or else a limit by the kind of
    /// file and by the free space.
    ///
    /// Errs if the announced size exceeds the free space or, for a text, the limit.
    fn room(&self) -> Result<u64> {
        let (name, there) = (self.name, self.there);
        let is_text = [".json", ".txt"].iter().any(|ending| name.ends_with(ending));
        let most = if is_text { MOST_OF_A_TEXT } else { MOST_OF_A_FILE };
        if let Some(size) = self.size.filter(|&size| is_text && size > most) {
            let problem =
                format!("{name} has {size} bytes, expected at most {most} in a text file");
            return Err(self.problem(problem));
        }
        let folder = self.part.parent().unwrap_or(self.part);
        // Skip the check on a file system that does not report its size.
        let Some(free) = rustix::fs::statvfs(folder).ok().filter(|found| found.f_blocks > 0) else {
            return Ok(self.size.unwrap_or(most));
        };
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        match self.size {
            Some(size) if size.saturating_sub(there) > free => {
                let [wanted, free] = [size - there, free].map(|bytes| thousands(bytes >> 20));
                let folder = folder.display();
                let problem = format!(
                    "{name} needs {wanted} MiB more, but {folder} has {free} MiB free; set HF_HUB_CACHE to another folder"
                );
                Err(self.problem(problem))
            }
            Some(size) => Ok(size),
            // The size is unknown: leave half of the free space.
            None => Ok(most.min(there.saturating_add(free / 2))),
        }
    }

    /// Downloads the rest of the file. Gives up when attempt [`ATTEMPTS`] or a later one adds less
    /// than [`PROGRESS`] bytes.
    fn run(&mut self, progress: &mut DownloadProgress<'_>) -> Result<()> {
        let (mut best, mut too_long) = (self.there, 0);
        for attempt in 1.. {
            if self.there > self.most {
                self.begin_again()?;
            }
            progress(self.name, self.there, self.size)?;
            if self.size == Some(self.there) {
                break;
            }
            let why = match self.attempt(progress)? {
                AttemptOutcome::Ended if self.size.is_none_or(|size| size == self.there) => break,
                AttemptOutcome::Ended => {
                    format!("received {} of {} bytes", self.there, self.size.unwrap_or_default())
                }
                AttemptOutcome::BrokeOff(why) => why,
                AttemptOutcome::TooLong => {
                    self.begin_again()?;
                    too_long += 1;
                    // Give up the second time: the announced size may be wrong for good.
                    if self.size.is_none() || too_long == 2 {
                        return Err(self.too_long());
                    }
                    format!("more than {} bytes", self.most)
                }
            };
            // A slow connection that makes progress is no reason to give up. Bytes that were
            // discarded do not count as progress.
            if attempt >= ATTEMPTS && self.there < best + PROGRESS {
                let problem = format!(
                    "the download of {} broke off {attempt} times ({why}); its first part is kept, and the next run resumes it",
                    self.name
                );
                return Err(self.problem(problem));
            }
            best = best.max(self.there);
            std::thread::sleep(pause(attempt));
        }
        // On a file system without locks, two processes may have written to the file.
        if self.file.size()? != self.there {
            files::remove(self.part)?;
            let problem = format!("{} was written by another process at the same time", self.name);
            return Err(self.problem(problem));
        }
        self.file.sync()
    }

    /// Requests the missing bytes and appends them to the file.
    fn attempt(&mut self, progress: &mut DownloadProgress<'_>) -> Result<AttemptOutcome> {
        let mut response = match self.remote.send(Ask::File { start: self.there }, self.url) {
            Ok(response) => response,
            Err(FetchError::Unreached(why)) => return Ok(AttemptOutcome::BrokeOff(why)),
            Err(other) => return Err(other.into_error(self.repo, self.remote.endpoint())),
        };
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            self.begin_again()?;
            return Ok(AttemptOutcome::BrokeOff("the file is shorter than before".into()));
        }
        self.remote.check_status(self.repo, Some(self.name), &response)?;
        if self.there > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            // The host ignored the range and sends the file from its start.
            self.begin_again()?;
        } else if is_other_part(&response, self.there) {
            self.begin_again()?;
            return Ok(AttemptOutcome::BrokeOff(
                "the server sent another part than was requested".into(),
            ));
        }
        let mut body = BufReader::with_capacity(BUFFER, response.body_mut().as_reader());
        loop {
            let bytes = match body.fill_buf() {
                Ok([]) => return Ok(AttemptOutcome::Ended),
                Ok(bytes) if self.there + bytes.len() as u64 > self.most => {
                    return Ok(AttemptOutcome::TooLong);
                }
                Ok(bytes) => bytes,
                Err(error) => return Ok(AttemptOutcome::BrokeOff(error.to_string())),
            };
            self.file.put(bytes)?;
            let count = bytes.len();
            body.consume(count);
            self.there += count as u64;
            progress(self.name, self.there, self.size)?;
        }
    }

    fn begin_again(&mut self) -> Result<()> {
        self.there = 0;
        self.file.cut(0)
    }

    /// Removes the partial file and returns the error for a file that is longer than `most`.
    fn too_long(&self) -> Error {
        if let Err(error) = files::remove(self.part) {
            return error;
        }
        let limit = match self.size {
            Some(_) => "the announced size, in two attempts",
            None => "the limit for a file without an announced size",
        };
        self.problem(format!("{} has more than {} bytes, {limit}", self.name, self.most))
    }

    /// Compares the file with its hash `etag`: SHA-256 for large files, Git's SHA-1 for the others.
    /// Removes the file and errs if they differ. A hash of another length is not checked.
    fn verify(&self, etag: &str) -> Result<()> {
        let (name, part) = (self.name, self.part);
        let file = File::open(part).map_err(Error::io("read", part))?;
        let size = file.metadata().map_err(Error::io("read", part))?.len();
        let found = match etag.len() {
            64 => files::digest(part, file, Sha256::new())?,
            40 => files::digest(part, file, Sha1::new_with_prefix(format!("blob {size}\0")))?,
            _ => return Ok(()),
        };
        if found == etag {
            return Ok(());
        }
        files::remove(part)?;
        let problem = format!(
            "{name} has hash {found}, expected {etag}; the file was deleted, and the next run downloads it again"
        );
        Err(self.problem(problem))
    }

    fn problem(&self, problem: String) -> Error {
        self.remote.problem(self.repo, problem)
    }
}

/// Whether a partial response begins at another byte than `start`.
fn is_other_part(response: &Response<Body>, start: u64) -> bool {
    let range = header(response.headers(), "content-range");
    let range = range.filter(|_| response.status() == StatusCode::PARTIAL_CONTENT);
    range.is_some_and(|range| !range.starts_with(&format!("bytes {start}-")))
}
