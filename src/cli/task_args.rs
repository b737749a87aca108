//! The arguments that name a model and a task, and how the task reads and predicts.

use super::downloads;
use crate::config::{DeviceName, Run, RunConfig};
use crate::data::{self, Columns, LabelColumns};
use crate::error::{Error, Result};
use crate::native;
use crate::nn::Precision;
use crate::predict::{Predictor, ResolvedTask, TaskSource};
use crate::sources::Model;
use clap::Args;
use indicatif::MultiProgress;
use std::path::{Path, PathBuf};
use tch::Device;

/// Arguments that name a model and a task.
#[derive(Args)]
pub struct TaskArgs {
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

/// Arguments for how texts are read and computed.
#[derive(Args)]
pub struct ReadArgs {
    /// Device to compute on: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Precision of the matrix products, whatever the task was trained in.
    #[arg(long, value_enum, default_value = "auto")]
    pub precision: Precision,
    /// Let fp32 matrix products on CUDA devices round their factors to TF32's 10 mantissa bits.
    #[arg(long)]
    pub tf32: bool,
    /// Rows in a batch; batches of short rows may have more [default: the run's
    /// per_device_eval_batch_size, or 32].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch_size: Option<u32>,
    /// Name of the text column in CSV, TSV, JSON and Parquet [default: the run's, or text].
    #[arg(long, value_name = "NAME")]
    pub text_column: Option<String>,
    /// Name of the second text column [default: the run's, or none].
    #[arg(long, value_name = "NAME")]
    pub text_pair_column: Option<String>,
    /// The CSV or TSV has no header line; columns are numbered from 1 [default: as in the run].
    #[arg(long)]
    pub no_header: bool,
    /// The CSV or TSV has a header line, even if the run's data has none.
    #[arg(long, conflicts_with = "no_header")]
    pub header: bool,
    /// Delimiter between the columns of a CSV, one character; \t is a tab [default: the run's, or
    /// detected from the first lines].
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    pub delimiter: Option<char>,
}

impl TaskArgs {
    /// The value of --delta, if given.
    pub fn delta(&self) -> Option<&Path> {
        self.delta.as_deref()
    }

    /// Finds --model, and downloads it if it is on the Hub.
    pub fn find_model(&self, bars: &MultiProgress) -> Result<Model> {
        let model = self.model.as_deref();
        let model = model.ok_or_else(|| Error::Usage("--model DIR is needed".into()))?;
        let (revision, weights) = (self.revision.as_deref(), self.weights.as_deref());
        Model::locate(model, revision, weights, &mut downloads(bars))
    }

    /// Finds the model and the task, and downloads the base if it is on the Hub.
    pub fn resolve(&self, bars: &MultiProgress) -> Result<ResolvedTask> {
        let source = TaskSource {
            run: self.run.clone(),
            model: self.model.clone(),
            revision: self.revision.clone(),
            weights: self.weights.clone(),
            delta: self.delta.clone(),
        };
        source.resolve(&mut downloads(bars))
    }
}

impl ReadArgs {
    /// The device of --device, whose products are computed as --tf32 says.
    pub fn device(&self) -> Result<Device> {
        native::allow_tf32(self.tf32)?;
        let device = self.device.parse().and_then(DeviceName::find);
        device.map_err(|error| Error::Usage(format!("--device: {error}")))
    }

    /// The columns that the arguments name, with those of `run` where they name none.
    pub fn columns(&self, run: Option<&Run>) -> Columns {
        let defaults = run.map_or_else(RunConfig::default, |run| run.written().clone());
        Columns {
            text: self.text_column.clone().unwrap_or(defaults.data.text_column),
            text_pair: self.text_pair_column.clone().or(defaults.data.text_pair_column),
            labels: run.map_or(LabelColumns::None, |run| run.columns().labels),
            header: self.header || (!self.no_header && defaults.data.header),
            delimiter: self.delimiter.or(defaults.data.delimiter),
            skip_bad_rows: false,
        }
    }

    /// The columns of the file `path`. The run's delimiter is for its own files: a `.tsv` has tabs
    /// unless this command says otherwise.
    pub fn columns_of(&self, columns: &Columns, path: &Path) -> Columns {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let is_tsv = name.ends_with(".tsv") || name.contains(".tsv.");
        let delimiter = columns.delimiter.filter(|_| !is_tsv || self.delimiter.is_some());
        Columns { delimiter, ..columns.clone() }
    }

    /// `predictor` with the precision and the batch size of the arguments.
    pub fn prepared(&self, predictor: Predictor) -> Result<Predictor> {
        let predictor = predictor.with_precision(self.precision)?;
        Ok(match self.batch_size {
            Some(size) => predictor.with_batch_size(size as usize),
            None => predictor,
        })
    }

    /// The first argument about columns that is given, if any.
    pub fn about_columns(&self) -> Option<&'static str> {
        let given = [
            ("--text-column", self.text_column.is_some()),
            ("--text-pair-column", self.text_pair_column.is_some()),
            ("--delimiter", self.delimiter.is_some()),
            ("--header", self.header),
            ("--no-header", self.no_header),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(flag, _)| flag)
    }
}

/// Parses the value of --delimiter.
fn delimiter(text: &str) -> std::result::Result<char, String> {
    let mut characters = if text == "\\t" { "\t" } else { text }.chars();
    match (characters.next(), characters.next()) {
        (Some(character), None) if data::can_delimit(character) => Ok(character),
        _ => Err(format!("expected {}", data::DELIMITER)),
    }
}

/// Errs if writing to `output`, which the argument `flag` names, would replace one of `files`, or a
/// file in one of `dirs`: these are read.
pub fn check_not_read<'a>(
    flag: &str,
    output: &Path,
    dirs: impl IntoIterator<Item = &'a Path>,
    files: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    let Ok(there) = std::fs::canonicalize(output) else { return Ok(()) };
    let is = |path: &Path| std::fs::canonicalize(path).is_ok_and(|path| path == there);
    let holds = |dir: &Path| {
        let dir = std::fs::canonicalize(dir).ok();
        dir.is_some_and(|dir| there.parent() == Some(&*dir) && there.is_file())
    };
    if files.into_iter().any(is) || dirs.into_iter().any(holds) {
        let problem = format!(
            "{flag}: {} is there, and of what is read; expected another name",
            output.display()
        );
        return Err(Error::Usage(problem));
    }
    Ok(())
}
