//! How the server is, and what it serves: health, metrics, the description and the page.

use super::{empty, json, set, typed};
use crate::serve::page;
use crate::serve::problem::Problem;
use crate::serve::routes::{Call, Response};
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

/// The type of Prometheus's text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How the server is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Status {
    /// `ok`, `loading`, `draining` or `failed`.
    status: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What runs.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Info {
    /// `bitfit`.
    name: &'static str,
    /// bitfit's version.
    version: &'static str,
    /// The base.
    base: BaseInfo,
    /// The device of the base.
    device: String,
    /// The precision of the products.
    precision: String,
    /// libtorch's version.
    libtorch: String,
    /// How many tasks there are.
    tasks: TaskCounts,
    /// The task of requests that name none.
    default_task: Option<String>,
    /// The limits.
    limits: LimitsInfo,
}

/// The base.
#[derive(Debug, Serialize, JsonSchema)]
struct BaseInfo {
    /// Its directory's name, or its id on the Hub.
    name: String,
    /// SHA-256 of the encoder's tensors.
    fingerprint: String,
    /// The class of its classifiers.
    architecture: &'static str,
    /// The most tokens of a text.
    max_length: i64,
}

/// How many tasks there are.
#[derive(Debug, Serialize, JsonSchema)]
struct TaskCounts {
    /// Tasks that answer.
    loaded: usize,
    /// Files that were refused.
    refused: usize,
}

/// The limits of requests.
#[derive(Debug, Serialize, JsonSchema)]
struct LimitsInfo {
    /// Rows of a request.
    max_rows: usize,
    /// MiB of a body.
    max_body_mib: usize,
    /// Tokens of a batch.
    max_batch_tokens: usize,
    /// The expected wait, in milliseconds, from which requests are refused.
    max_queue_ms: u64,
    /// Rows that wait.
    max_queue_rows: usize,
    /// Seconds after which a request fails.
    request_timeout_s: f64,
}

fn status(name: &'static str, error: Option<String>) -> Result<Response, Problem> {
    let is_ok = name == "ok";
    let mut response = json(&Status { status: name, error })?;
    if !is_ok {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

/// Says whether the process works: whether the thread that computes is alive.
pub async fn health(call: Call) -> Result<Response, Problem> {
    match call.service.engine.problem() {
        Some(problem) => status("failed", Some(problem)),
        None => status("ok", None),
    }
}

/// Says whether requests are answered.
pub async fn ready(call: Call) -> Result<Response, Problem> {
    match call.service.engine.problem() {
        Some(problem) => status("failed", Some(problem)),
        None => status(call.phase.name(), None),
    }
}

/// Gives the metrics.
pub async fn metrics(call: Call) -> Result<Response, Problem> {
    Ok(typed(PROMETHEUS, call.service.metrics.text(&call.service.engine)?))
}

/// Says what runs.
pub async fn info(call: Call) -> Result<Response, Problem> {
    let service = &call.service;
    let base = &service.engine.reader().plan().info;
    let limits = &service.limits;
    let (loaded, refused) = {
        let map = service.engine.map();
        (map.tasks().len(), map.refused().len())
    };
    json(&Info {
        name: "bitfit",
        version: env!("CARGO_PKG_VERSION"),
        base: BaseInfo {
            name: service.about.base.clone(),
            fingerprint: base.fingerprint.clone(),
            architecture: base.config.architecture.class,
            max_length: base.config.max_length(),
        },
        device: call.device(),
        precision: service.about.precision.clone(),
        libtorch: service.about.libtorch.clone(),
        tasks: TaskCounts { loaded, refused },
        default_task: service.default_task.clone(),
        limits: LimitsInfo {
            max_rows: limits.max_rows,
            max_body_mib: limits.max_body >> 20,
            max_batch_tokens: service.engine.budget(),
            max_queue_ms: u64::try_from(limits.max_queue.as_millis()).unwrap_or(u64::MAX),
            max_queue_rows: limits.max_queue_rows,
            request_timeout_s: limits.request_timeout.as_secs_f64(),
        },
    })
}

/// Gives the description of the API.
pub async fn openapi(_: Call) -> Result<Response, Problem> {
    json(&crate::serve::openapi::document())
}

/// Gives the page.
pub async fn page(call: Call) -> Result<Response, Problem> {
    if !call.has_page {
        return Ok(empty(StatusCode::NOT_FOUND));
    }
    let mut response = typed("text/html; charset=utf-8", page::HTML);
    set(&mut response, "content-security-policy", &page::policy());
    set(&mut response, "cache-control", "no-cache");
    Ok(response)
}
