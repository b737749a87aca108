//! What is asked of the Hub over the network.

use super::{Kind, Progress, Repo};
use crate::error::{Error, Result};
use crate::files::{self, hex};
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::{Agent, Body};

/// The Hub's side.
pub struct Remote {
    endpoint: String,
    token: Option<String>,
    agent: Agent,
}

/// A commit and its files.
pub struct Info {
    pub commit: String,
    pub files: Vec<String>,
}

/// Why nothing was brought.
pub enum Failure {
    /// The Hub could not be reached at all.
    Unreached(String),
    /// It said no, or something else went wrong.
    Refused(Box<Error>),
}

impl Failure {
    /// As an error about `repo`.
    pub fn about(self, repo: &Repo, endpoint: &str) -> Error {
        match self {
            Self::Refused(error) => *error,
            Self::Unreached(why) => {
                let advice = "check the network; and there is no such directory or file here";
                repo.problem(endpoint, format!("{why}; {advice}"))
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(Box::new(error))
    }
}

/// A file's hash, which is its name in the cache, and its size.
struct Expected {
    etag: String,
    size: Option<u64>,
}

/// What is asked for.
#[derive(Clone, Copy)]
enum Ask {
    /// What is said of a file.
    Headers,
    /// Its bytes from `start` on.
    File { start: u64 },
}

/// How often something is tried that may get better by waiting.
const ATTEMPTS: u32 = 5;

/// Bytes read at once.
const BUFFER: usize = 1 << 16;

impl Remote {
    pub fn new(endpoint: &str, token: Option<String>) -> Result<Self> {
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let problem = format!("HF_ENDPOINT: found {endpoint}, expected https://HOST");
            return Err(Error::Usage(problem));
        }
        // It goes into a header as it is.
        if token.as_ref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            let problem =
                "the token (HF_TOKEN, or the token file) has spaces or other letters in it";
            return Err(Error::Usage(problem.into()));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("bitfit/", env!("CARGO_PKG_VERSION")))
            // Sizes and ranges are those of the file itself.
            .accept_encoding("identity")
            // Followed here: the token is not for the host that large files come from.
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(60)));
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        Ok(Self { endpoint, token, agent: config.build().new_agent() })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What the API says of a revision.
    pub fn info(&self, repo: &Repo) -> std::result::Result<Info, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let revision = escaped(&repo.revision).replace('/', "%2F");
        let (endpoint, kind, id) = (&self.endpoint, repo.kind.plural(), &repo.id);
        let url = format!("{endpoint}/api/{kind}/{id}/revision/{revision}");
        let mut response = self.send(Ask::File { start: 0 }, &url)?;
        self.good(repo, None, &response)?;
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string();
        let text = text.map_err(|e| self.unreached(&e))?;
        let answer: Answer = serde_json::from_str(&text)
            .map_err(|e| self.problem(repo, format!("its answer cannot be read: {e}")))?;
        // All of these become names in the cache.
        let plain =
            |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\\');
        let files: Vec<String> = answer.siblings.into_iter().map(|s| s.rfilename).collect();
        let commit = answer.sha.bytes().all(|b| b.is_ascii_alphanumeric()) && plain(&answer.sha);
        if !commit || !files.iter().all(|file| file.split('/').all(plain)) {
            let problem = "its answer has a name that would lead out of the cache";
            return Err(self.problem(repo, problem).into());
        }
        Ok(Info { commit: answer.sha, files })
    }

    /// Brings a file into `folder`. What broke off is taken up again, by this run or the next.
    pub fn download(
        &self,
        repo: &Repo,
        folder: &Path,
        locks: &Path,
        commit: &str,
        name: &str,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let (endpoint, prefix, id) = (&self.endpoint, repo.kind.prefix(), &repo.id);
        let url = format!("{endpoint}/{prefix}{id}/resolve/{commit}/{}", escaped(name));
        let blobs = folder.join("blobs");
        files::create_dir(&blobs)?;
        files::create_dir(locks)?;
        let expected = self.expected(repo, name, &url)?;
        let blob = blobs.join(&expected.etag);
        if !blob.exists() {
            let lock = locks.join(format!("{}.lock", expected.etag));
            let lock = File::create(&lock).map_err(Error::io("create", &lock))?;
            lock.lock().map_err(Error::io("lock", &blob))?;
            // Somebody else may have been faster.
            if !blob.exists() {
                let part = blobs.join(format!("{}.incomplete", expected.etag));
                tracing::info!("downloading {name} of {id}");
                self.receive(repo, name, &url, &part, expected.size, progress)?;
                self.verify(repo, name, &part, &expected.etag)?;
                std::fs::rename(&part, &blob).map_err(Error::io("rename", &part))?;
            }
        }
        let link = folder.join("snapshots").join(commit).join(name);
        files::create_dir(link.parent().unwrap_or(folder))?;
        let up = "../".repeat(2 + name.matches('/').count());
        let target = format!("{up}blobs/{}", expected.etag);
        // A link of before that leads nowhere.
        if link.is_symlink() && !link.exists() {
            std::fs::remove_file(&link).map_err(Error::io("remove", &link))?;
        }
        match std::os::unix::fs::symlink(target, &link) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(Error::io("create", &link)(error))
            }
            _ => Ok(()),
        }
    }

    /// The hash and the size of a file. Of a large one the Hub itself says them, before it leads on to the host that has it.
    fn expected(&self, repo: &Repo, name: &str, url: &str) -> Result<Expected> {
        let response = self.send(Ask::Headers, url).map_err(|f| f.about(repo, &self.endpoint))?;
        if !response.status().is_redirection() {
            self.good(repo, Some(name), &response)?;
        }
        let headers = response.headers();
        let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
        let etag = etag.unwrap_or_default().trim_start_matches("W/").trim_matches('"').to_owned();
        let plain = etag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if etag.is_empty() || !plain {
            return Err(self.problem(repo, format!("{name}: no hash in the answer")));
        }
        // A redirect's own length is not the file's.
        let length = header(headers, "content-length").filter(|_| response.status().is_success());
        let size = header(headers, "x-linked-size").or(length);
        Ok(Expected { etag, size: size.and_then(|size| size.parse().ok()) })
    }

    /// Receives the rest of a file into `part`.
    fn receive(
        &self,
        repo: &Repo,
        name: &str,
        url: &str,
        part: &Path,
        size: Option<u64>,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let write = |error| Error::io("write", part)(error);
        let mut file = File::options().create(true).append(true).open(part).map_err(write)?;
        let mut there = file.metadata().map_err(write)?.len();
        for attempt in 1.. {
            if size.is_some_and(|size| there > size) {
                file.set_len(0).map_err(write)?;
                there = 0;
            }
            progress(name, there, size)?;
            if size == Some(there) {
                break;
            }
            let before = there;
            let broke_off = match self.send(Ask::File { start: there }, url) {
                Err(Failure::Refused(error)) => return Err(*error),
                Err(Failure::Unreached(why)) => Some(why),
                Ok(response) if response.status() == StatusCode::RANGE_NOT_SATISFIABLE => {
                    file.set_len(0).map_err(write)?;
                    there = 0;
                    Some("the file is shorter than before".into())
                }
                Ok(mut response) => {
                    self.good(repo, Some(name), &response)?;
                    if there > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
                        // A host that knows no ranges begins again, and so do we.
                        file.set_len(0).map_err(write)?;
                        there = 0;
                    }
                    let body = response.body_mut().as_reader();
                    let mut body = BufReader::with_capacity(BUFFER, body);
                    loop {
                        match body.fill_buf() {
                            Ok([]) => break None,
                            Ok(bytes) => {
                                file.write_all(bytes).map_err(write)?;
                                let count = bytes.len();
                                body.consume(count);
                                there += count as u64;
                                progress(name, there, size)?;
                            }
                            Err(error) => break Some(error.to_string()),
                        }
                    }
                }
            };
            if broke_off.is_none() && size.is_none_or(|size| size == there) {
                break;
            }
            // A slow line that moves on is no reason to give up.
            if attempt >= ATTEMPTS && there < before + (1 << 20) {
                let why = broke_off
                    .unwrap_or_else(|| format!("{there} bytes of {}", size.unwrap_or_default()));
                let problem = format!(
                    "{name} broke off {attempt} times ({why}); what is there is kept, and the next run goes on from it"
                );
                return Err(self.problem(repo, problem));
            }
            std::thread::sleep(pause(attempt));
        }
        file.sync_all().map_err(write)
    }

    /// Compares a file with its hash: SHA-256 of large ones, Git's SHA-1 of the others.
    fn verify(&self, repo: &Repo, name: &str, part: &Path, etag: &str) -> Result<()> {
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
        std::fs::remove_file(part).map_err(Error::io("remove", part))?;
        let problem = format!(
            "{name} came with hash {found}, expected {etag}; it is thrown away, and the next run fetches it again"
        );
        Err(self.problem(repo, problem))
    }

    /// Asks for `url`, and where it leads; where the Hub is busy, again after a while.
    fn send(&self, ask: Ask, url: &str) -> std::result::Result<Response<Body>, Failure> {
        let (mut url, mut attempt, mut hops) = (url.to_owned(), 0, 0);
        loop {
            let mut request = match ask {
                Ask::Headers => self.agent.head(&url),
                Ask::File { .. } => self.agent.get(&url),
            };
            if let Ask::File { start: start @ 1.. } = ask {
                request = request.header("Range", format!("bytes={start}-"));
            }
            let ours = url.strip_prefix(&self.endpoint).is_some_and(|path| path.starts_with('/'));
            if let Some(token) = self.token.as_ref().filter(|_| ours) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = match request.call() {
                // A connection that broke may hold the next time; a host that is not there will not be.
                Err(error) if attempt + 1 < ATTEMPTS && broke(&error) => {
                    attempt += 1;
                    std::thread::sleep(pause(attempt));
                    continue;
                }
                other => other.map_err(|e| self.unreached(&e))?,
            };
            let status = response.status();
            if status.is_redirection()
                && let Some(location) = header(response.headers(), "location")
            {
                // A repository that was renamed is elsewhere on the same host; a large file is on another.
                let inside = location.starts_with('/') && !location.starts_with("//");
                if !inside && matches!(ask, Ask::Headers) {
                    return Ok(response);
                }
                hops += 1;
                if hops > 10 {
                    return Err(self.unreached(&format!("{url} leads on and on")));
                }
                url = if inside { format!("{}{location}", origin(&url)) } else { location };
            } else if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
                attempt += 1;
                if attempt >= ATTEMPTS {
                    return Err(self.unreached(&format!("it answers {status}")));
                }
                let asked = header(response.headers(), "retry-after").and_then(|s| s.parse().ok());
                let asked = asked.map(|seconds: u64| Duration::from_secs(seconds.min(60)));
                tracing::debug!("{} answers {status}; once more after a while", self.endpoint);
                std::thread::sleep(asked.unwrap_or_else(|| pause(attempt)));
            } else {
                return Ok(response);
            }
        }
    }

    fn unreached(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::Unreached(format!("{} cannot be reached ({error})", self.endpoint))
    }

    /// Checks the status of an answer about `repo`, or about a `file` in it.
    fn good(&self, repo: &Repo, file: Option<&str>, response: &Response<Body>) -> Result<()> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let code = header(response.headers(), "x-error-code").unwrap_or_default();
        let kind = repo.kind.name();
        let login = match &self.token {
            Some(_) => "the token has no access to it",
            None => "it may be private: a token is needed then (HF_TOKEN)",
        };
        let local = match repo.kind {
            Kind::Model => "directory",
            Kind::Dataset => "file or directory",
        };
        let said = header(response.headers(), "x-error-message").unwrap_or_default();
        let problem = match (status, code.as_str()) {
            (StatusCode::UNAUTHORIZED, _) if said.contains("Invalid credentials") => {
                "the token is wrong or has expired (HF_TOKEN, or the token file)".into()
            }
            (_, "GatedRepo") => {
                let token = match &self.token {
                    Some(_) => "the token has not been granted it",
                    None => "a token is needed (HF_TOKEN)",
                };
                format!("a gated {kind}: access must be asked for on its page, and {token}")
            }
            (_, "RevisionNotFound") => format!("no revision {}", repo.revision),
            (_, "EntryNotFound") => format!("no file {}", file.unwrap_or_default()),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) | (_, "RepoNotFound") => {
                format!("no such {kind} on the Hub, or {login}; and there is no such {local} here")
            }
            (StatusCode::NOT_FOUND, _) => match file {
                Some(file) => format!("no file {file} at revision {}", repo.revision),
                None => format!(
                    "no such {kind} on the Hub, or no revision {}, or {login}; and there is no such {local} here",
                    repo.revision
                ),
            },
            _ => format!("it answers {status}"),
        };
        Err(self.problem(repo, problem))
    }

    fn problem(&self, repo: &Repo, problem: impl Into<String>) -> Error {
        repo.problem(&self.endpoint, problem)
    }
}

/// Whether a connection was there, and ended without an answer.
fn broke(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ends = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    matches!(error, ureq::Error::Io(io) if ends.contains(&io.kind()))
}

/// How long to wait after so many attempts.
fn pause(attempt: u32) -> Duration {
    Duration::from_millis(200) * 2u32.pow(attempt.min(6))
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
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

/// Scheme and host of an address: what is before its third slash.
fn origin(url: &str) -> &str {
    url.match_indices('/').nth(2).and_then(|(end, _)| url.get(..end)).unwrap_or(url)
}

/// A path as it stands in an address.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    let letter =
        |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.bytes().map(letter).collect()
}
