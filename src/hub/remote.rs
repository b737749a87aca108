//! Requests to the Hub over the network.

use super::repo::{Repo, RepoType, is_plain};
use crate::error::{Error, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use std::time::Duration;
use ureq::Agent;
use ureq::http::{HeaderMap, Response, StatusCode};

/// A client of the Hub.
pub struct Remote {
    /// The Hub's address, without the user and the password that `HF_ENDPOINT` may have, because
    /// messages show the address.
    endpoint: String,
    token: Option<String>,
    /// The value of the `Authorization` header.
    authorization: Option<String>,
    agent: Agent,
}

/// A commit and its files.
pub struct Info {
    pub commit: String,
    pub files: Vec<String>,
}

/// The reason why a request brought nothing.
pub enum FetchError {
    /// The Hub could not be reached. Holds the message.
    Unreached(String),
    /// The wanted files are not in the repository, or not in the cache; another branch may have
    /// them. Holds the message.
    Lacks(String),
    /// The Hub refused, or another error occurred.
    Refused(Box<Error>),
}

impl FetchError {
    /// Converts the failure into an error about `repo`.
    pub fn into_error(self, repo: &Repo, endpoint: &str) -> Error {
        match self {
            Self::Refused(error) => *error,
            Self::Lacks(problem) => repo.problem(endpoint, problem),
            Self::Unreached(why) => {
                let advice =
                    "check the network; there is no local directory or file of this name either";
                repo.problem(endpoint, format!("{why}; {advice}"))
            }
        }
    }
}

impl From<Error> for FetchError {
    fn from(error: Error) -> Self {
        Self::Refused(Box::new(error))
    }
}

/// A file's hash, which names its blob in the cache, and its size in bytes, if announced.
pub struct Expected {
    pub etag: String,
    pub size: Option<u64>,
}

/// The kind of a request.
#[derive(Clone, Copy)]
pub enum Ask {
    /// The headers of a file.
    Headers,
    /// The bytes of a file, from `start` on.
    File { start: u64 },
}

/// The number of attempts for failures that may pass with time.
pub const ATTEMPTS: u32 = 5;

/// The characters that are escaped in a path: all but `/` and the unreserved characters of RFC
/// 3986.
const IN_A_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

impl Remote {
    pub fn new(endpoint: &str, token: Option<String>) -> Result<Self> {
        let (endpoint, credentials) = without_credentials(endpoint);
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let problem = format!("HF_ENDPOINT: found {endpoint}, expected https://HOST");
            return Err(Error::Usage(problem));
        }
        // The token goes into a header unescaped.
        if token.as_ref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            let problem = "the token (HF_TOKEN, or the token file) contains spaces or characters outside ASCII";
            return Err(Error::Usage(problem.into()));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("bitfit/", env!("CARGO_PKG_VERSION")))
            // With compression, sizes and ranges would not be those of the file.
            .accept_encoding("identity")
            // `send` follows redirects itself, because the host of large files must not get the
            // token.
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(60)));
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        // Credentials in the address take precedence over the token, as in Python's clients.
        let bearer = token.as_ref().map(|token| format!("Bearer {token}"));
        let authorization = credentials.map(|c| basic(&c)).or(bearer);
        Ok(Self { endpoint, token, authorization, agent: config.build().new_agent() })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Requests the commit and the file names of a revision. Errs if a name could lead out of the
    /// cache.
    pub fn info(&self, repo: &Repo) -> std::result::Result<Info, FetchError> {
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
        self.check_status(repo, None, &response)?;
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string();
        let text = text.map_err(|e| self.unreached(&e))?;
        let answer: Answer = serde_json::from_str(&text)
            .map_err(|e| self.problem(repo, format!("cannot read the Hub's answer: {e}")))?;
        // These names become paths in the cache.
        let files: Vec<String> = answer.siblings.into_iter().map(|s| s.rfilename).collect();
        let commit = answer.sha.bytes().all(|b| b.is_ascii_alphanumeric()) && is_plain(&answer.sha);
        if !commit || !files.iter().all(|file| is_plain(file)) {
            let problem = "the Hub's answer has a name that leads out of the cache or is too long";
            return Err(self.problem(repo, problem).into());
        }
        Ok(Info { commit: answer.sha, files })
    }

    /// The URL of a file.
    pub fn address(&self, repo: &Repo, commit: &str, name: &str) -> String {
        let (endpoint, prefix, id) = (&self.endpoint, repo.kind.prefix(), &repo.id);
        format!("{endpoint}/{prefix}{id}/resolve/{commit}/{}", escaped(name))
    }

    /// Requests the hash and the size of a file. For a large file, the Hub's redirect to the
    /// storage host carries both.
    pub fn expected(&self, repo: &Repo, name: &str, url: &str) -> Result<Expected> {
        let response =
            self.send(Ask::Headers, url).map_err(|f| f.into_error(repo, &self.endpoint))?;
        if !response.status().is_redirection() {
            self.check_status(repo, Some(name), &response)?;
        }
        let headers = response.headers();
        let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
        let etag = etag.unwrap_or_default().trim_start_matches("W/").trim_matches('"').to_owned();
        let plain = etag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        // The hash becomes a file name.
        if etag.is_empty() || etag.len() > 200 || !plain {
            return Err(self.problem(repo, format!("{name}: no hash in the answer")));
        }
        // A redirect's Content-Length is that of its own body.
        let length = header(headers, "content-length").filter(|_| response.status().is_success());
        let size = header(headers, "x-linked-size").or(length);
        Ok(Expected { etag, size: size.and_then(|size| size.parse().ok()) })
    }

    /// Sends a request for `url` and follows redirects. Retries after a pause if the connection
    /// breaks or the Hub is busy (429 or 5xx).
    ///
    /// For [`Ask::Headers`], returns a redirect to another host instead of following it.
    pub fn send(
        &self,
        ask: Ask,
        url: &str,
    ) -> std::result::Result<Response<ureq::Body>, FetchError> {
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
            if let Some(authorization) = self.authorization.as_ref().filter(|_| ours) {
                request = request.header("Authorization", authorization);
            }
            let response = match request.call() {
                // Retry broken connections only: an unknown host stays unknown.
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
                // A renamed repository redirects within the host; a large file redirects to another
                // host.
                let inside = location.starts_with('/') && !location.starts_with("//");
                if !inside && matches!(ask, Ask::Headers) {
                    return Ok(response);
                }
                hops += 1;
                if hops > 10 {
                    let (host, _) = without_credentials(origin(&url));
                    return Err(self.unreached(&format!("too many redirects from {host}")));
                }
                url = if inside { format!("{}{location}", origin(&url)) } else { location };
            } else if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
                attempt += 1;
                if attempt >= ATTEMPTS {
                    return Err(self.unreached(&format!("the Hub answers {status}")));
                }
                let asked = header(response.headers(), "retry-after").and_then(|s| s.parse().ok());
                let asked = asked.map(|seconds: u64| Duration::from_secs(seconds.min(60)));
                tracing::debug!("{} answers {status}; retrying after a pause", self.endpoint);
                std::thread::sleep(asked.unwrap_or_else(|| pause(attempt)));
            } else {
                return Ok(response);
            }
        }
    }

    fn unreached(&self, error: &dyn std::fmt::Display) -> FetchError {
        FetchError::Unreached(format!("cannot reach {} ({error})", self.endpoint))
    }

    /// Errs if the response about `repo`, or about a `file` in it, has no success status.
    pub fn check_status(
        &self,
        repo: &Repo,
        file: Option<&str>,
        response: &Response<ureq::Body>,
    ) -> Result<()> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let code = header(response.headers(), "x-error-code").unwrap_or_default();
        let kind = repo.kind.name();
        let login = match &self.token {
            Some(_) => "the token has no access to it",
            None => "it is private and needs a token (HF_TOKEN)",
        };
        let local = match repo.kind {
            RepoType::Model => "directory",
            RepoType::Dataset => "file or directory",
        };
        let said = header(response.headers(), "x-error-message").unwrap_or_default();
        let problem = match (status, code.as_str()) {
            (StatusCode::UNAUTHORIZED, _) if said.contains("Invalid credentials") => {
                "the token is wrong or has expired (HF_TOKEN, or the token file)".into()
            }
            (_, "GatedRepo") => {
                let token = match &self.token {
                    Some(_) => "the token has no access yet",
                    None => "a token is needed (HF_TOKEN)",
                };
                format!("a gated {kind}; request access on its page; {token}")
            }
            (_, "RevisionNotFound") => format!("no revision {}", repo.revision),
            (_, "EntryNotFound") => format!("no file {}", file.unwrap_or_default()),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) | (_, "RepoNotFound") => {
                format!(
                    "no such {kind} on the Hub, or {login}; there is no local {local} of this name either"
                )
            }
            (StatusCode::NOT_FOUND, _) => match file {
                Some(file) => format!("no file {file} at revision {}", repo.revision),
                None => format!(
                    "no such {kind} on the Hub, or no revision {}, or {login}; there is no local {local} of this name either",
                    repo.revision
                ),
            },
            _ => format!("the Hub answers {status}"),
        };
        Err(self.problem(repo, problem))
    }

    pub fn problem(&self, repo: &Repo, problem: impl Into<String>) -> Error {
        repo.problem(&self.endpoint, problem)
    }
}

/// Whether the connection was established and then broke before the response.
fn broke(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ends = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    matches!(error, ureq::Error::Io(io) if ends.contains(&io.kind()))
}

/// The pause after `attempt` attempts: 200 ms times 2 to the power of `attempt`, at most 12.8 s.
pub fn pause(attempt: u32) -> Duration {
    Duration::from_millis(200) * 2u32.pow(attempt.min(6))
}

pub fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Splits an address into the address without credentials and the credentials (`USER:PASSWORD`), if
/// it has any.
fn without_credentials(address: &str) -> (String, Option<String>) {
    let (scheme, rest) = address.split_at(address.find("://").map_or(0, |at| at + 3));
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match host.rsplit_once('@') {
        Some((credentials, host)) => {
            (format!("{scheme}{host}{path}"), Some(credentials.to_owned()))
        }
        None => (address.to_owned(), None),
    }
}

/// The `Authorization` header for the credentials of an address.
fn basic(credentials: &str) -> String {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let plain: Vec<u8> =
        percent_decode_str(user).chain(Some(b':')).chain(percent_decode_str(password)).collect();
    format!("Basic {}", BASE64_STANDARD.encode(plain))
}

/// The scheme and the host of an address: everything before its third slash.
fn origin(url: &str) -> &str {
    url.match_indices('/').nth(2).and_then(|(end, _)| url.get(..end)).unwrap_or(url)
}

/// Percent-encodes a path for an address.
fn escaped(path: &str) -> String {
    utf8_percent_encode(path, IN_A_PATH).to_string()
}
