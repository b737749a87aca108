//! Finds the base, the task and the tokenizer that predict together.

#![deny(clippy::missing_errors_doc)]

use super::Predictor;
use crate::config::{DeviceName, Run, RunConfig, config_of};
use crate::error::{Error, Result};
use crate::hub::DownloadProgress;
use crate::nn::Precision;
use crate::sources::Model;
use std::path::PathBuf;
use tch::Device;

/// Names of a base and a task.
#[derive(Debug, Clone, Default)]
pub struct TaskSource {
    /// A run directory, whose base, delta and tokenizer are used.
    pub run: Option<PathBuf>,
    /// The base: a directory, or the id of a model on the Hub. With `run`, used instead of the
    /// run's base.
    pub model: Option<PathBuf>,
    /// Branch, tag or commit of the model on the Hub.
    pub revision: Option<String>,
    /// The base's weight file.
    pub weights: Option<String>,
    /// The task's file. With `run`, used instead of the run's delta.
    pub delta: Option<PathBuf>,
}

/// A base and a task that were found.
#[derive(Debug)]
pub struct ResolvedTask {
    /// The configuration of the run; `None` if no run is named.
    pub run: Option<Run>,
    /// The base.
    pub model: Model,
    /// The task's delta; `None` if the model must be a classifier with a head of its own.
    pub delta: Option<PathBuf>,
    /// Whether a delta, if there is one, is the run's.
    pub own_delta: bool,
    /// The directory of the task's tokenizer.
    pub tokenizer: PathBuf,
}

impl TaskSource {
    /// Finds the base and the task, and downloads the base if it is on the Hub. `progress` is told
    /// of downloads.
    pub fn resolve(&self, progress: &mut DownloadProgress<'_>) -> Result<ResolvedTask> {
        let run = self.run.as_deref().map(read_run).transpose()?;
        let of_run = run
            .as_ref()
            .filter(|_| self.model.is_none())
            .and_then(|run| run.model().weights.clone());
        let weights = self.weights.clone().or(of_run);
        let model = match (&self.model, &run) {
            (Some(path), _) => {
                Model::locate(path, self.revision.as_deref(), weights.as_deref(), progress)?
            }
            (None, Some(run)) => {
                let section = run.model();
                let (path, revision) = (&section.model_name_or_path, section.revision.as_deref());
                let model = Model::find(path, revision, weights.as_deref(), progress)?;
                if !model.dir.exists() {
                    let problem = "the run's base is not there; say where it is with --model DIR";
                    return Err(Error::file(&model.dir, problem));
                }
                model
            }
            (None, None) => {
                return Err(Error::Usage(
                    "--delta wants --model DIR, its base, or --run DIR".into(),
                ));
            }
        };
        let in_run = self.run.as_ref().map(|dir| dir.join("delta.safetensors"));
        // The run's copy of the tokenizer goes with its delta.
        let tokenizer = self.run.as_ref().filter(|_| self.delta.is_none()).unwrap_or(&model.dir);
        Ok(ResolvedTask {
            tokenizer: tokenizer.clone(),
            own_delta: self.delta.is_none(),
            delta: self.delta.clone().or(in_run),
            run,
            model,
        })
    }
}

/// The configuration of a run directory, for the CPU: the run's device may not exist on this
/// machine.
fn read_run(dir: &std::path::Path) -> Result<Run> {
    let path = config_of(dir)?;
    let mut config = RunConfig::read(&path, &[])?;
    config.training.device = DeviceName::Cpu;
    Run::new(config, &path, &[])
}

/// How a [`Predictor`] is opened.
#[derive(Debug, Clone, Default)]
pub struct PredictorBuilder {
    source: TaskSource,
    device: Option<Device>,
    precision: Precision,
    batch_size: Option<usize>,
}

impl PredictorBuilder {
    /// Selects a run directory, whose base, delta and tokenizer are used.
    pub fn run(mut self, dir: impl Into<PathBuf>) -> Self {
        self.source.run = Some(dir.into());
        self
    }

    /// Selects the base: a directory, or the id of a model on the Hub. It is used instead of a
    /// run's base.
    pub fn base(mut self, base: impl Into<PathBuf>) -> Self {
        self.source.model = Some(base.into());
        self
    }

    /// Selects a branch, tag or commit of a base on the Hub; `main` by default.
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.source.revision = Some(revision.into());
        self
    }

    /// Selects the base's weight file.
    pub fn weights(mut self, name: impl Into<String>) -> Self {
        self.source.weights = Some(name.into());
        self
    }

    /// Selects the task's file. It is used instead of a run's delta.
    pub fn delta(mut self, file: impl Into<PathBuf>) -> Self {
        self.source.delta = Some(file.into());
        self
    }

    /// Sets the device; by default the first GPU, or the CPU where there is none.
    pub fn device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// Sets the precision of the matrix products, whatever the task was trained in;
    /// [`Precision::Auto`] by default.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Sets the number of texts in a batch; by default the run's, or 32. Batches of short texts
    /// have more.
    pub fn batch_size(mut self, texts: usize) -> Self {
        self.batch_size = Some(texts);
        self
    }

    /// Reads the base and the task, and downloads the base if it is on the Hub.
    ///
    /// # Errors
    ///
    /// A file that is missing or damaged, parts that do not fit together, and a device that is not
    /// there.
    pub fn open(self) -> Result<Predictor> {
        let found = self.source.resolve(&mut |_, _, _| Ok(()))?;
        let device = match self.device {
            Some(device) => device,
            None => DeviceName::Auto.find()?,
        };
        let mut predictor = found.predictor(device)?.with_precision(self.precision)?;
        if let Some(texts) = self.batch_size {
            predictor = predictor.with_batch_size(texts);
        }
        Ok(predictor)
    }
}

impl ResolvedTask {
    /// Reads the base and the task onto `device`. A batch has as many texts as the run's
    /// evaluation had.
    pub fn predictor(&self, device: Device) -> Result<Predictor> {
        let (model, delta) = (&self.model, self.delta.as_deref());
        let weights = model.weights.as_deref();
        let predictor = Predictor::load(&model.dir, weights, delta, &self.tokenizer, device)?;
        Ok(match &self.run {
            Some(run) => {
                predictor.with_batch_size(run.training().per_device_eval_batch_size.size())
            }
            None => predictor,
        })
    }
}
