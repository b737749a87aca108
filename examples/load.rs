//! Sends requests to a server and measures how it answers: `bitfit serve`, or any HTTP/1.1 server
//! of JSON. One thread does it all, so that a server on the same machine keeps the other cores.
//!
//! ```sh
//! echo '{"rows": [{"task": "spam", "text": "Buy now"}]}' > bodies.jsonl
//! # Each of 64 connections sends its next request as soon as it has its answer:
//! cargo run --release --example load -- --bodies bodies.jsonl --seconds 10 --warmup 2
//! # 500 requests per second, whether the server keeps up or not:
//! cargo run --release --example load -- --bodies bodies.jsonl --seconds 10 --rate 500 --json
//! ```
//!
//! With `--rate`, requests become due at random moments (a Poisson process) that depend on the
//! seed alone. Latency counts from the moment a request was due, even if it had to wait for a free
//! connection: a server that stalls is charged for every request that it delayed. Without `--rate`
//! a stall delays one request per connection, and the percentiles look better than what users see.
//!
//! What is counted are the requests that began, or were due, in the measured time. Only the numbers
//! per second count the answers that came in it, whenever their requests began. `late_ms` is the
//! part of the latency before a request was sent; if it is high while connections are free, the
//! generator lacked processor time. `not_sent` were due and still waited for a connection at the
//! end; `unanswered` were dropped by Ctrl-C.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{error, iter, num::NonZeroUsize, path::PathBuf, pin::pin, process::ExitCode};

use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rustix::time::{ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, unix::pipe::Receiver};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinSet;

type Result<T> = std::result::Result<T, Box<dyn error::Error + Send + Sync>>;

/// Sends requests to an HTTP/1.1 server and measures how it answers.
#[derive(Parser)]
struct Args {
    /// The server; a path in it goes before the path of each request
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: Uri,
    /// The bodies, a JSON object a line: a body, or {"path": "/v1/predict", "body": {...}}
    #[arg(long, value_name = "FILE")]
    bodies: PathBuf,
    /// The path of bodies without one
    #[arg(long, default_value = "/v1/predict")]
    path: String,
    /// How many connections there are
    #[arg(long, default_value = "64", value_name = "N")]
    connections: NonZeroUsize,
    /// How long to measure
    #[arg(long, default_value = "30", value_parser = seconds)]
    seconds: Duration,
    /// How long to send requests before that
    #[arg(long, default_value = "0", value_name = "SECONDS", value_parser = seconds)]
    warmup: Duration,
    /// Requests per second; without it, each connection sends again once it has its answer
    #[arg(long)]
    rate: Option<f64>,
    /// The seed of the moments at which requests are due
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Send the bodies in a random order of this seed instead of the file's
    #[arg(long, value_name = "SEED")]
    shuffle: Option<u64>,
    /// Cut the "rows" of all bodies into requests of this many rows
    #[arg(long, value_name = "K")]
    rows_per_request: Option<NonZeroUsize>,
    /// How long to wait for an answer, from when its request is sent
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    timeout: Duration,
    /// A header of each request (may be repeated)
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Connect to this Unix socket instead of the URL's host
    #[arg(long, value_name = "SOCKET")]
    unix: Option<PathBuf>,
    /// Fail if the body of a 200 is not JSON
    #[arg(long)]
    check: bool,
    /// Write each answer to this file as it comes, a JSON object a line (the warm-up's too)
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Print the results as a JSON object
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration> {
    let number = text.parse().ok().filter(|number| (0.0..=1e8).contains(number));
    Ok(Duration::from_secs_f64(number.ok_or("expected a number of seconds")?))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').ok_or("expected 'Name: value'")?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

/// A request that is sent again and again.
struct Job {
    number: usize,
    uri: Uri,
    body: Bytes,
    rows: u64,
}

/// Reads the file of bodies, and puts them into the order in which they are sent.
fn read_jobs(args: &Args) -> Result<Vec<Job>> {
    let prefix = args.url.path().trim_end_matches('/');
    let mut bodies = Vec::new();
    let text = std::fs::read_to_string(&args.bodies)?;
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let value = serde_json::from_str(line);
        let value =
            value.map_err(|e| format!("line {number}: not JSON (column {})", e.column()))?;
        let Value::Object(object) = value else {
            return Err(format!("line {number}: not a JSON object").into());
        };
        let (path, body) = match (object.get("path"), object.get("body"), object.len()) {
            (Some(Value::String(path)), Some(body), 2) => (path.clone(), body.clone()),
            _ => (args.path.clone(), Value::Object(object)),
        };
        let uri = format!("{prefix}{path}").parse::<Uri>().ok().filter(|_| path.starts_with('/'));
        bodies.push((uri.ok_or_else(|| format!("line {number}: {path:?} is no path"))?, body));
    }
    if let Some(size) = args.rows_per_request {
        bodies = regroup(bodies, size.get())?;
    }
    let jobs = (1..).zip(bodies).map(|(number, (uri, body))| Job {
        number,
        uri,
        rows: rows(&body),
        body: body.to_string().into(),
    });
    let mut jobs: Vec<_> = jobs.collect();
    if let Some(mut random) = args.shuffle.map(ChaCha8Rng::seed_from_u64) {
        for last in (1..jobs.len()).rev() {
            jobs.swap(last, (random.next_u64() % (last as u64 + 1)) as usize);
        }
    }
    if jobs.is_empty() { Err("nothing to send".into()) } else { Ok(jobs) }
}

/// Cuts the rows of all bodies into bodies of `size` rows. The last one is filled up with the
/// first rows, so that all are alike.
fn regroup(bodies: Vec<(Uri, Value)>, size: usize) -> Result<Vec<(Uri, Value)>> {
    let (mut pool, mut frame) = (Vec::new(), None);
    for (mut body, number) in bodies.into_iter().zip(1..) {
        let rows = body.1.get_mut("rows").and_then(Value::as_array_mut);
        pool.append(rows.ok_or_else(|| format!("body {number} has no list \"rows\""))?);
        if *frame.get_or_insert_with(|| body.clone()) != body {
            return Err(format!("body {number} differs from the first not only in rows").into());
        }
    }
    let mut rows = pool.iter().cycle();
    let frames = iter::repeat_n(frame, pool.len().div_ceil(size)).flatten();
    let filled = frames.map(|(uri, mut body)| {
        if let Some(list) = body.get_mut("rows") {
            *list = rows.by_ref().take(size).cloned().collect();
        }
        (uri, body)
    });
    Ok(filled.collect())
}

/// How many texts a body asks about.
fn rows(body: &Value) -> u64 {
    let Some(Value::Array(list)) = ["rows", "inputs", "input"].iter().find_map(|n| body.get(n))
    else {
        return 1;
    };
    // An input of KServe's is a tensor with an element for each text.
    let shape = list.first().and_then(|tensor| tensor.get("shape")?.get(0)?.as_u64());
    shape.unwrap_or(list.len() as u64)
}

/// The moments at which requests are due.
struct Schedule {
    random: ChaCha8Rng,
    mean: Duration,
    next: Instant,
    /// A timer of the kernel's, which is read like a pipe. Tokio's own timers come up to 2 ms late,
    /// longer than many an answer takes.
    timer: Receiver,
}

impl Schedule {
    fn new(rate: f64, seed: u64, start: Instant) -> Result<Self> {
        if !(1e-6..=1e6).contains(&rate) {
            return Err("--rate: expected a number of at most a million".into());
        }
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let random = ChaCha8Rng::seed_from_u64(seed);
        let timer = Receiver::from_owned_fd_unchecked(timer)?;
        let mut schedule =
            Self { random, mean: Duration::from_secs_f64(rate.recip()), next: start, timer };
        schedule.advance();
        Ok(schedule)
    }

    /// Goes on to the next moment, and returns the one before it.
    fn advance(&mut self) -> Instant {
        let uniform = (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let gap = self.mean.mul_f64(-(1.0 - uniform).ln());
        let next = self.next + gap;
        std::mem::replace(&mut self.next, next)
    }

    async fn wait(&self, due: Instant) -> Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            let it_interval = Duration::ZERO.try_into()?;
            let timer = Itimerspec { it_interval, it_value: left.try_into()? };
            rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer)?;
            // The timer may seem readable from the last time, but then nothing can be read.
            while self.timer.try_read(&mut [0; 8]).is_err() {
                self.timer.readable().await?;
            }
        }
        Ok(())
    }
}

/// An open connection.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// The task that reads and writes. A set ends its tasks when it is dropped, and so the
    /// connection is closed, even if an answer is outstanding.
    _task: JoinSet<hyper::Result<()>>,
}

impl Connection {
    async fn start<S>(stream: S) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (sender, driver) = handshake(TokioIo::new(stream)).await?;
        let mut task = JoinSet::new();
        task.spawn_local(driver);
        Ok(Self { sender, _task: task })
    }
}

struct Answer {
    status: u16,
    size: u64,
    /// Kept only for `--check` and `--save`.
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> serde_json::Result<Value> {
        serde_json::from_slice(&self.body)
    }
}

/// An error, its cause, the cause of that, and so on.
fn causes<'a>(
    error: &'a (dyn error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn error::Error + 'static)> {
    iter::successors(Some(error), |cause| cause.source())
}

/// Whether the connection was closed before a request was written to it.
fn is_unsent(error: &hyper::Error) -> bool {
    error.is_canceled() || error.is_closed()
}

/// The kind of what prevented an answer.
fn kind(error: &(dyn error::Error + 'static)) -> &'static str {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    for cause in causes(error) {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return match error.kind() {
                // The socket of a server that is not running may have no file.
                ErrorKind::ConnectionRefused | ErrorKind::NotFound => "refused",
                ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => "reset",
                ErrorKind::TimedOut => "timeout",
                _ => "other",
            };
        }
        let hyper = cause.downcast_ref::<hyper::Error>();
        if hyper.is_some_and(|error| error.is_incomplete_message() || is_unsent(error)) {
            return "reset";
        }
    }
    "other"
}

/// What was counted.
#[derive(Default)]
struct Tally {
    /// Answers and errors since the start, warm-up included, for the progress line.
    progress: (u64, u64),
    statuses: BTreeMap<u16, u64>,
    errors: BTreeMap<&'static str, u64>,
    first_error: Option<String>,
    requests: u64,
    not_json: u64,
    connects: u64,
    sent: u64,
    received: u64,
    /// Microseconds that 200s took, that other answers took, and that requests waited before.
    good: Vec<u32>,
    other: Vec<u32>,
    waits: Vec<u32>,
    /// The answers, the 200s and their rows that came in the measured time.
    in_time: (u64, u64, u64),
}

/// A load on a server.
struct Load {
    args: Args,
    addresses: Vec<SocketAddr>,
    headers: HeaderMap,
    jobs: Vec<Job>,
    next_job: Cell<usize>,
    schedule: Option<tokio::sync::Mutex<Schedule>>,
    save: RefCell<Option<BufWriter<File>>>,
    tally: RefCell<Tally>,
    start: Instant,
    /// The measured time is from here to `end`.
    from: Instant,
    end: Cell<Instant>,
    /// The processor time that was used before `from`.
    processor: OnceCell<Duration>,
}

impl Load {
    /// Prepares all but the connections. Runs in the runtime.
    fn new(args: Args) -> Result<Self> {
        let authority = args.url.authority().map(|name| name.as_str());
        let (Some("http"), Some(host)) = (args.url.scheme_str(), authority) else {
            return Err(format!("--url {}: expected http://HOST:PORT", args.url).into());
        };
        let address = if args.url.port().is_some() { host.into() } else { format!("{host}:80") };
        let addresses = match &args.unix {
            Some(_) => Vec::new(),
            None => address.to_socket_addrs().map_err(|e| format!("{address}: {e}"))?.collect(),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &args.header {
            headers.append(name, value.clone());
        }
        headers.entry(HOST).or_insert(host.parse()?);
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        let jobs = read_jobs(&args).map_err(|e| format!("{}: {e}", args.bodies.display()))?;
        let save = args.save.as_ref().map(|path| {
            let file = OpenOptions::new().write(true).create(true).truncate(true).open(path);
            file.map(BufWriter::new).map_err(|error| format!("{}: {error}", path.display()))
        });
        let start = Instant::now();
        let from = start + args.warmup;
        let schedule = args.rate.map(|rate| Schedule::new(rate, args.seed, start)).transpose()?;
        Ok(Self {
            addresses,
            headers,
            jobs,
            next_job: Cell::new(0),
            schedule: schedule.map(Into::into),
            save: save.transpose()?.into(),
            tally: RefCell::default(),
            start,
            from,
            end: Cell::new(from + args.seconds),
            processor: OnceCell::new(),
            args,
        })
    }

    /// Waits until a request is due, and returns since when it is; `None` at the end.
    async fn due(&self) -> Result<Option<Instant>> {
        let due = if let Some(schedule) = &self.schedule {
            // The connections queue here while all requests that were due are being answered.
            let mut schedule = schedule.lock().await;
            if schedule.next >= self.end.get() || Instant::now() >= self.end.get() {
                return Ok(None);
            }
            let due = schedule.advance();
            schedule.wait(due).await?;
            due
        } else {
            Instant::now()
        };
        if due >= self.from {
            self.processor.get_or_init(processor_time);
        }
        if due >= self.end.get() {
            return Ok(None);
        }
        self.tally.borrow_mut().requests += u64::from(due >= self.from);
        Ok(Some(due))
    }

    /// Sends requests over one connection at a time until the end.
    async fn send_all(self: Rc<Self>) -> Result<()> {
        let mut connection = None;
        while let Some(due) = self.due().await? {
            let number = self.next_job.replace(self.next_job.get() + 1);
            let Some(job) = self.jobs.get(number % self.jobs.len()) else { break };
            let wait = due.elapsed();
            let answer = self.ask(&mut connection, job);
            let answer = tokio::time::timeout(self.args.timeout, answer).await;
            let timeout = || io::Error::new(ErrorKind::TimedOut, "no answer in time");
            let answer = answer.unwrap_or_else(|_| Err(timeout().into()));
            if answer.is_err() {
                connection = None;
            }
            let refused = answer.as_ref().is_err_and(|error| kind(error.as_ref()) != "timeout");
            self.count(job, due, wait, answer)?;
            if refused && self.schedule.is_none() {
                // Without a pause this loop would take the whole core from a server that restarts.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    /// Sends one request, over a new connection if the server has closed the old one.
    async fn ask(&self, kept: &mut Option<Connection>, job: &Job) -> Result<Answer> {
        if let Some(connection) = kept.as_mut() {
            match self.exchange(connection, job).await {
                // The server closed the connection between two requests, which it may.
                Err(error) if error.downcast_ref().is_some_and(is_unsent) => {}
                answer => return answer,
            }
        }
        let connection = if let Some(path) = &self.args.unix {
            Connection::start(UnixStream::connect(path).await?).await?
        } else {
            let stream = TcpStream::connect(self.addresses.as_slice()).await?;
            stream.set_nodelay(true)?;
            Connection::start(stream).await?
        };
        self.tally.borrow_mut().connects += 1;
        self.exchange(kept.insert(connection), job).await
    }

    async fn exchange(&self, connection: &mut Connection, job: &Job) -> Result<Answer> {
        connection.sender.ready().await?;
        let mut request = Request::new(Full::new(job.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = job.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let mut response = connection.sender.send_request(request).await?;
        let mut answer = Answer { status: response.status().as_u16(), size: 0, body: Vec::new() };
        while let Some(frame) = response.frame().await {
            let data = frame?.into_data().unwrap_or_default();
            answer.size += data.len() as u64;
            if self.args.check || self.args.save.is_some() {
                answer.body.extend_from_slice(&data);
            }
        }
        Ok(answer)
    }

    /// Counts an answer, or what there is instead. Its request was sent `wait` after it was due.
    fn count(&self, job: &Job, due: Instant, wait: Duration, answer: Result<Answer>) -> Result<()> {
        let (now, counted) = (Instant::now(), due >= self.from);
        let tally = &mut *self.tally.borrow_mut();
        if counted {
            tally.waits.push(micros(wait));
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tally.progress.1 += 1;
                *tally.errors.entry(kind(error.as_ref())).or_default() += u64::from(counted);
                if tally.first_error.is_none() {
                    let causes: Vec<_> = causes(error.as_ref()).map(ToString::to_string).collect();
                    tally.first_error = Some(causes.join(": "));
                }
                return Ok(());
            }
        };
        let bad = self.args.check && answer.status == 200 && answer.json().is_err();
        let good = answer.status == 200 && !bad;
        tally.progress.0 += 1;
        if counted {
            *tally.statuses.entry(answer.status).or_default() += 1;
            tally.not_json += u64::from(bad);
            tally.sent += job.body.len() as u64;
            tally.received += answer.size;
            if good { &mut tally.good } else { &mut tally.other }.push(micros(now - due));
        }
        if (self.from..self.end.get()).contains(&now) {
            tally.in_time.0 += 1;
            tally.in_time.1 += u64::from(good);
            tally.in_time.2 += if good { job.rows } else { 0 };
        }
        if let Some(file) = self.save.borrow_mut().as_mut() {
            let text = || String::from_utf8_lossy(&answer.body).into();
            let line = json!({
                "body_number": job.number,
                "at_ms": round((now - self.start).as_secs_f64() * 1e3),
                "status": answer.status,
                "latency_ms": round((now - due).as_secs_f64() * 1e3),
                "body": answer.json().unwrap_or_else(|_| text()),
            });
            writeln!(file, "{line}").map_err(|error| format!("--save: {error}"))?;
        }
        Ok(())
    }

    /// Runs until the end, or until Ctrl-C, which drops the requests that have no answer yet.
    async fn run(self: Rc<Self>) -> Result<()> {
        let mut connections = JoinSet::new();
        for _ in 0..self.args.connections.get() {
            connections.spawn_local(self.clone().send_all());
        }
        let mut interrupt = pin!(tokio::signal::ctrl_c());
        let mut second = tokio::time::interval(Duration::from_secs(1));
        let show = !self.args.json && io::stderr().is_terminal();
        let mut before = 0;
        loop {
            tokio::select! {
                done = connections.join_next() => match done {
                    Some(done) => done??,
                    None => break,
                },
                caught = &mut interrupt => {
                    caught?;
                    self.end.set(self.end.get().min(Instant::now()));
                    break;
                }
                // Runs without a terminal too: as long as this timer is the next, tokio need not
                // wake itself for the time-out of each request.
                _ = second.tick() => {
                    let (answers, errors) = self.tally.borrow().progress;
                    let (elapsed, rate) = (self.start.elapsed().as_secs(), answers - before);
                    if show {
                        eprint!("\r{elapsed:6} s {rate:8} answers/s {errors:8} errors");
                    }
                    before = answers;
                }
            }
        }
        if show {
            eprintln!();
        }
        connections.shutdown().await;
        self.save.borrow_mut().as_mut().map_or(Ok(()), Write::flush)?;
        Ok(())
    }

    /// What was measured.
    async fn report(&self) -> Value {
        let cpu = self.processor.get().map_or(Duration::ZERO, |before| processor_time() - *before);
        let elapsed = self.from.elapsed();
        let mut not_sent = 0;
        if let Some(schedule) = &self.schedule {
            let mut schedule = schedule.lock().await;
            while schedule.next < self.end.get() {
                not_sent += u64::from(schedule.advance() >= self.from);
            }
        }
        let tally = &mut *self.tally.borrow_mut();
        let kinds = ["refused", "reset", "timeout", "other"];
        let errors = kinds.map(|kind| (kind, tally.errors.get(kind).copied().unwrap_or_default()));
        let done = tally.statuses.values().chain(tally.errors.values()).sum::<u64>();
        let requests = tally.requests + not_sent;
        let time = self.end.get().saturating_duration_since(self.from).as_secs_f64();
        let per_second = |count: u64| ratio(count as f64, time);
        json!({
            "seconds": round(time),
            "requests": requests,
            "statuses": tally.statuses,
            "errors": BTreeMap::from(errors),
            "first_error": tally.first_error,
            "not_json": tally.not_json,
            "not_sent": not_sent,
            "unanswered": tally.requests - done,
            "answers_per_s": per_second(tally.in_time.0),
            "goodput": {
                "requests_per_s": per_second(tally.in_time.1),
                "rows_per_s": per_second(tally.in_time.2),
                "share": ratio(tally.good.len() as f64, requests as f64),
            },
            "latency_ms_200": percentiles(&mut tally.good),
            "latency_ms_other": percentiles(&mut tally.other),
            "late_ms": self.schedule.as_ref().map(|_| percentiles(&mut tally.waits)),
            "bytes": {"sent": tally.sent, "received": tally.received},
            "connects": tally.connects,
            "generator": {
                "cpu_s": round(cpu.as_secs_f64()),
                "cpu_share": ratio(cpu.as_secs_f64(), elapsed.as_secs_f64()),
                "cpu_us_per_request": ratio(cpu.as_secs_f64() * 1e6, tally.requests as f64),
            },
        })
    }
}

fn micros(time: Duration) -> u32 {
    time.as_micros().try_into().unwrap_or(u32::MAX)
}

fn round(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| round(part / whole))
}

/// Percentiles in milliseconds.
fn percentiles(micros: &mut [u32]) -> Value {
    micros.sort_unstable();
    let shares = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
    let quantile = |share: f64| {
        let rank = (share * micros.len() as f64).ceil() as usize;
        Some(f64::from(*micros.get(rank.checked_sub(1)?)?) / 1e3)
    };
    shares.map(|(name, share)| (name.to_owned(), json!(quantile(share)))).into_iter().collect()
}

/// The processor time that this process has used.
fn processor_time() -> Duration {
    rustix::time::clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

/// Prints a report for people.
fn print(report: &Value) {
    let all = report.as_object().into_iter().flatten();
    for (name, value) in all.filter(|(_, value)| !value.is_null()) {
        let value = match value {
            Value::Object(parts) => {
                let parts = parts.iter().filter(|(_, value)| !value.is_null());
                parts.map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(", ")
            }
            value => value.to_string(),
        };
        println!("{:18} {value}", name.replace('_', " "));
    }
}

/// Runs everything, and tells whether there were answers and all were what `--check` asks for.
fn run(args: Args) -> Result<bool> {
    let as_json = args.json;
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let load = Rc::new(Load::new(args)?);
        load.clone().run().await?;
        let report = load.report().await;
        if as_json {
            println!("{report}")
        } else {
            print(&report)
        }
        let tally = load.tally.borrow();
        Ok(!tally.statuses.is_empty() && tally.not_json == 0)
    })
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
