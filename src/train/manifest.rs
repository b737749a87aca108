//! `manifest.json`: what produced a run. It has hashes of the inputs and the result, versions,
//! machines and commands.

use super::plan::ModelPlan;
use crate::checkpoint::TrainerState;
use crate::error::{Error, Result};
use crate::{files, native, process};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The manifest's name within a run's directory.
pub const FILE: &str = "manifest.json";

/// A record of what produced a run. Times and paths are here, so that the run's other files need
/// not hold them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// SHA-256 of `config.toml`, as `sha256sum` prints it.
    pub config_sha256: String,
    /// The base.
    pub base: BaseMade,
    /// The tokenizer's fingerprint, as in the delta.
    pub tokenizer_fingerprint: String,
    /// SHA-256 over the token ids and targets of the training and evaluation rows, in order.
    pub data_fingerprint: String,
    /// SHA-256 of `delta.safetensors`, as `sha256sum` prints it; `None` until the process ends, or
    /// if there is no such file.
    pub delta_sha256: Option<String>,
    /// The processes of the run, the oldest first. Each `--resume` adds one.
    pub processes: Vec<Process>,
}

/// The base of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BaseMade {
    /// The model's id on the Hub, or the name of its directory.
    pub name: String,
    /// The commit of a model on the Hub; `None` for a local model.
    pub commit: Option<String>,
    /// The weight file that was read.
    pub file: PathBuf,
    /// SHA-256 over the encoder's tensors.
    pub fingerprint: String,
}

/// One process of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// The versions of the program and its parts.
    pub versions: Versions,
    /// The machine that the process ran on.
    pub machine: Host,
    /// The process's arguments, the program first.
    pub command: Vec<String>,
    /// The directory that the process was started in.
    pub working_directory: PathBuf,
    /// The start time (RFC 3339, UTC).
    pub started: String,
    /// The end time (RFC 3339, UTC); `None` while the process runs, or if it was killed.
    pub ended: Option<String>,
    /// `finished`, `interrupted` or `failed`; `None` while the process runs, or if it was killed.
    pub outcome: Option<String>,
    /// Steps that the run had taken before this process.
    pub first_step: u64,
    /// Steps that the run had taken when the process ended.
    pub last_step: Option<u64>,
}

/// The versions of the program, of libtorch and of the compiler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The version of bitfit.
    pub bitfit: String,
    /// The version of libtorch, if known from the build.
    pub libtorch: Option<String>,
    /// The version of rustc, if known from the build.
    pub rustc: Option<String>,
}

/// The machine of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The operating system: `Linux version 6.1.0 ...`.
    pub system: Option<String>,
    /// The processor's model.
    pub cpu: Option<String>,
    /// The level of the processor's instructions in use: `avx512`, `avx2`, `sse2` or `neon`.
    #[serde(default)]
    pub cpu_level: Option<String>,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Threads that libtorch's operations use.
    pub threads: i32,
    /// Memory of the machine in MiB.
    pub memory_mib: Option<u64>,
    /// The device of the run: `cpu`, `cuda:0`.
    pub device: String,
    /// The models of the NVIDIA GPUs.
    pub gpus: Vec<String>,
}

impl Manifest {
    /// Writes the manifest when a run begins or resumes, and returns it. `began` is the age that
    /// this process had when the run began.
    ///
    /// Adds this process to the processes of an earlier manifest. A manifest that cannot be read is
    /// replaced, with a warning.
    pub fn begin(
        output_dir: &Path,
        plan: &ModelPlan,
        state: &TrainerState,
        began: Duration,
    ) -> Result<Self> {
        let path = output_dir.join(FILE);
        let before = files::read(&path).ok().and_then(|bytes| {
            let read = serde_json::from_slice::<Self>(&bytes);
            read.map_err(|e| tracing::warn!("{}: {e}; a new manifest replaces it", path.display()))
                .ok()
        });
        let mut processes = before.map(|before| before.processes).unwrap_or_default();
        processes.push(Process::this(plan, state.step, began));
        let (base, model) = (&plan.model.base, &plan.source);
        let manifest = Self {
            config_sha256: sha256(&output_dir.join("config.toml"))?.unwrap_or_default(),
            base: BaseMade {
                name: model.name.clone(),
                commit: model.commit.clone(),
                file: base.file.clone(),
                fingerprint: base.fingerprint.clone(),
            },
            tokenizer_fingerprint: plan.data.tokenizer.fingerprint.clone(),
            data_fingerprint: state.data_fingerprint.clone(),
            delta_sha256: None,
            processes,
        };
        manifest.write(&path)?;
        Ok(manifest)
    }

    /// Completes the manifest of a process that ended with `outcome` after step `step` of the run.
    pub fn end(mut self, output_dir: &Path, step: u64, outcome: &str) -> Result<()> {
        self.delta_sha256 = sha256(&output_dir.join("delta.safetensors"))?;
        if let Some(process) = self.processes.last_mut() {
            process.ended = Some(rfc3339(process::time_of_day()));
            process.outcome = Some(outcome.into());
            process.last_step = Some(step);
        }
        self.write(&output_dir.join(FILE))
    }

    fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(Error::bug)?;
        files::replace_with(path, (text + "\n").as_bytes())
    }
}

impl Process {
    fn this(plan: &ModelPlan, step: u64, began: Duration) -> Self {
        let age = process::process_age().saturating_sub(began);
        let started = process::time_of_day().checked_sub(age);
        Self {
            versions: Versions {
                bitfit: env!("CARGO_PKG_VERSION").into(),
                libtorch: option_env!("BITFIT_LIBTORCH").map(str::to_owned),
                rustc: option_env!("BITFIT_RUSTC").map(str::to_owned),
            },
            machine: Host::this(plan),
            command: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
            working_directory: std::env::current_dir().unwrap_or_default(),
            started: rfc3339(started.unwrap_or_else(process::time_of_day)),
            ended: None,
            outcome: None,
            first_step: step,
            last_step: None,
        }
    }
}

impl Host {
    fn this(plan: &ModelPlan) -> Self {
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
            cpu_level: Some(native::cpu_level().to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            threads: tch::get_num_threads(),
            memory_mib: memory.and_then(kib).map(|kib| kib / 1024),
            device: match plan.model.device() {
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

/// SHA-256 of the file `path`; `None` if there is no such file.
fn sha256(path: &Path) -> Result<Option<String>> {
    if files::is_there(path)? { files::sha256(path).map(Some) } else { Ok(None) }
}

/// Formats `time` as RFC 3339. The time is limited to the years 1970 to 9999, which the format can
/// write: a clock that was never set may give another year.
fn rfc3339(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}
