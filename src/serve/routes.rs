//! The way of a request to its route and back.
//!
//! ```text
//! request -> Host and Origin -> route -> key -> phase -> body -> handler -> response
//! ```

use super::api::{self, predict};
use super::keys::Keys;
use super::problem::Problem;
use super::service::Service;
use super::table::{Accepts, Route, table};
use crate::escape;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST,
    HeaderValue, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode, Version};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A response.
pub type Response = hyper::Response<BoxBody<Bytes, Infallible>>;

/// A response that is being made.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;

/// The header that names a request.
const REQUEST_ID: &str = "x-request-id";

/// The header that shortens a request's timeout.
const TIMEOUT: &str = "x-request-timeout-ms";

/// The longest name of a request that is taken from its client.
const LONGEST_ID: usize = 128;

/// What the server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The tasks are being read, and the first batches computed.
    Loading,
    /// Requests are answered.
    Ready,
    /// Requests are answered, and no more should come.
    Leaving,
    /// The process is about to end: no request is taken.
    Draining,
}

impl Phase {
    /// The name in `GET /ready`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ok",
            Self::Leaving | Self::Draining => "draining",
        }
    }
}

/// A request, with its body read.
pub struct Call {
    /// What requests share.
    pub service: Arc<Service>,
    /// What the server does.
    pub phase: Phase,
    /// The name of the request.
    pub request_id: String,
    /// The time at which the request fails.
    pub deadline: Instant,
    /// The body.
    pub body: Bytes,
    /// Whether the page is there.
    pub has_page: bool,
    head: Parts,
    params: BTreeMap<String, String>,
}

impl Call {
    /// A part of the path that the route names.
    pub fn find_param(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str)
    }

    /// A part of the path that the route names; empty for another.
    pub fn param(&self, name: &str) -> &str {
        self.find_param(name).unwrap_or_default()
    }

    /// The value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether the body is of this type.
    pub fn is_of_type(&self, media_type: &str) -> bool {
        media_type_of(&self.head).as_deref() == Some(media_type)
    }

    /// The pairs of the query.
    pub fn query(&self) -> Vec<(String, String)> {
        let pairs = self.head.uri.query().unwrap_or_default().split('&');
        let decoded = |text: &str| {
            let text = text.replace('+', " ");
            percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
        };
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key), decoded(value))
        };
        pairs.filter(|pair| !pair.is_empty()).map(pair).collect()
    }

    /// Whether the base is on a GPU.
    pub fn is_on_gpu(&self) -> bool {
        self.service.engine.device().is_cuda()
    }

    /// The device of the base.
    pub fn device(&self) -> String {
        match self.service.engine.device() {
            tch::Device::Cuda(number) => format!("cuda:{number}"),
            _ => "cpu".into(),
        }
    }
}

/// Answers requests.
pub struct Routes {
    service: Arc<Service>,
    routes: Vec<Route>,
    /// The numbers of the routes of each path.
    paths: matchit::Router<Vec<usize>>,
    phase: watch::Receiver<Phase>,
    keys: Option<Arc<Keys>>,
    hosts: Vec<String>,
    has_page: bool,
}

/// Where a request came in.
#[derive(Debug, Clone, Copy)]
pub struct Door {
    /// Whether it is the listener of `--admin`.
    pub is_admin: bool,
    /// Whether it is a Unix socket, which no web page reaches.
    pub is_unix: bool,
}

impl Routes {
    /// Makes the router. `hosts` are the names that a request's `Host` may be besides localhost and
    /// addresses; `*` is any.
    pub fn new(
        service: Arc<Service>,
        phase: watch::Receiver<Phase>,
        keys: Option<Arc<Keys>>,
        hosts: Vec<String>,
        has_page: bool,
    ) -> crate::error::Result<Self> {
        let routes = table();
        let mut of_path: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, route) in routes.iter().enumerate() {
            of_path.entry(route.path).or_default().push(number);
        }
        let mut paths = matchit::Router::new();
        for (path, numbers) in of_path {
            paths.insert(path, numbers).map_err(crate::error::Error::bug)?;
        }
        Ok(Self { service, routes, paths, phase, keys, hosts, has_page })
    }

    /// Answers a request. Nothing that a request does ends the process or the connection's task.
    pub async fn answer(&self, request: Request<Incoming>, door: Door) -> Response {
        let began = Instant::now();
        let (head, body) = request.into_parts();
        let id = request_id(&head);
        let found = self.find(&head, door);
        let label = match &found {
            Ok((route, _)) => route.path,
            Err(_) => "other",
        };
        let trace = head.headers.get("traceparent").and_then(|value| value.to_str().ok());
        let trace = trace.map(|trace| escape::short(trace, LONGEST_ID));
        let method = head.method.clone();
        let answered = match found {
            Ok((route, params)) => {
                let called = self.call(head, body, route, params, &id, began);
                without_panic(Box::pin(called)).await
            }
            Err(problem) => Err(problem),
        };
        let is_draining = *self.phase.borrow() == Phase::Draining;
        let mut response = answered.unwrap_or_else(|problem| {
            if problem.status == StatusCode::INTERNAL_SERVER_ERROR {
                let why = &problem.message;
                tracing::warn!(request_id = id, traceparent = trace, "{method} {label}: {why}");
            }
            of_problem(&problem)
        });
        let code = response.status().as_u16();
        let ms = began.elapsed().as_secs_f64() * 1e3;
        tracing::debug!(request_id = id, traceparent = trace, "{method} {label} {code} {ms:.1} ms");
        self.service.metrics.count_request(label, code, began.elapsed());
        api::set(&mut response, REQUEST_ID, &id);
        api::set(&mut response, "x-content-type-options", "nosniff");
        if is_draining {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The route of a request, with the parts of its path. Errs for a request from elsewhere.
    fn find(
        &self,
        head: &Parts,
        door: Door,
    ) -> Result<(&Route, BTreeMap<String, String>), Problem> {
        self.check_host(head, door)?;
        let path = head.uri.path();
        let no_path = || Problem::no_path(format!("{path}: no such path; see /openapi.json"));
        let found = self.paths.at(path).map_err(|_| no_path())?;
        let routes = found.value.iter().filter_map(|number| self.routes.get(*number));
        let routes: Vec<&Route> = routes.filter(|route| door.is_admin || !route.is_admin).collect();
        let mut params = BTreeMap::new();
        for (name, value) in found.params.iter() {
            let value = percent_encoding::percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_| Problem::malformed("the path is not UTF-8"))?;
            params.insert(name.to_owned(), value.into_owned());
        }
        let is = |route: &&&Route| {
            route.method == head.method
                || route.method == Method::GET && head.method == Method::HEAD
        };
        if let Some(route) = routes.iter().find(is) {
            return Ok((route, params));
        }
        let allowed: Vec<&str> = routes.iter().map(|route| route.method.as_str()).collect();
        if allowed.is_empty() {
            return Err(no_path());
        }
        let (found, allowed) = (&head.method, allowed.join(", "));
        let changes = found == Method::PUT || found == Method::DELETE;
        let hint = match changes && !door.is_admin {
            true => "; tasks are changed on the listener of --admin",
            false => "",
        };
        let message = format!("{path}: found {found}, expected {allowed}{hint}");
        Err(Problem::method(message, allowed))
    }

    /// Errs if the request's `Host` is not one of this server's, or its `Origin` another one: a web
    /// page may make a browser ask any server that it can reach.
    fn check_host(&self, head: &Parts, door: Door) -> Result<(), Problem> {
        let text = |value: Option<&HeaderValue>| -> Option<String> {
            value.map(|value| String::from_utf8_lossy(value.as_bytes()).to_lowercase())
        };
        let is_twice = |name| head.headers.get_all(name).iter().count() > 1;
        if is_twice(HOST) || is_twice(ORIGIN) {
            return Err(Problem::malformed("Host or Origin: given twice"));
        }
        let host = text(head.headers.get(HOST))
            .or_else(|| head.uri.authority().map(|host| host.as_str().to_lowercase()));
        let host = host.unwrap_or_default();
        let name = without_port(&host).unwrap_or_default();
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        let is_allowed = |allowed: &String| match allowed.strip_prefix("*.") {
            Some(domain) => name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
            None => allowed == "*" || allowed == name,
        };
        let is_known = is_address
            || name == "localhost"
            || door.is_unix
            || self.hosts.iter().any(is_allowed)
            // HTTP/1.0, which no browser speaks.
            || host.is_empty()
                && head.version == Version::HTTP_10
                && head.headers.get(ORIGIN).is_none();
        if !is_known {
            return Err(Problem::forbidden(format!(
                "Host: found {host:?}, expected localhost, an address, or a name of --allow-host"
            )));
        }
        let Some(origin) = text(head.headers.get(ORIGIN)) else { return Ok(()) };
        let own = origin.split_once("://").is_some_and(|(_, origin)| {
            // A proxy for TLS may leave out the port of either.
            origin == host || origin == name
        });
        match own {
            true => Ok(()),
            false => Err(Problem::forbidden(format!(
                "Origin: found {origin:?}, which is not this server, {host:?}"
            ))),
        }
    }

    #[allow(clippy::too_many_arguments)]
    async fn call(
        &self,
        head: Parts,
        body: Incoming,
        route: &Route,
        params: BTreeMap<String, String>,
        id: &str,
        began: Instant,
    ) -> Result<Response, Problem> {
        self.check_key(&head, route)?;
        let phase = *self.phase.borrow();
        if !matches!(phase, Phase::Ready | Phase::Leaving) && !route.is_always {
            return Err(Problem::unavailable(format!("the server is {}", phase.name())));
        }
        if let Some(problem) = self.service.engine.end().filter(|_| !route.is_always) {
            return Err(Problem::unavailable(format!("the engine has ended: {problem}")));
        }
        let body = self.body(&head, body, route).await?;
        let deadline = began + self.timeout(&head)?;
        let (service, has_page) = (self.service.clone(), self.has_page);
        let request_id = id.to_owned();
        (route.handler)(Call { service, phase, request_id, deadline, body, has_page, head, params })
            .await
    }

    fn check_key(&self, head: &Parts, route: &Route) -> Result<(), Problem> {
        let Some(keys) = self.keys.as_ref().filter(|_| !route.is_open) else { return Ok(()) };
        let given = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = given.and_then(|given| {
            let (scheme, key) = given.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
        });
        match key {
            Some(key) if keys.has(key) => Ok(()),
            Some(_) => Err(Problem::unauthorized("Authorization: an unknown key")),
            None => Err(Problem::unauthorized("expected the header Authorization: Bearer KEY")),
        }
    }

    /// The request's timeout: the server's, or a shorter one of a header.
    fn timeout(&self, head: &Parts) -> Result<Duration, Problem> {
        let most = self.service.limits.request_timeout;
        let Some(value) = head.headers.get(TIMEOUT) else { return Ok(most) };
        let ms = value.to_str().ok().and_then(|text| text.parse().ok());
        let problem = || Problem::invalid(format!("{TIMEOUT}: expected a number of milliseconds"));
        Ok(most.min(Duration::from_millis(ms.ok_or_else(problem)?)))
    }

    /// Reads the body, if its type and size are right.
    async fn body(&self, head: &Parts, body: Incoming, route: &Route) -> Result<Bytes, Problem> {
        if route.accepts == Accepts::Nothing {
            return Ok(Bytes::new());
        }
        let coding = head.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
        if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
            return Err(Problem::media_type("Content-Encoding: expected a body as it is"));
        }
        let found = media_type_of(head);
        let expected = match route.accepts {
            Accepts::Json => &["application/json"][..],
            Accepts::JsonOrLines => &["application/json", predict::JSON_LINES],
            Accepts::JsonOrTensors => &["application/json", "application/octet-stream"],
            Accepts::Nothing | Accepts::File => &[],
        };
        if let Some(found) = found
            && !expected.is_empty()
            && !expected.contains(&found.as_str())
        {
            let expected = expected.join(" or ");
            let problem = format!("Content-Type: found {found:?}, expected {expected}");
            return Err(Problem::media_type(problem));
        }
        let most = self.service.limits.max_body;
        let too_large = || {
            let mib = most >> 20;
            Problem::too_large(format!("the body has more than {mib} MiB (--max-body-mib)"))
        };
        let length = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length = length.and_then(|text| text.parse::<u64>().ok());
        if length.is_some_and(|length| length > most as u64) {
            return Err(too_large());
        }
        let timeout = self.service.limits.request_timeout;
        let mut phase = self.phase.clone();
        let whole = tokio::select! {
            whole = tokio::time::timeout(timeout, Limited::new(body, most).collect()) => whole,
            () = async { drop(phase.wait_for(|phase| *phase == Phase::Draining).await) },
                if !route.is_always =>
            {
                return Err(Problem::unavailable("the server is draining"));
            }
        };
        match whole {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(error)) => Err(Problem::malformed(format!("the body is broken: {error}"))),
            Err(_) => {
                let seconds = timeout.as_secs_f64();
                Err(Problem::slow_body(format!("the body did not come within {seconds} s")))
            }
        }
    }
}

/// The name of a request: its client's, or a new one.
fn request_id(head: &Parts) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let given = head.headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_name = |id: &&str| {
        (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match given.filter(is_name) {
        Some(id) => id.to_owned(),
        None => {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            format!("{:x}-{number:x}", std::process::id())
        }
    }
}

/// The type of the body, without its parameters, in lower case.
fn media_type_of(head: &Parts) -> Option<String> {
    let value = head.headers.get(CONTENT_TYPE)?;
    let text = String::from_utf8_lossy(value.as_bytes());
    let media_type = text.split(';').next().unwrap_or_default().trim().to_lowercase();
    (!media_type.is_empty()).then_some(media_type)
}

/// A host without its port, the brackets of an IPv6 address, and the dot at the end; `None` for
/// another text.
fn without_port(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return None;
    }
    Some(name.strip_suffix('.').unwrap_or(name))
}

/// The response of a problem.
fn of_problem(problem: &Problem) -> Response {
    let mut response = api::json(&problem.body()).unwrap_or_else(|_| api::empty(problem.status));
    *response.status_mut() = problem.status;
    if let Some(seconds) = problem.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allowed) = &problem.allow {
        let value = HeaderValue::from_str(allowed);
        value.into_iter().for_each(|value| drop(response.headers_mut().insert(ALLOW, value)));
    }
    if problem.status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    }
    // The rest of a body that was not read could be taken for the next request.
    if matches!(problem.status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Waits for an answer. A panic is an answer with 500.
async fn without_panic(
    mut answering: Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send + '_>>,
) -> Result<Response, Problem> {
    std::future::poll_fn(move |context| {
        let polled =
            std::panic::catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(context)));
        polled.unwrap_or_else(|_| {
            Poll::Ready(Err(Problem::failed("a panic while answering. This is a bug.")))
        })
    })
    .await
}
