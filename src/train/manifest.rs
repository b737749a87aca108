//! `manifest.json`: what a run was made of, with what and where: hashes, versions, the machine, the command.

use super::Prepared;
use crate::checkpoint::State;
use crate::error::{Error, Result};
use crate::{files, native};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The manifest's name within a run's directory.
pub const FILE: &str = "manifest.json";

/// What a run was made of. It holds times and paths, so that nothing else of a run has to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// SHA-256 of `config.toml`, as `sha256sum` prints it.
    pub config_sha256: String,
    /// The base.
    pub base: BaseMade,
    /// Of the tokenizer, as the delta has it.
    pub tokenizer_fingerprint: String,
    /// SHA-256 over what is trained and evaluated on: token ids and targets, in their order.
    pub data_fingerprint: String,
    /// SHA-256 of `delta.safetensors`, as `sha256sum` prints it; none until the run ends.
    pub delta_sha256: Option<String>,
    /// The processes that were the run, the first first: each `--resume` is one more.
    pub processes: Vec<Process>,
}

/// The base of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BaseMade {
    /// Its id on the Hub, or its directory's name.
    pub name: String,
    /// Of a model of the Hub, the commit.
    pub commit: Option<String>,
    /// The weight file that was read.
    pub file: PathBuf,
    /// SHA-256 over the encoder's tensors.
    pub fingerprint: String,
}

/// One process of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// What it was built of.
    pub versions: Versions,
    /// Where it ran.
    pub machine: Machine,
    /// Its arguments, the program first.
    pub command: Vec<String>,
    /// The directory that it was started in.
    pub working_directory: PathBuf,
    /// When it was started (RFC 3339, UTC).
    pub started: String,
    /// When it ended; none while it runs, or where it was killed.
    pub ended: Option<String>,
    /// `finished`, `interrupted`, or `failed`; none while it runs, or where it was killed.
    pub outcome: Option<String>,
    /// Steps that the run had taken before.
    pub first_step: u64,
    /// Steps that the run had taken when the process ended.
    pub last_step: Option<u64>,
}

/// What a program was built of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// bitfit's.
    pub bitfit: String,
    /// libtorch's.
    pub libtorch: Option<String>,
    /// The compiler's.
    pub rustc: Option<String>,
}

/// A computer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its operating system: `Linux version 6.1.0 ...`.
    pub system: Option<String>,
    /// Its processor.
    pub cpu: Option<String>,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Threads of libtorch's operations.
    pub threads: i32,
    /// Its memory.
    pub memory_mib: Option<u64>,
    /// What the run computes on: `cpu`, `cuda:0`.
    pub device: String,
    /// Its NVIDIA GPUs.
    pub gpus: Vec<String>,
}

impl Manifest {
    /// Writes the manifest of a run that begins, or goes on, in its directory; `began` is the age that this process had then.
    pub fn begin(
        output_dir: &Path,
        prepared: &Prepared,
        state: &State,
        began: Duration,
    ) -> Result<Self> {
        let path = output_dir.join(FILE);
        let before = files::read(&path).ok().and_then(|bytes| {
            let read = serde_json::from_slice::<Self>(&bytes);
            read.map_err(|e| tracing::warn!("{}: {e}; it begins anew", path.display())).ok()
        });
        let mut processes = before.map(|before| before.processes).unwrap_or_default();
        processes.push(Process::this(prepared, state.step, began));
        let (base, model) = (&prepared.model.base, prepared.source());
        let manifest = Self {
            config_sha256: sha256(&output_dir.join("config.toml"))?.unwrap_or_default(),
            base: BaseMade {
                name: model.name.clone(),
                commit: model.commit.clone(),
                file: base.file.clone(),
                fingerprint: base.fingerprint.clone(),
            },
            tokenizer_fingerprint: prepared.tokenizer.fingerprint.clone(),
            data_fingerprint: state.data_fingerprint.clone(),
            delta_sha256: None,
            processes,
        };
        manifest.write(&path)?;
        Ok(manifest)
    }

    /// Completes it, when the run has taken `step` steps.
    pub fn end(mut self, output_dir: &Path, step: u64, outcome: &str) -> Result<()> {
        self.delta_sha256 = sha256(&output_dir.join("delta.safetensors"))?;
        if let Some(process) = self.processes.last_mut() {
            process.ended = Some(rfc3339(native::time_of_day()));
            process.outcome = Some(outcome.into());
            process.last_step = Some(step);
        }
        self.write(&output_dir.join(FILE))
    }

    fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::Bug(e.to_string()))?;
        files::replace_with(path, (text + "\n").as_bytes())
    }
}

impl Process {
    fn this(prepared: &Prepared, step: u64, began: Duration) -> Self {
        let age = native::process_age().saturating_sub(began);
        let started = native::time_of_day().checked_sub(age);
        Self {
            versions: Versions {
                bitfit: env!("CARGO_PKG_VERSION").into(),
                libtorch: option_env!("BITFIT_LIBTORCH").map(str::to_owned),
                rustc: option_env!("BITFIT_RUSTC").map(str::to_owned),
            },
            machine: Machine::this(prepared),
            command: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
            working_directory: std::env::current_dir().unwrap_or_default(),
            started: rfc3339(started.unwrap_or_else(native::time_of_day)),
            ended: None,
            outcome: None,
            first_step: step,
            last_step: None,
        }
    }
}

impl Machine {
    fn this(prepared: &Prepared) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        // `key : value`, as the files of /proc have it.
        let value = |text: &str, key: &str| {
            let of =
                |line: &str| Some(line.strip_prefix(key)?.split_once(':')?.1.trim().to_owned());
            text.lines().find_map(of)
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let kib = |text: String| text.split_whitespace().next()?.parse::<u64>().ok();
        let gpus = std::fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
        Self {
            system: read("/proc/version").lines().next().map(str::to_owned),
            cpu: value(&read("/proc/cpuinfo"), "model name"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            threads: tch::get_num_threads(),
            memory_mib: memory.and_then(kib).map(|kib| kib / 1024),
            device: match prepared.model.device() {
                tch::Device::Cuda(index) => format!("cuda:{index}"),
                _ => "cpu".into(),
            },
            gpus: gpus
                .filter_map(|gpu| {
                    value(&read(&gpu.path().join("information").to_string_lossy()), "Model")
                })
                .collect(),
        }
    }
}

/// SHA-256 of a file; `None` where there is none.
fn sha256(path: &Path) -> Result<Option<String>> {
    if files::is_there(path)? { files::sha256(path).map(Some) } else { Ok(None) }
}

/// A time as RFC 3339 writes it, which knows the years 1970 to 9999: a clock that was never set may say another.
fn rfc3339(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}
