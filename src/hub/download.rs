//! A file on its way into the cache: taken up where it broke off, and never longer than it may be.

use super::cache::Folder;
use super::remote::{ATTEMPTS, Ask, Expected, Failure, Remote, header, pause};
use super::repo::Repo;
use crate::error::{Error, Result};
use crate::files::{self, Writer, hex};
use indicatif::HumanBytes;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use ureq::Body;
use ureq::http::{Response, StatusCode};

/// Hears how much of a file is there: its name, bytes so far, bytes in all. An error ends the download; what is there is kept.
pub type Progress<'a> = dyn FnMut(&str, u64, Option<u64>) -> Result<()> + 'a;

/// Bytes by which an attempt must come further than any before it, so that the line counts as slow and not as broken.
const PROGRESS: u64 = 1 << 20;

/// The most bytes of a file that is read as a text.
const MOST_OF_A_TEXT: u64 = 64 << 20;

/// The most bytes of a file whose size is not announced: the Hub's own limit for a file.
const MOST_OF_A_FILE: u64 = 50_000_000_000;

/// Bytes read at once.
const BUFFER: usize = 1 << 16;

/// Brings a file of a commit into `folder`. What broke off is taken up again, by this run or the next.
pub fn bring(
    remote: &Remote,
    repo: &Repo,
    folder: &Folder,
    commit: &str,
    name: &str,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let url = remote.address(repo, commit, name);
    let Expected { etag, size } = remote.expected(repo, name, &url)?;
    let blob = folder.blob(&etag)?;
    let _lock = folder.lock(&etag)?;
    // Somebody else may have been faster.
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
    /// The size that is announced.
    size: Option<u64>,
    /// The most bytes that are taken.
    most: u64,
    file: Writer,
    /// Bytes that are there.
    there: u64,
}

/// What an attempt came to.
enum Attempt {
    /// The body ended.
    Ended,
    /// It broke off, and why.
    BrokeOff(String),
    /// The body goes on beyond what is taken.
    TooLong,
}

impl<'a> Download<'a> {
    /// The file `name`, which is at `url`, into `part`, where some of it may be.
    fn new(
        remote: &'a Remote,
        repo: &'a Repo,
        name: &'a str,
        url: &'a str,
        part: &'a Path,
        size: Option<u64>,
    ) -> Result<Self> {
        let file = Writer::append(part)?;
        let there = file.size()?;
        let mut download = Self { remote, repo, name, url, part, size, most: 0, file, there };
        download.most = download.room()?;
        Ok(download)
    }

    /// The most bytes that are taken of the file: those that are announced, if there is room for them.
    fn room(&self) -> Result<u64> {
        let (name, there) = (self.name, self.there);
        let is_text = [".json", ".txt"].iter().any(|ending| name.ends_with(ending));
        let most = if is_text { MOST_OF_A_TEXT } else { MOST_OF_A_FILE };
        if let Some(size) = self.size.filter(|&size| is_text && size > most) {
            let problem = format!("{name} has {size} bytes, expected at most {most} of a text");
            return Err(self.problem(problem));
        }
        let folder = self.part.parent().unwrap_or(self.part);
        // A file system that says nothing of its size is not asked further.
        let Some(free) = rustix::fs::statvfs(folder).ok().filter(|found| found.f_blocks > 0) else {
            return Ok(self.size.unwrap_or(most));
        };
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        match self.size {
            Some(size) if size.saturating_sub(there) > free => {
                let (wanted, free) = (HumanBytes(size - there), HumanBytes(free));
                let folder = folder.display();
                let problem = format!(
                    "{name} wants {wanted} more, and {folder} has {free} free; HF_HUB_CACHE names another place"
                );
                Err(self.problem(problem))
            }
            Some(size) => Ok(size),
            // Where nobody says how much is to come, half of the room stays free.
            None => Ok(most.min(there.saturating_add(free / 2))),
        }
    }

    /// Receives the rest of the file, in as many attempts as that takes.
    fn run(&mut self, progress: &mut Progress<'_>) -> Result<()> {
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
                Attempt::Ended if self.size.is_none_or(|size| size == self.there) => break,
                Attempt::Ended => {
                    format!("{} bytes of {}", self.there, self.size.unwrap_or_default())
                }
                Attempt::BrokeOff(why) => why,
                Attempt::TooLong => {
                    self.begin_again()?;
                    too_long += 1;
                    // A size that was said wrongly once may be said wrongly for ever.
                    if self.size.is_none() || too_long == 2 {
                        return Err(self.too_long());
                    }
                    format!("more than {} bytes", self.most)
                }
            };
            // A slow line that moves on is no reason to give up; what was thrown away is no progress.
            if attempt >= ATTEMPTS && self.there < best + PROGRESS {
                let problem = format!(
                    "{} broke off {attempt} times ({why}); what is there is kept, and the next run goes on from it",
                    self.name
                );
                return Err(self.problem(problem));
            }
            best = best.max(self.there);
            std::thread::sleep(pause(attempt));
        }
        // Where the file system has no locks, two may have written.
        if self.file.size()? != self.there {
            files::remove(self.part)?;
            let problem = format!("{} was written by another process at the same time", self.name);
            return Err(self.problem(problem));
        }
        self.file.sync()
    }

    /// Asks for what is missing, and takes what comes.
    fn attempt(&mut self, progress: &mut Progress<'_>) -> Result<Attempt> {
        let mut response = match self.remote.send(Ask::File { start: self.there }, self.url) {
            Ok(response) => response,
            Err(Failure::Unreached(why)) => return Ok(Attempt::BrokeOff(why)),
            Err(other) => return Err(other.about(self.repo, self.remote.endpoint())),
        };
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            self.begin_again()?;
            return Ok(Attempt::BrokeOff("the file is shorter than before".into()));
        }
        self.remote.good(self.repo, Some(self.name), &response)?;
        if self.there > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            // A host that knows no ranges begins again, and so do we.
            self.begin_again()?;
        } else if is_other_part(&response, self.there) {
            self.begin_again()?;
            return Ok(Attempt::BrokeOff("another part came than was asked for".into()));
        }
        let mut body = BufReader::with_capacity(BUFFER, response.body_mut().as_reader());
        loop {
            let bytes = match body.fill_buf() {
                Ok([]) => return Ok(Attempt::Ended),
                Ok(bytes) if self.there + bytes.len() as u64 > self.most => {
                    return Ok(Attempt::TooLong);
                }
                Ok(bytes) => bytes,
                Err(error) => return Ok(Attempt::BrokeOff(error.to_string())),
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

    /// The error of a file that goes on beyond what is taken; nothing of it is kept.
    fn too_long(&self) -> Error {
        if let Err(error) = files::remove(self.part) {
            return error;
        }
        let said = match self.size {
            Some(_) => "announced, and came so twice",
            None => "taken where none are announced",
        };
        self.problem(format!("{} has more bytes than the {} that are {said}", self.name, self.most))
    }

    /// Compares a file with its hash: SHA-256 of large ones, Git's SHA-1 of the others.
    fn verify(&self, etag: &str) -> Result<()> {
        let (name, part) = (self.name, self.part);
        let mut file = File::open(part).map_err(Error::io("read", part))?;
        let size = file.metadata().map_err(Error::io("read", part))?.len();
        let found = match etag.len() {
            64 => hash(&mut file, Sha256::new()),
            40 => hash(&mut file, Sha1::new_with_prefix(format!("blob {size}\0"))),
            _ => return Ok(()),
        };
        let found = found.map_err(Error::io("read", part))?;
        if found == etag {
            return Ok(());
        }
        files::remove(part)?;
        let problem = format!(
            "{name} came with hash {found}, expected {etag}; it is thrown away, and the next run fetches it again"
        );
        Err(self.problem(problem))
    }

    fn problem(&self, problem: String) -> Error {
        self.remote.problem(self.repo, problem)
    }
}

/// Whether a part of a file begins elsewhere than at the byte `start`.
fn is_other_part(response: &Response<Body>, start: u64) -> bool {
    let range = header(response.headers(), "content-range");
    let range = range.filter(|_| response.status() == StatusCode::PARTIAL_CONTENT);
    range.is_some_and(|range| !range.starts_with(&format!("bytes {start}-")))
}

fn hash(file: &mut File, mut digest: impl Digest) -> std::io::Result<String> {
    let mut file = BufReader::with_capacity(BUFFER, file);
    loop {
        let bytes = file.fill_buf()?;
        if bytes.is_empty() {
            return Ok(hex(&digest.finalize()));
        }
        digest.update(bytes);
        let count = bytes.len();
        file.consume(count);
    }
}
