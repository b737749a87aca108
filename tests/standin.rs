//! A stand-in for huggingface.co, on a port of this machine; large files come from a second port,
//! as they come from another host there.
//!
//! It answers as the Hub does to what huggingface_hub's `file_download.py` asks: the same paths,
//! statuses, redirects and headers. It can also fail in the ways that networks, disks and people
//! do.

use crate::common::golden_dir;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A file of a repository.
#[derive(Clone)]
pub struct File {
    name: String,
    bytes: Arc<[u8]>,
    /// Kept by Git LFS, and so on the other host.
    large: bool,
}

impl File {
    pub fn small(name: &str, bytes: impl AsRef<[u8]>) -> Self {
        Self { name: name.into(), bytes: bytes.as_ref().into(), large: false }
    }

    pub fn large(name: &str, bytes: impl AsRef<[u8]>) -> Self {
        Self { large: true, ..Self::small(name, bytes) }
    }

    /// What the Hub calls it by: SHA-256 of large files, Git's blob id of the others.
    pub fn etag(&self) -> String {
        if self.large {
            return hex(&Sha256::digest(&self.bytes));
        }
        let head = format!("blob {}\0", self.bytes.len());
        hex(&Sha1::new_with_prefix(head).chain_update(&self.bytes).finalize())
    }
}

/// Who may have a repository's files: everybody, or whoever has the token.
#[derive(Clone)]
enum Access {
    Public,
    /// Others see that it is there, and what files it has.
    Gated(String),
    /// Others do not.
    Private(String),
}

/// A repository with its commits; a new one is on `main`.
#[derive(Clone)]
pub struct Repo {
    kind: &'static str,
    id: String,
    commits: Vec<(String, Vec<File>)>,
    refs: BTreeMap<String, usize>,
    access: Access,
}

impl Repo {
    pub fn model(id: &str) -> Self {
        let (commits, refs) = (vec![], BTreeMap::new());
        Self { kind: "models", id: id.into(), commits, refs, access: Access::Public }
    }

    pub fn dataset(id: &str) -> Self {
        Self { kind: "datasets", ..Self::model(id) }
    }

    /// A commit of these files and no others, to which `main` moves.
    pub fn commit(self, files: impl IntoIterator<Item = File>) -> Self {
        self.commit_on("main", files)
    }

    /// The same on another branch.
    pub fn commit_on(mut self, branch: &str, files: impl IntoIterator<Item = File>) -> Self {
        let mut files: Vec<File> = files.into_iter().collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let mut digest = Sha1::new_with_prefix(format!("{} {}", self.id, self.commits.len()));
        files.iter().for_each(|file| digest.update(format!("{} {}", file.name, file.etag())));
        self.refs.insert(branch.into(), self.commits.len());
        self.commits.push((hex(&digest.finalize()), files));
        self
    }

    /// A tag on the last commit.
    pub fn tag(mut self, name: &str) -> Self {
        self.refs.insert(name.into(), self.commits.len() - 1);
        self
    }

    /// The last commit goes by this name, which is none that Git gives.
    pub fn called(mut self, sha: &str) -> Self {
        self.commits.last_mut().unwrap().0 = sha.into();
        self
    }

    /// The files can be had with this token, by whoever was granted access.
    pub fn gated(self, token: &str) -> Self {
        Self { access: Access::Gated(token.into()), ..self }
    }

    /// With another token, or none, there is no such repository.
    pub fn private(self, token: &str) -> Self {
        Self { access: Access::Private(token.into()), ..self }
    }

    /// The commit that a branch or tag names, or a commit itself.
    fn find(&self, revision: &str) -> Option<&(String, Vec<File>)> {
        let by_ref = self.refs.get(revision).map(|&i| &self.commits[i]);
        by_ref.or_else(|| self.commits.iter().find(|(sha, _)| sha == revision))
    }

    /// The commit's id.
    pub fn sha(&self, revision: &str) -> String {
        self.find(revision).unwrap().0.clone()
    }

    /// A file of `main`.
    pub fn file(&self, name: &str) -> &File {
        self.find("main").unwrap().1.iter().find(|file| file.name == name).unwrap()
    }

    fn allows(&self, token: Option<&str>) -> bool {
        match &self.access {
            Access::Public => true,
            Access::Gated(right) | Access::Private(right) => token == Some(right),
        }
    }
}

/// What goes wrong.
#[derive(Clone)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// The body has the right length, and another last byte.
    OtherBytes,
    /// The body comes whole, whatever range was asked for.
    NoRanges,
    /// The body comes in pieces of so many bytes, with a pause after each.
    Slow(usize, Duration),
    /// This status, and `Retry-After` with so many seconds.
    Status(u16, Option<u64>),
    /// The connection ends without an answer.
    NoAnswer,
    /// Of a file this is said to be the size, or none is.
    Size(Option<u64>),
    /// The body goes on with zeros when it has been sent, and never ends.
    Endless,
}

/// A fault's `times` when it never ends.
pub const ALWAYS: usize = usize::MAX;

/// A token that was good once: the Hub refuses it whatever is asked for.
pub const EXPIRED: &str = "hf_expired";

/// What was asked, and the answer's status.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whether it went to the second port.
    pub cdn: bool,
    pub method: String,
    pub path: String,
    pub token: Option<String>,
    pub range: Option<String>,
    pub status: u16,
}

/// The Hub, until it is dropped: then nothing answers any more.
pub struct Hub {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    ports: [u16; 2],
    repos: Mutex<Vec<Repo>>,
    /// The kind and the old id, and the new one.
    renamed: Mutex<BTreeMap<(&'static str, String), String>>,
    /// Port, part of the path, what goes wrong there, and how often.
    faults: Mutex<Vec<(usize, String, Fault, usize)>>,
    log: Mutex<Vec<Request>>,
    open: Mutex<Vec<TcpStream>>,
    silent: AtomicBool,
    cached: AtomicBool,
    closed: AtomicBool,
}

impl Hub {
    pub fn new() -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let shared = Arc::new(Shared {
            ports: [0, 1].map(|i| listeners[i].local_addr().unwrap().port()),
            repos: Mutex::default(),
            renamed: Mutex::default(),
            faults: Mutex::default(),
            log: Mutex::default(),
            open: Mutex::default(),
            silent: AtomicBool::new(false),
            cached: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let threads = listeners.into_iter().enumerate().map(|(port, listener)| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if shared.closed.load(Ordering::SeqCst) {
                        break;
                    }
                    shared.open.lock().unwrap().push(stream.try_clone().unwrap());
                    let shared = shared.clone();
                    // A reader that goes away is no failure of the Hub's.
                    std::thread::spawn(move || shared.serve(port, stream));
                }
            })
        });
        Self { threads: threads.collect(), shared }
    }

    /// With one repository.
    pub fn of(repo: &Repo) -> Self {
        let hub = Self::new();
        hub.add(repo);
        hub
    }

    /// With what configs/imdb.toml names, as it is on the Hub: the model under its new name, and
    /// small files from the Hub's cache.
    pub fn imdb() -> Self {
        let hub = Self::new();
        hub.add(&distilbert());
        hub.add(&imdb());
        hub.rename("models", "distilbert-base-uncased", "distilbert/distilbert-base-uncased");
        hub.small_files_from_cache();
        hub
    }

    /// `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.shared.ports[0])
    }

    /// Adds a repository, or replaces the one of the same id.
    pub fn add(&self, repo: &Repo) {
        let mut repos = self.shared.repos.lock().unwrap();
        repos.retain(|old| (old.kind, &old.id) != (repo.kind, &repo.id));
        repos.push(repo.clone());
    }

    /// From now on what is asked of `old` is answered with where to go.
    pub fn rename(&self, kind: &'static str, old: &str, new: &str) {
        self.shared.renamed.lock().unwrap().insert((kind, old.into()), new.into());
    }

    /// Small files are redirected to `/api/resolve-cache/` of the same host, as the Hub does since
    /// 2025.
    pub fn small_files_from_cache(&self) {
        self.shared.cached.store(true, Ordering::SeqCst);
    }

    /// Errors come without `X-Error-Code`, as some of the Hub's do.
    pub fn without_error_codes(&self) {
        self.shared.silent.store(true, Ordering::SeqCst);
    }

    /// The next `times` requests to the first port whose path has `part` in it go wrong.
    pub fn fail(&self, part: &str, fault: Fault, times: usize) {
        self.shared.faults.lock().unwrap().push((0, part.into(), fault, times));
    }

    /// The same on the host of large files, whose names are in its paths too.
    pub fn fail_cdn(&self, part: &str, fault: Fault, times: usize) {
        self.shared.faults.lock().unwrap().push((1, part.into(), fault, times));
    }

    /// All is well again.
    pub fn recover(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// What was asked since the last time, in order.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.shared.log.lock().unwrap())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // One that is accepted, so that the thread sees it.
        self.shared.ports.iter().for_each(|&port| {
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        });
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![], body: body.into() }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// A temporary redirect, as of what was renamed.
    fn see(location: String) -> Self {
        Self::new(307, format!("Temporary Redirect. Redirecting to {location}"))
            .with("Location", location)
    }
}

/// The line and the headers, with small names.
struct Asked {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
}

impl Asked {
    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&bytes| bytes > 0)?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, target) = (words.next()?, words.next()?);
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|&bytes| bytes > 0)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        Some(Self { method, target, headers })
    }

    fn token(&self) -> Option<&str> {
        self.headers.get("authorization")?.strip_prefix("Bearer ")
    }
}

impl Shared {
    /// Answers what comes over a connection, until one side ends it.
    fn serve(&self, port: usize, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        while let Some(asked) = Asked::read(&mut reader) {
            let faults = self.faults_of(port, &asked);
            let failing = faults.iter().find_map(|fault| match fault {
                Fault::Status(status, after) => Some((*status, *after)),
                Fault::NoAnswer => Some((0, None)),
                _ => None,
            });
            let answer = match failing {
                Some((status, after)) => {
                    let answer = Answer::new(status, "<html>not today</html>");
                    after.into_iter().fold(answer, |answer, s| answer.with("Retry-After", s))
                }
                None if port == 0 => self.hub(&asked),
                None => {
                    let ranges = !faults.iter().any(|fault| matches!(fault, Fault::NoRanges));
                    self.cdn(&asked, ranges)
                }
            };
            self.log.lock().unwrap().push(Request {
                cdn: port == 1,
                method: asked.method.clone(),
                path: asked.target.clone(),
                token: asked.headers.get("authorization").cloned(),
                range: asked.headers.get("range").cloned(),
                status: answer.status,
            });
            if answer.status == 0 || send(&stream, &asked, answer, &faults).is_none() {
                break;
            }
        }
        stream.shutdown(Shutdown::Both).ok()
    }

    fn faults_of(&self, port: usize, asked: &Asked) -> Vec<Fault> {
        let mut hit = vec![];
        let path = decoded(&asked.target);
        for (at, part, fault, times) in self.faults.lock().unwrap().iter_mut() {
            // What happens to a body does not happen where there is none.
            let fits_method = match fault {
                Fault::Status(..) | Fault::NoAnswer => true,
                Fault::Size(_) => asked.method == "HEAD",
                _ => asked.method == "GET",
            };
            let fits = *at == port && path.contains(&*part) && fits_method;
            if fits && *times > 0 {
                *times -= usize::from(*times != ALWAYS);
                hit.push(fault.clone());
            }
        }
        hit
    }

    fn error(&self, status: u16, code: &str, message: &str) -> Answer {
        let answer = Answer::new(status, json!({ "error": message }).to_string())
            .with("Content-Type", "application/json; charset=utf-8")
            .with("X-Error-Message", message);
        let said = !code.is_empty() && !self.silent.load(Ordering::SeqCst);
        if said { answer.with("X-Error-Code", code) } else { answer }
    }

    /// What is not there and what nobody may know of look alike.
    fn no_repo(&self, token: Option<&str>) -> Answer {
        match token {
            None => self.error(401, "RepoNotFound", "Invalid username or password."),
            Some(_) => self.error(404, "RepoNotFound", "Repository not found"),
        }
    }

    /// huggingface.co itself.
    fn hub(&self, asked: &Asked) -> Answer {
        let token = asked.token();
        if token == Some(EXPIRED) {
            return self.error(401, "", "Invalid credentials in Authorization header");
        }
        if asked.method != "GET" && asked.method != "HEAD" {
            return self.error(405, "", "Method Not Allowed");
        }
        let path = asked.target.split('?').next().unwrap();
        if let Some(rest) = path.strip_prefix("/api/resolve-cache/") {
            let (kind, rest) = rest.split_once('/').unwrap();
            let mut parts = rest.splitn(4, '/');
            let mut part = || parts.next().unwrap_or_default();
            let (id, sha) = (format!("{}/{}", part(), part()), part());
            return self.resolve(kind, &id, sha, part(), token, true);
        }
        if let Some(rest) = path.strip_prefix("/api/") {
            let Some((kind, rest)) = rest.split_once('/') else { return Answer::new(404, "") };
            let (id, revision) = rest.split_once("/revision/").unwrap_or((rest, "main"));
            return self.info(kind, id, revision, token);
        }
        let (kind, rest) = match path.strip_prefix("/datasets/") {
            Some(rest) => ("datasets", rest),
            None => ("models", path.strip_prefix('/').unwrap_or(path)),
        };
        match rest.split_once("/resolve/").map(|(id, rest)| (id, rest.split_once('/'))) {
            Some((id, Some((revision, name)))) => {
                self.resolve(kind, id, revision, name, token, false)
            }
            _ => {
                Answer::new(404, "<html>Sorry, we can't find the page you are looking for.</html>")
            }
        }
    }

    fn new_name(&self, kind: &str, id: &str) -> Option<String> {
        let renamed = self.renamed.lock().unwrap();
        renamed.iter().find(|((k, old), _)| (*k, &**old) == (kind, id)).map(|(_, new)| new.clone())
    }

    fn repo(&self, kind: &str, id: &str) -> Option<Repo> {
        let repos = self.repos.lock().unwrap();
        repos.iter().find(|repo| (repo.kind, &*repo.id) == (kind, id)).cloned()
    }

    fn info(&self, kind: &str, id: &str, revision: &str, token: Option<&str>) -> Answer {
        if let Some(new) = self.new_name(kind, id) {
            return Answer::see(format!("/api/{kind}/{new}/revision/{revision}"));
        }
        let repo = self.repo(kind, id).filter(|repo| match &repo.access {
            Access::Private(_) => repo.allows(token),
            _ => true,
        });
        let Some(repo) = repo else { return self.no_repo(token) };
        // A slash in a revision is escaped.
        let Some((sha, files)) = repo.find(&decoded(revision)).filter(|_| !revision.contains('/'))
        else {
            let message = format!("Invalid rev id: {revision}");
            return self.error(404, "RevisionNotFound", &message);
        };
        let siblings: Vec<Value> =
            files.iter().map(|file| json!({ "rfilename": file.name })).collect();
        let gated = if let Access::Gated(_) = repo.access { json!("manual") } else { json!(false) };
        let text = json!({
            "_id": "621ffdc036468d709f174338",
            "id": repo.id,
            "private": matches!(repo.access, Access::Private(_)),
            "gated": gated,
            "sha": sha,
            "lastModified": "2024-01-04T12:09:45.000Z",
            "siblings": siblings,
        });
        Answer::new(200, text.to_string()).with("Content-Type", "application/json; charset=utf-8")
    }

    fn resolve(
        &self,
        kind: &str,
        id: &str,
        revision: &str,
        name: &str,
        token: Option<&str>,
        cached: bool,
    ) -> Answer {
        let prefix = if kind == "datasets" { "/datasets" } else { "" };
        if let Some(new) = self.new_name(kind, id) {
            return Answer::see(format!("{prefix}/{new}/resolve/{revision}/{name}"));
        }
        let Some(repo) = self.repo(kind, id) else { return self.no_repo(token) };
        if !repo.allows(token) {
            if let Access::Private(_) = repo.access {
                return self.no_repo(token);
            }
            return self.gated(kind, id, prefix, token);
        }
        let Some((sha, files)) = repo.find(&decoded(revision)) else {
            let message = format!("Invalid rev id: {revision}");
            return self.error(404, "RevisionNotFound", &message);
        };
        let name = decoded(name);
        let Some(file) = files.iter().find(|file| file.name == name) else {
            return self.error(404, "EntryNotFound", "Entry not found").with("X-Repo-Commit", sha);
        };
        let (etag, size) = (format!("\"{}\"", file.etag()), file.bytes.len());
        if file.large {
            let location = format!(
                "http://127.0.0.1:{}/cdn/{}?sig=abc&filename={}",
                self.ports[1],
                file.etag(),
                file.name
            );
            let text = format!("Found. Redirecting to {location}");
            return Answer::new(302, text)
                .with("X-Repo-Commit", sha)
                .with("X-Linked-Size", size)
                .with("X-Linked-ETag", etag)
                .with("Location", location);
        }
        if self.cached.load(Ordering::SeqCst) && !cached {
            let answer = Answer::see(format!(
                "/api/resolve-cache/{kind}/{}/{sha}/{name}?etag=%22{}%22",
                repo.id,
                file.etag()
            ));
            return answer
                .with("X-Repo-Commit", sha)
                .with("X-Linked-Size", size)
                .with("X-Linked-ETag", etag);
        }
        Answer::new(200, &*file.bytes)
            .with("Content-Type", "text/plain; charset=utf-8")
            .with("X-Repo-Commit", sha)
            .with("ETag", etag)
    }

    /// The refusal of a gated repository.
    fn gated(&self, kind: &str, id: &str, prefix: &str, token: Option<&str>) -> Answer {
        let page = format!("http://127.0.0.1:{}{prefix}/{id}", self.ports[0]);
        match token {
            None => {
                let message = format!(
                    "Access to {kind} {id} is restricted. You must have access to it and be authenticated to access it. Please log in."
                );
                self.error(401, "GatedRepo", &message)
            }
            Some(_) => {
                let message = format!(
                    "Access to {kind} {id} is restricted and you are not in the authorized list. Visit {page} to ask for access."
                );
                self.error(403, "GatedRepo", &message)
            }
        }
    }

    /// The host of large files, which knows them by their hash alone.
    fn cdn(&self, asked: &Asked, ranges: bool) -> Answer {
        // The address is signed; a token besides is an error, and would be in a stranger's log.
        if asked.headers.contains_key("authorization") {
            return Answer::new(400, "<Error>Only one auth mechanism allowed</Error>");
        }
        let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
        if !query.contains("sig=abc") {
            return Answer::new(403, "<Error>AccessDenied</Error>");
        }
        let hash = path.strip_prefix("/cdn/").unwrap_or_default();
        let repos = self.repos.lock().unwrap();
        let mut files = repos.iter().flat_map(|repo| &repo.commits).flat_map(|(_, files)| files);
        let Some(file) = files.find(|file| file.large && file.etag() == hash) else {
            return Answer::new(404, "<Error>NoSuchKey</Error>");
        };
        let bytes = &file.bytes;
        // Its own, and not the file's hash.
        let etag = format!("\"{}-1\"", hash.get(..32).unwrap());
        let range = asked.headers.get("range").filter(|_| ranges);
        let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        match start.map(|start| start.parse::<usize>().unwrap()) {
            None => Answer::new(200, &**bytes).with("ETag", etag),
            Some(start) if start >= bytes.len() => {
                Answer::new(416, "").with("Content-Range", format!("bytes */{}", bytes.len()))
            }
            Some(start) => {
                let (last, all) = (bytes.len() - 1, bytes.len());
                Answer::new(206, &bytes[start..])
                    .with("ETag", etag)
                    .with("Content-Range", format!("bytes {start}-{last}/{all}"))
            }
        }
    }
}

/// Sends an answer; `None` where the connection is to end.
fn send(mut stream: &TcpStream, asked: &Asked, answer: Answer, faults: &[Fault]) -> Option<()> {
    let Answer { status, mut headers, mut body } = answer;
    let good = (200..300).contains(&status);
    let endless = good && faults.iter().any(|fault| matches!(fault, Fault::Endless));
    headers.push(("Content-Length", body.len().to_string()));
    if endless {
        headers.retain(|(name, _)| *name != "Content-Length");
        headers.push(("Connection", "close".into()));
    }
    for fault in faults {
        let Fault::Size(said) = fault else { continue };
        // A redirect's own length is of its own body.
        let of_the_file = if good { "Content-Length" } else { "X-Linked-Size" };
        headers.retain(|(name, _)| *name != of_the_file);
        headers.extend(said.map(|size| (of_the_file, size.to_string())));
    }
    let mut head = format!("HTTP/1.1 {status} .\r\n");
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if asked.method == "HEAD" {
        return Some(());
    }
    let (mut most, mut piece, mut pause) = (body.len(), body.len(), Duration::ZERO);
    // A redirect's own body is not what they are about.
    for fault in faults.iter().filter(|_| good) {
        match fault {
            Fault::Cut(bytes) => most = *bytes.min(&body.len()),
            Fault::Slow(bytes, time) => (piece, pause) = (*bytes, *time),
            Fault::OtherBytes => body.last_mut().into_iter().for_each(|byte| *byte ^= 1),
            _ => {}
        }
    }
    for chunk in body[..most].chunks(piece.max(1)) {
        stream.write_all(chunk).ok()?;
        std::thread::sleep(pause);
    }
    if endless {
        loop {
            stream.write_all(&[0; 1 << 16]).ok()?;
        }
    }
    (most == body.len()).then_some(())
}

fn decoded(text: &str) -> String {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail.get(..2).filter(|_| byte == b'%');
        let code = escaped.and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The random DistilBERT, with the positions that the real one has, and the files beside it that
/// are nothing to us.
pub fn distilbert() -> Repo {
    let read = |name: &str| std::fs::read(golden_dir().join("tiny-distilbert").join(name)).unwrap();
    let mut config: Value = serde_json::from_slice(&read("config.json")).unwrap();
    config["max_position_embeddings"] = json!(512);
    config["architectures"] = json!(["DistilBertForMaskedLM"]);
    Repo::model("distilbert/distilbert-base-uncased").commit([
        File::small(".gitattributes", "*.h5 filter=lfs diff=lfs merge=lfs -text\n"),
        File::small("LICENSE", "Apache License\n"),
        File::small("README.md", "---\nlanguage: en\n---\n# DistilBERT base model (uncased)\n"),
        File::small("config.json", config.to_string()),
        File::small("coreml/config.json", "{}"),
        File::large("coreml/fill-mask/float32_model.mlpackage/Data/weight.bin", "coreml"),
        File::large("flax_model.msgpack", "flax"),
        File::large("model.safetensors", with_positions(&read("model.safetensors"), 512)),
        File::large("onnx/model.onnx", "onnx"),
        File::large("pytorch_model.bin", "no pickle, and nobody should look"),
        File::large("rust_model.ot", "rust-bert's"),
        File::large("tf_model.h5", "keras"),
        File::small("tokenizer_config.json", read("tokenizer_config.json")),
        File::small("vocab.txt", read("vocab.txt")),
    ])
}

/// A name, a shape and fp32 bytes.
type Named = (String, Vec<usize>, Vec<u8>);

/// A model's weights with so many positions, which repeat those that are there; or with those that
/// are there.
fn widened(weights: &[u8], count: Option<usize>) -> Vec<Named> {
    let tensors = SafeTensors::deserialize(weights).unwrap();
    let widen = |(name, tensor): (String, TensorView<'_>)| {
        let (mut shape, mut bytes) = (tensor.shape().to_vec(), tensor.data().to_vec());
        if let Some(count) = count.filter(|_| name.ends_with("position_embeddings.weight")) {
            bytes = bytes.iter().copied().cycle().take(count * shape[1] * 4).collect();
            shape[0] = count;
        }
        (name, shape, bytes)
    };
    tensors.tensors().into_iter().map(widen).collect()
}

fn safetensors(tensors: &[Named]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let format = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize(views, Some(format)).unwrap()
}

/// The tensors of a weight file in two, and before them their index.
pub fn shards(weights: &File) -> [File; 3] {
    let tensors = widened(&weights.bytes, None);
    let names = [1, 2].map(|i| format!("model-0000{i}-of-00002.safetensors"));
    let halves = tensors.split_at(tensors.len() / 2);
    let of = |half: &[Named], i: usize| -> Vec<(String, Value)> {
        half.iter().map(|(name, ..)| (name.clone(), json!(names[i]))).collect()
    };
    let map: serde_json::Map<_, _> = of(halves.0, 0).into_iter().chain(of(halves.1, 1)).collect();
    let index = json!({"metadata": {"total_size": weights.bytes.len()}, "weight_map": map});
    [
        File::small("model.safetensors.index.json", index.to_string()),
        File::large(&names[0], safetensors(halves.0)),
        File::large(&names[1], safetensors(halves.1)),
    ]
}

/// A DistilBERT's weights with so many positions, and the head that it was pretrained with.
fn with_positions(weights: &[u8], count: usize) -> Vec<u8> {
    let mut tensors = widened(weights, Some(count));
    let width =
        tensors.iter().find(|(name, ..)| name.ends_with("position_embeddings.weight")).unwrap().1
            [1];
    tensors.iter_mut().for_each(|(name, ..)| *name = format!("distilbert.{name}"));
    tensors.push(("vocab_layer_norm.bias".into(), vec![width], vec![0; 4 * width]));
    tensors.push(("vocab_transform.bias".into(), vec![width], vec![0; 4 * width]));
    safetensors(&tensors)
}

/// Writes the random BERT with as many positions as the shipped configurations want.
pub fn long_bert(folder: &Path) {
    let read = |name: &str| std::fs::read(golden_dir().join("tiny-bert").join(name)).unwrap();
    let mut config: Value = serde_json::from_slice(&read("config.json")).unwrap();
    config["max_position_embeddings"] = json!(512);
    std::fs::create_dir_all(folder).unwrap();
    for (name, bytes) in [
        ("config.json", config.to_string().into_bytes()),
        ("model.safetensors", safetensors(&widened(&read("model.safetensors"), Some(512)))),
        ("tokenizer_config.json", read("tokenizer_config.json")),
        ("vocab.txt", read("vocab.txt")),
    ] {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// The film reviews: 1,200 to train on, 300 to be measured on, by class as they are there, and some
/// without a class.
pub fn imdb() -> Repo {
    let classes = json!({"names": ["neg", "pos"], "_type": "ClassLabel"});
    let mut unlabelled = reviews(40, 3);
    unlabelled.iter_mut().for_each(|(_, label)| *label = -1);
    Repo::dataset("stanfordnlp/imdb").commit([
        File::small(".gitattributes", "*.parquet filter=lfs diff=lfs merge=lfs -text\n"),
        File::small("README.md", "---\nconfigs:\n- config_name: plain_text\n---\n# imdb\n"),
        File::large("plain_text/test-00000-of-00001.parquet", parquet(&reviews(300, 2), &classes)),
        File::large(
            "plain_text/train-00000-of-00001.parquet",
            parquet(&reviews(1200, 1), &classes),
        ),
        File::large(
            "plain_text/unsupervised-00000-of-00001.parquet",
            parquet(&unlabelled, &classes),
        ),
    ])
}

/// Reviews of the tiny vocabulary, the bad ones (0) first.
pub fn reviews(rows: usize, seed: u64) -> Vec<(String, i64)> {
    let good = ["very good", "great", "loved", "not bad", "not awful"];
    let bad = ["very bad", "awful", "hated", "not good", "not great"];
    let nouns = ["film", "plot", "acting"];
    // Marsaglia's xorshift.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |from: &[&'static str]| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        from[(state >> 33) as usize % from.len()]
    };
    let row = |i| {
        let label = i64::from(i >= rows / 2);
        let words = if label == 1 { &good } else { &bad };
        let (start, first, second) = (draw(&["the", "a", "it is a"]), draw(&nouns), draw(&nouns));
        let (one, two) = (draw(words), draw(words));
        (format!("{start} {first} was {one}, and the {second} is {two}. i {two} it!"), label)
    };
    (0..rows).map(row).collect()
}

/// A Parquet file as the Hub has them: what `label` means is in the metadata. Two row groups, since
/// real ones have several.
pub fn parquet(rows: &[(String, i64)], label: &Value) -> Vec<u8> {
    let schema = "message schema { OPTIONAL BYTE_ARRAY text (STRING); OPTIONAL INT64 label; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let features = json!({"text": {"dtype": "string", "_type": "Value"}, "label": label});
    let features = json!({"info": {"features": features}}).to_string();
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".into(), features)]))
        .build();
    let mut writer = SerializedFileWriter::new(vec![], schema, Arc::new(properties)).unwrap();
    for rows in rows.chunks(rows.len().div_ceil(2).max(1)) {
        let there = vec![1; rows.len()];
        let texts: Vec<ByteArray> = rows.iter().map(|(text, _)| text.as_str().into()).collect();
        let labels: Vec<i64> = rows.iter().map(|(_, label)| *label).collect();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&there), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&labels, Some(&there), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

/// Asks without any client's help; returns status, headers and body.
#[cfg(test)]
fn ask(port: u16, request: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (line, headers) = request.split_once('\n').unwrap_or((request, ""));
    let headers: String = headers.lines().map(|line| format!("{}\r\n", line.trim())).collect();
    stream.write_all(format!("{line} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut bytes = vec![];
    std::io::Read::read_to_end(&mut stream, &mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |end| end + 4);
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    (status, head, bytes[end..].to_vec())
}

/// The bytes of `w.bin`.
fn weights() -> Vec<u8> {
    (0..=255).cycle().take(5000).collect()
}

/// A repository of two commits.
fn two_commits() -> Repo {
    let old = Repo::model("a/b").commit([File::small("config.json", "{}")]).tag("v1");
    old.commit([
        File::small("config.json", "hello\n"),
        File::large("w.bin", weights()),
        File::small("sub/x y.txt", "x"),
    ])
}

/// Checks the answer to a HEAD request.
fn head(port: u16, path: &str, more: &str, status: u16, parts: &[&str]) {
    let (found, head, body) = ask(port, &format!("HEAD {path}\n{more}"));
    assert_eq!((found, body.len()), (status, 0), "{path}");
    for part in parts {
        assert!(head.contains(part), "expected {part:?} in {head}");
    }
}

#[test]
fn the_stand_in_answers_as_the_hub_does() {
    let (repo, weights) = (two_commits(), weights());
    let hub = Hub::of(&repo);
    let [port, cdn] = hub.shared.ports;
    let (main, v1) = (repo.sha("main"), repo.sha("v1"));
    let info = |path: &str| -> Value {
        let (status, _, body) = ask(port, &format!("GET {path}"));
        assert_eq!(status, 200, "{path}");
        serde_json::from_slice(&body).unwrap()
    };
    assert_eq!(info("/api/models/a/b")["sha"], *main);
    assert_eq!(info(&format!("/api/models/a/b/revision/{v1}"))["sha"], *v1);
    let names =
        json!([{"rfilename": "config.json"}, {"rfilename": "sub/x y.txt"}, {"rfilename": "w.bin"}]);
    assert_eq!(info("/api/models/a/b/revision/main")["siblings"], names);
    let head = |path: &str, more: &str, status: u16, parts: &[&str]| {
        head(port, path, more, status, parts);
    };
    // `printf 'hello\n' | git hash-object --stdin`
    let blob = "ETag: \"ce013625030ba8dba906f756967f9e9ca394464a\"";
    let commit = format!("X-Repo-Commit: {main}");
    head("/a/b/resolve/main/config.json", "", 200, &[blob, &commit, "Content-Length: 6"]);
    head("/a/b/resolve/main/sub/x%20y.txt", "", 200, &["Content-Length: 1\r"]);
    head("/a/b/resolve/v1/w.bin", "", 404, &["X-Error-Code: EntryNotFound"]);
    head("/a/b/resolve/v2/w.bin", "", 404, &["X-Error-Code: RevisionNotFound"]);
    head("/a/c/resolve/main/w.bin", "", 401, &["X-Error-Code: RepoNotFound"]);
    let token = "Authorization: Bearer hf_x";
    head("/a/c/resolve/main/w.bin", token, 404, &["X-Error-Code: RepoNotFound"]);
    let expired = "Authorization: Bearer hf_expired";
    head("/api/models/a/b/revision/main", expired, 401, &["X-Error-Message: Invalid cred"]);
    let sha = hex(&Sha256::digest(&weights));
    let (status, found, _) = ask(port, "GET /a/b/resolve/main/w.bin");
    assert_eq!(status, 302);
    assert!(
        found.contains(&format!("X-Linked-ETag: \"{sha}\"\r\nLocation: http://127.0.0.1:{cdn}/"))
    );
    let path = format!("/cdn/{sha}?sig=abc&filename=w.bin");
    let cdn = |more: &str| ask(cdn, &format!("GET {path}\n{more}"));
    assert_eq!(cdn("").2, weights);
    let (status, found, body) = cdn("Range: bytes=4990-");
    assert_eq!((status, &body[..]), (206, &weights[4990..]));
    assert!(found.contains("Content-Range: bytes 4990-4999/5000"), "{found}");
    assert_eq!(cdn("Range: bytes=5000-").0, 416);
    assert_eq!(cdn(token).0, 400);
    hub.small_files_from_cache();
    let (status, found, _) = ask(port, "GET /a/b/resolve/main/config.json");
    assert_eq!(status, 307);
    let location = found.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap();
    assert_eq!(ask(port, &format!("GET {location}")).2, b"hello\n");
    hub.rename("models", "c", "a/b");
    head("/c/resolve/main/w.bin", "", 307, &["Location: /a/b/resolve/main/w.bin\r"]);
    head("/api/models/c/revision/v1", "", 307, &["Location: /api/models/a/b/revision/v1\r"]);
}

#[test]
fn the_stand_in_fails_as_it_is_told() {
    let weights = weights();
    let hub = Hub::of(&two_commits());
    let [port, cdn] = hub.shared.ports;
    let path = format!("/cdn/{}?sig=abc&filename=w.bin", hex(&Sha256::digest(&weights)));
    let cdn = |more: &str| ask(cdn, &format!("GET {path}\n{more}"));
    hub.small_files_from_cache();
    hub.fail_cdn("w.bin", Fault::Cut(10), 1);
    hub.fail_cdn("w.bin", Fault::NoRanges, 2);
    hub.fail_cdn("w.bin", Fault::OtherBytes, 2);
    assert_eq!(cdn("").2, weights[..10]);
    let (status, _, body) = cdn("Range: bytes=10-");
    assert_eq!((status, body.len(), body == weights), (200, 5000, false));
    assert_eq!(cdn("Range: bytes=10-").2, weights[10..]);
    hub.fail("/api/", Fault::Status(429, Some(1)), 1);
    let (status, found, _) = ask(port, "GET /api/models/a/b");
    assert_eq!((status, found.contains("Retry-After: 1\r")), (429, true));
    hub.fail("/api/", Fault::NoAnswer, 1);
    assert_eq!(ask(port, "GET /api/models/a/b").0, 0);
    hub.fail("resolve", Fault::Size(Some(7)), 2);
    head(port, "/a/b/resolve/main/w.bin", "", 302, &["X-Linked-Size: 7\r"]);
    head(port, "/a/b/resolve/main/sub/x%20y.txt", "", 307, &["X-Linked-Size: 7\r"]);
    let log: Vec<_> =
        hub.requests().into_iter().map(|r| (r.cdn, r.method, r.range, r.status)).collect();
    let get = |range: Option<&str>, status| (true, "GET".into(), range.map(str::to_owned), status);
    let range = Some("bytes=10-");
    assert_eq!(log[..3], [get(None, 200), get(range, 200), get(range, 206)]);
    drop(hub);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(), "nobody is there any more");
}
