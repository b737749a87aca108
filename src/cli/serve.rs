//! `bitfit serve`: an HTTP server of many tasks on one base.

use super::{downloads, logging};
use crate::config::DeviceName;
use crate::cuda;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::native;
use crate::nn::Precision;
use crate::predict::TaskSource;
use crate::process::memory_limit;
use crate::serve::{About, Address, ConnectionLimits, Limits, ServeSettings, Served, Tiers, serve};
use crate::sources::Model;
use crate::tasks::{Tasks, task_name};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const EXAMPLES: &str = "Examples:
  bitfit serve --model models/all-MiniLM-L6-v2 --tasks runs
  bitfit serve --run runs/movie-reviews                             one task
  bitfit serve --model textattack/bert-base-uncased-SST-2           the head that a base was saved with
  bitfit serve --model DIR --tasks DIR --listen 0.0.0.0:8080 --api-key-file keys.txt --allow-host classify.example.com
  bitfit serve --model DIR --tasks DIR --listen unix:/run/bitfit.sock --admin 127.0.0.1:8081

Ask it:
  curl localhost:8080/v1/predict -H 'Content-Type: application/json' \\
    -d '{\"rows\": [{\"task\": \"movie-reviews\", \"text\": \"A warm, funny film.\"}]}'
  http://localhost:8080/ is a page to try the tasks; docs/serving.md has the other shapes of requests.

Signals:
  SIGTERM and Ctrl-C answer what was taken and end the server; a second one ends it at once
  SIGHUP looks at the tasks and reads the keys again";

#[derive(Args)]
pub struct Serve {
    /// The base: a directory, or the id of a model on the Hub.
    #[arg(long, value_name = "DIR|ID", required_unless_present = "run")]
    model: Option<PathBuf>,
    /// Branch, tag or commit of the model on the Hub [default: main].
    #[arg(long, value_name = "NAME", requires = "model")]
    revision: Option<String>,
    /// The base's weight file [default: as bitfit predict].
    #[arg(long, value_name = "NAME")]
    weights: Option<String>,
    /// Directory of tasks: NAME.safetensors, or NAME/delta.safetensors as a run has it. Without
    /// --tasks and --run, the head that the base was saved with is the one task.
    #[arg(long, value_name = "DIR", requires = "model", conflicts_with = "run")]
    tasks: Option<PathBuf>,
    /// A run directory, whose task is the one task.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// The task of requests that name none.
    #[arg(long, value_name = "NAME")]
    default_task: Option<String>,
    /// End the start if a task is refused.
    #[arg(long)]
    strict: bool,
    /// Where to listen: ADDRESS:PORT or unix:PATH.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: Address,
    /// Where to listen for changes of tasks: PUT and DELETE /tasks/NAME, POST /reload. Without it
    /// no task can be changed over HTTP.
    #[arg(long, value_name = "ADDRESS", requires = "tasks")]
    admin: Option<Address>,
    /// File with a key a line; requests then need the header Authorization: Bearer KEY.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// A name of this server that requests may have in Host, besides localhost and addresses;
    /// *.example.com and * are possible. May be given several times.
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Device to compute on: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Precision of the matrix products, whatever the tasks were trained in.
    #[arg(long, value_enum, default_value = "auto")]
    precision: Precision,
    /// Let fp32 matrix products on CUDA devices round their factors to TF32's 10 mantissa bits.
    #[arg(long)]
    tf32: bool,
    /// Threads that compute [default: all cores, or OMP_NUM_THREADS].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
    /// Tokens of a batch, at most; a text that is longer is a batch of its own [default: 256 for
    /// each thread, 512 at least; 16,384 on a GPU].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_batch_tokens: Option<u32>,
    /// Refuse requests, with 429, that would wait longer than this, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    max_queue_ms: u64,
    /// Refuse requests, with 429, beyond this number of rows that wait.
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    max_queue_rows: u32,
    /// Rows of a request, at most: its texts, times their tasks.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    max_rows: u32,
    /// MiB of a request's body, at most.
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    max_body_mib: u32,
    /// Seconds after which a request fails with 504.
    #[arg(long, value_name = "S", default_value = "30", value_parser = some_seconds)]
    request_timeout: Duration,
    /// Seconds that an idle connection stays open, and that a request's head may take.
    #[arg(long, value_name = "S", default_value = "75", value_parser = some_seconds)]
    keep_alive: Duration,
    /// Open connections, at most.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,
    /// Seconds from SIGTERM to the end of new requests, in which load balancers learn of it.
    #[arg(long, value_name = "S", default_value = "0", value_parser = seconds)]
    drain_delay: Duration,
    /// Seconds to answer what was taken, at most.
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds)]
    drain_timeout: Duration,
    /// Seconds between looks at --tasks for new files; 0 looks on SIGHUP alone.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    reload_seconds: Duration,
    /// MiB of the tasks in memory, at most; more are in files without a name, in --cache-dir
    /// [default: half of the memory that this process may have].
    #[arg(long, value_name = "MIB")]
    tasks_memory_mib: Option<u64>,
    /// Directory of these files [default: the system's for temporary files].
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Leave out the page of GET /.
    #[arg(long)]
    no_page: bool,
    /// Log JSON lines.
    #[arg(long)]
    pub json: bool,
}

/// Parses a number of seconds.
fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=1e6).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected seconds, 0 to 1000000".into())
}

/// Parses a number of seconds above zero.
fn some_seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds = seconds(text)?;
    if seconds.is_zero() { Err("expected more than 0 seconds".into()) } else { Ok(seconds) }
}

impl Serve {
    pub fn run(&self) -> Result<()> {
        let bars = logging::start(self.json);
        native::allow_tf32(self.tf32)?;
        if let Some(threads) = self.threads {
            tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
        }
        let device = self.device.parse().and_then(DeviceName::find);
        let device = device.map_err(|error| Error::Usage(format!("--device: {error}")))?;
        let (model, served) = self.find(&bars)?;
        let mut tasks = Tasks::builder(&model.dir).device(device).precision(self.precision);
        if let Some(weights) = &model.weights {
            tasks = tasks.weights(weights);
        }
        let mut engine = Engine::builder(tasks);
        if let Some(tokens) = self.max_batch_tokens {
            engine = engine.max_batch_tokens(tokens as usize);
        }
        let named = self.model.as_deref().unwrap_or(&model.dir);
        let settings = self.settings(
            served,
            About {
                base: name_of(named),
                precision: self.precision.on(device)?.to_string(),
                libtorch: cuda::VERSION.into(),
            },
        );
        let style = ProgressStyle::with_template("loading tasks {bar:24} {pos}/{len}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bars.add(ProgressBar::new(0).with_style(style));
        serve(engine, &settings, &mut |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            if done == all {
                bar.finish_and_clear();
            }
        })
    }

    /// Finds the base, and what is served of it.
    fn find(&self, bars: &MultiProgress) -> Result<(Model, Served)> {
        let mut progress = downloads(bars);
        if let Some(run) = &self.run {
            let source = TaskSource {
                run: Some(run.clone()),
                model: self.model.clone(),
                revision: self.revision.clone(),
                weights: self.weights.clone(),
                delta: None,
            };
            let found = source.resolve(&mut progress)?;
            let delta = found.delta.ok_or_else(|| Error::Bug("a run without a delta".into()))?;
            return Ok((found.model, Served::File(task_name(&name_of(run)), delta)));
        }
        let named = self.model.as_deref().ok_or_else(|| Error::Bug("no --model".into()))?;
        let (revision, weights) = (self.revision.as_deref(), self.weights.as_deref());
        let model = Model::locate(named, revision, weights, &mut progress)?;
        let served = match &self.tasks {
            Some(dir) => Served::Dir(dir.clone()),
            None => Served::Saved(task_name(&name_of(named))),
        };
        Ok((model, served))
    }

    fn settings(&self, served: Served, about: About) -> ServeSettings {
        let memory = match self.tasks_memory_mib {
            Some(mib) => mib.saturating_mul(1 << 20),
            None => memory_limit() / 2,
        };
        let cache_dir = self.cache_dir.clone().unwrap_or_else(std::env::temp_dir);
        ServeSettings {
            served,
            is_strict: self.strict,
            default_task: self.default_task.clone(),
            listen: self.listen.clone(),
            admin: self.admin.clone(),
            api_key_file: self.api_key_file.clone(),
            allow_host: self.allow_host.iter().map(|host| host.to_lowercase()).collect(),
            limits: Limits {
                max_rows: self.max_rows as usize,
                max_body: (self.max_body_mib as usize) << 20,
                request_timeout: self.request_timeout,
                max_queue: Duration::from_millis(self.max_queue_ms),
                max_queue_rows: self.max_queue_rows as usize,
            },
            connections: ConnectionLimits {
                most: self.max_connections as usize,
                keep_alive: self.keep_alive,
            },
            drain_delay: self.drain_delay,
            drain_timeout: self.drain_timeout,
            reload: Some(self.reload_seconds).filter(|time| !time.is_zero()),
            tiers: Tiers { memory, cache_dir },
            about,
            has_page: !self.no_page,
        }
    }
}

/// The last part of a path, or of an id.
fn name_of(path: &Path) -> String {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
