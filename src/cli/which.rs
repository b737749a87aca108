//! Finds the model and the task that a command's arguments name.

use super::{downloads, find_model};
use crate::config::{Run, RunConfig};
use crate::error::{Error, Result};
use crate::sources::Model;
use crate::train;
use clap::Args;
use indicatif::MultiProgress;
use std::path::{Path, PathBuf};

/// Arguments that name a model and a task.
#[derive(Args)]
pub struct Which {
    /// A run directory, whose base, delta and data are used.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["delta", "model"])]
    run: Option<PathBuf>,
    /// The base: a directory, or the id of a model on the Hub; with --run, used instead of the
    /// run's base.
    #[arg(long, value_name = "DIR|ID")]
    model: Option<PathBuf>,
    /// Branch, tag or commit of the model on the Hub [default: main].
    #[arg(long, value_name = "NAME", requires = "model")]
    revision: Option<String>,
    /// The base's weight file, or the index of a sharded model [default: the first of model.ot,
    /// model.safetensors and pytorch_model.bin; for a Hub model, safetensors first].
    #[arg(long, value_name = "NAME")]
    weights: Option<String>,
    /// The task's delta.safetensors; with --run, used instead of the run's delta.
    #[arg(long, value_name = "FILE")]
    delta: Option<PathBuf>,
}

/// The model and the task that the arguments name.
pub struct Found {
    /// The configuration of --run; `None` if --run is not given.
    pub run: Option<Run>,
    pub model: Model,
    /// The task's delta; `None` if the model must be a classifier with a head of its own.
    pub delta: Option<PathBuf>,
    /// Whether a delta, if there is one, is the run's: --delta is not given.
    pub own_delta: bool,
    /// The directory of the task's tokenizer.
    pub tokenizer: PathBuf,
}

impl Which {
    /// The value of --delta, if given.
    pub fn delta(&self) -> Option<&Path> {
        self.delta.as_deref()
    }

    /// Finds the model and the task, and downloads the base if it is on the Hub. `device` replaces
    /// the run's device.
    pub fn find(&self, device: &str, bars: &MultiProgress) -> Result<Found> {
        let run = self.run.as_deref().map(|dir| read_run(dir, device)).transpose()?;
        let of_run = run
            .as_ref()
            .filter(|_| self.model.is_none())
            .and_then(|run| run.model().weights.clone());
        let weights = self.weights.clone().or(of_run);
        let model = match (&self.model, &run) {
            (Some(path), _) => {
                find_model(path, self.revision.as_deref(), weights.as_deref(), bars)?
            }
            (None, Some(run)) => {
                let section = run.model();
                let (path, revision) = (&section.model_name_or_path, section.revision.as_deref());
                let model = Model::find(path, revision, weights.as_deref(), &mut downloads(bars))?;
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
        Ok(Found {
            tokenizer: tokenizer.clone(),
            own_delta: self.delta.is_none(),
            delta: self.delta.clone().or(in_run),
            run,
            model,
        })
    }
}

/// The configuration of a run directory, with the command's `device`: the run's device may not
/// exist on this machine.
fn read_run(dir: &Path, device: &str) -> Result<Run> {
    let path = train::output::config_of(dir)?;
    let mut config = RunConfig::read(&path, &[])?;
    config.training.device = device.parse()?;
    Run::new(config, &path, &[])
}
