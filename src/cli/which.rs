//! Which model and which task a command is about.

use super::{downloads, find_model};
use crate::config::{Run, RunConfig};
use crate::error::{Error, Result};
use crate::files;
use crate::sources::Model;
use clap::Args;
use indicatif::MultiProgress;
use std::path::{Path, PathBuf};

/// Arguments that name a model and a task.
#[derive(Args)]
pub struct Which {
    /// A run directory: its base, its delta and its data are taken.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["delta", "model"])]
    run: Option<PathBuf>,
    /// The base directory, or the id of a model on the Hub; with --run, instead of the one the run names.
    #[arg(long, value_name = "DIR|ID")]
    model: Option<PathBuf>,
    /// Of a model on the Hub: a branch, a tag or a commit [default: main].
    #[arg(long, value_name = "NAME", requires = "model")]
    revision: Option<String>,
    /// The base's weight file, or index of several [default: the first of model.ot, model.safetensors and pytorch_model.bin; of a Hub model, safetensors first].
    #[arg(long, value_name = "NAME")]
    weights: Option<String>,
    /// The task's delta.safetensors; with --run, instead of the run's.
    #[arg(long, value_name = "FILE")]
    delta: Option<PathBuf>,
}

/// What was found.
pub struct Found {
    /// The run that it comes from, where it does.
    pub run: Option<Run>,
    pub model: Model,
    /// None where the model is to have a task of its own.
    pub delta: Option<PathBuf>,
    /// Whether the delta is the run's.
    pub own_delta: bool,
    /// The directory of the task's tokenizer.
    pub tokenizer: PathBuf,
}

impl Which {
    /// The delta that is named, where one is.
    pub fn delta(&self) -> Option<&Path> {
        self.delta.as_deref()
    }

    /// Finds it, the base downloaded where it is the Hub's; `device` is the command's.
    pub fn find(&self, device: &str, bars: &MultiProgress) -> Result<Found> {
        let run = self.run.as_deref().map(|dir| read_run(dir, device)).transpose()?;
        let of_run = run
            .as_ref()
            .filter(|_| self.model.is_none())
            .and_then(|run| run.config.model.weights.clone());
        let weights = self.weights.clone().or(of_run);
        let model = match (&self.model, &run) {
            (Some(path), _) => {
                find_model(path, self.revision.as_deref(), weights.as_deref(), bars)?
            }
            (None, Some(run)) => {
                let section = &run.config.model;
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

/// The configuration of a run directory. The device is this command's: the run's may not be here.
fn read_run(dir: &Path, device: &str) -> Result<Run> {
    let path = dir.join("config.toml");
    if !files::is_there(&path)? {
        let problem =
            "not a run directory: no config.toml there; expected the output_dir of a training";
        return Err(Error::file(dir, problem));
    }
    let mut config = RunConfig::read(&path, &[])?;
    config.training.device = device.into();
    Run::new(config, &path, &[])
}
