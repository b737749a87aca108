//! What the server counts, in Prometheus's text format.
//!
//! No task's name is ever a label: thousands of tasks, or of misspelt names, would fill the memory
//! of Prometheus. Counts of tasks are in `GET /tasks`.

use crate::engine::{BatchReport, Engine};
use crate::error::{Error, Result};
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Counter, Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::time::Duration;

/// The upper bounds of times, in seconds.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The upper bounds of counts in a batch.
const COUNTS: [f64; 13] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0];

/// What became of a row.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    /// The row was answered.
    Ok,
    /// The row was not taken: it is wrong, or too much waits.
    Refused,
    /// The deadline passed.
    Expired,
    /// The client left.
    Dropped,
    /// The computation failed.
    Failed,
}

/// The counters, gauges and histograms.
pub struct Metrics {
    registry: Registry,
    /// Responses, by route and status.
    pub requests: IntCounterVec,
    /// The times from a request's head to its response, by route.
    pub request_seconds: HistogramVec,
    rows: IntCounterVec,
    tokens: IntCounter,
    queue_rows: IntGauge,
    queue_tokens: IntGauge,
    /// The times that rows waited.
    pub queue_seconds: Histogram,
    /// The times that requests' texts took to be tokenized.
    pub tokenize_seconds: Histogram,
    batch: [Histogram; 4],
    busy_seconds: Counter,
    tasks: IntGaugeVec,
    tasks_bytes: IntGaugeVec,
    /// Task files that were read, by outcome.
    pub task_loads: IntCounterVec,
    /// The times of looks at the directory of tasks that loaded something.
    pub task_load_seconds: Histogram,
    /// Open connections.
    pub connections: IntGauge,
}

/// Adds `metric` to the registry.
fn added<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> Result<M> {
    let metric = metric.map_err(Error::bug)?;
    registry.register(Box::new(metric.clone())).map_err(Error::bug)?;
    Ok(metric)
}

impl Metrics {
    /// Makes the metrics, all zero.
    pub fn new() -> Result<Self> {
        let metrics = Self::made()?;
        // A counter that appears with its first event hides that event from rates.
        for outcome in
            [Outcome::Ok, Outcome::Refused, Outcome::Expired, Outcome::Dropped, Outcome::Failed]
        {
            metrics.count_rows(outcome, 0);
        }
        metrics.set_tasks(0, 0, [0; 2]);
        for outcome in ["loaded", "refused", "removed"] {
            metrics.task_loads.with_label_values(&[outcome]).inc_by(0);
        }
        Ok(metrics)
    }

    fn made() -> Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        r.register(Box::new(ProcessCollector::for_self())).map_err(Error::bug)?;
        let count = |name, help| added(r, IntCounter::new(name, help));
        let counts = |name, help, labels: &[&str]| {
            added(r, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name, help| added(r, IntGauge::new(name, help));
        let gauges =
            |name, help, labels: &[&str]| added(r, IntGaugeVec::new(Opts::new(name, help), labels));
        let options = |name: &str, help: &str, bounds: &[f64]| {
            HistogramOpts::new(name, help).buckets(bounds.to_vec())
        };
        let histogram = |name, help, bounds: &[f64]| {
            added(r, Histogram::with_opts(options(name, help, bounds)))
        };
        let request_seconds = options(
            "bitfit_http_request_seconds",
            "Time from a request's head to its response",
            &SECONDS,
        );
        Ok(Self {
            requests: counts("bitfit_http_requests_total", "Responses", &["route", "code"])?,
            request_seconds: added(r, HistogramVec::new(request_seconds, &["route"]))?,
            rows: counts(
                "bitfit_rows_total",
                "Texts by each task asked, by outcome",
                &["outcome"],
            )?,
            tokens: count("bitfit_tokens_total", "Tokens computed")?,
            queue_rows: gauge("bitfit_queue_rows", "Rows that wait")?,
            queue_tokens: gauge("bitfit_queue_tokens", "Tokens that wait")?,
            queue_seconds: histogram("bitfit_queue_seconds", "Time that a row waited", &SECONDS)?,
            tokenize_seconds: histogram(
                "bitfit_tokenize_seconds",
                "Time to tokenize a request",
                &SECONDS,
            )?,
            batch: [
                histogram("bitfit_batch_seconds", "Time of a batch", &SECONDS)?,
                histogram("bitfit_batch_rows", "Rows of a batch", &COUNTS)?,
                histogram("bitfit_batch_tokens", "Tokens of a batch", &COUNTS)?,
                histogram("bitfit_batch_tasks", "Different tasks of a batch", &COUNTS)?,
            ],
            busy_seconds: added(
                r,
                Counter::new("bitfit_compute_busy_seconds_total", "Time that batches took"),
            )?,
            tasks: gauges("bitfit_tasks", "Tasks by state", &["state"])?,
            tasks_bytes: gauges("bitfit_tasks_bytes", "Bytes of the tasks by place", &["place"])?,
            task_loads: counts("bitfit_task_loads_total", "Task files read", &["outcome"])?,
            task_load_seconds: histogram(
                "bitfit_task_load_seconds",
                "Time of a look at the tasks that loaded some",
                &SECONDS,
            )?,
            connections: gauge("bitfit_connections", "Open connections")?,
            registry,
        })
    }

    /// Sets the constant metric that says what runs.
    pub fn describe(&self, version: &str, libtorch: &str, base: &str, device: &str) -> Result<()> {
        let options = Opts::new("bitfit_info", "What runs");
        let labels =
            [("version", version), ("libtorch", libtorch), ("base", base), ("device", device)];
        let options = labels.into_iter().fold(options, |o, (k, v)| o.const_label(k, v));
        added(&self.registry, Gauge::with_opts(options))?.set(1.0);
        Ok(())
    }

    /// Counts `count` rows.
    pub fn count_rows(&self, outcome: Outcome, count: usize) {
        let outcome = match outcome {
            Outcome::Ok => "ok",
            Outcome::Refused => "refused",
            Outcome::Expired => "expired",
            Outcome::Dropped => "dropped",
            Outcome::Failed => "failed",
        };
        self.rows.with_label_values(&[outcome]).inc_by(count as u64);
    }

    /// Counts a batch.
    pub fn count_batch(&self, report: &BatchReport) {
        let [seconds, rows, tokens, tasks] = &self.batch;
        seconds.observe(report.time.as_secs_f64());
        rows.observe(report.rows as f64);
        tokens.observe(report.tokens as f64);
        tasks.observe(report.tasks as f64);
        self.tokens.inc_by(report.tokens as u64);
        self.busy_seconds.inc_by(report.time.as_secs_f64());
    }

    /// Notes how many tasks there are, and the bytes that they take in memory and in files.
    pub fn set_tasks(&self, loaded: usize, refused: usize, bytes: [u64; 2]) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.tasks.with_label_values(&["loaded"]).set(count(loaded));
        self.tasks.with_label_values(&["refused"]).set(count(refused));
        for (place, bytes) in ["memory", "file"].into_iter().zip(bytes) {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.tasks_bytes.with_label_values(&[place]).set(bytes);
        }
    }

    /// Counts a response.
    pub fn count_request(&self, route: &str, code: u16, time: Duration) {
        self.requests.with_label_values(&[route, &code.to_string()]).inc();
        self.request_seconds.with_label_values(&[route]).observe(time.as_secs_f64());
    }

    /// All metrics in Prometheus's text format.
    pub fn text(&self, engine: &Engine) -> Result<Vec<u8>> {
        let (rows, tokens) = engine.waiting();
        self.queue_rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
        self.queue_tokens.set(i64::try_from(tokens).unwrap_or(i64::MAX));
        let mut text = vec![];
        TextEncoder::new().encode(&self.registry.gather(), &mut text).map_err(Error::bug)?;
        Ok(text)
    }
}
