//! `bitfit eval`: the metrics of a trained task on labelled rows.

use super::task_args::{ReadArgs, TaskArgs, check_not_read};
use super::terminal::{beside_constant, list};
use super::{downloads, json_line, logging, print, print_json};
use crate::config::DataSection;
use crate::data::{self, Columns, LabelColumns, Labels, Row};
use crate::error::{Error, Result};
use crate::eval::Evaluation;
use crate::files;
use crate::models::{Task, TaskType};
use crate::predict::{Mistake, MistakeLine};
use crate::train::RawRows;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

pub const EXAMPLES: &str = "Examples:
  bitfit eval --run runs/movie-reviews
  bitfit eval --run runs/glue/cola --data more.tsv --text-column 4 --label-column 2 --no-header
  bitfit eval --run runs/movie-reviews --errors wrong.jsonl
  bitfit eval --model models/all-MiniLM-L6-v2 --delta task.safetensors --data test.tsv --json";

#[derive(Args)]
pub struct Eval {
    #[command(flatten)]
    task: TaskArgs,
    #[command(flatten)]
    read: ReadArgs,
    /// Labelled data: .csv, .tsv, .jsonl, .json, .parquet, or a folder of class folders or Parquet
    /// files [default: the run's evaluation data].
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Name of the label column [default: the run's, or label].
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,
    /// Separator between several labels of a row [default: the run's].
    #[arg(long, value_name = "TEXT")]
    label_separator: Option<String>,
    /// Names of columns of 0 or 1, one for each label, instead of --label-column [default: the
    /// run's].
    #[arg(long, value_name = "NAME,NAME...", value_delimiter = ',', conflicts_with_all = ["label_column", "label_separator"])]
    label_columns: Option<Vec<String>>,
    /// Write the rows that are predicted wrong to this file, as JSON lines, the surest first; of a
    /// regression, all rows, the largest error first.
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// Write the metrics, the constant answer, the metrics of each class and the confusion matrix
    /// to stdout as one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl Eval {
    pub fn run(&self) -> Result<()> {
        let bars = logging::start(self.json);
        let device = self.read.device()?;
        let found = self.task.resolve(&bars)?;
        let predictor = self.read.prepared(found.predictor(device)?)?;
        let run = found.run;
        if let Some(path) = &self.errors {
            let run_dir = run.as_ref().map(|run| run.output_dir());
            let dirs = [Some(predictor.base_dir()), run_dir].into_iter().flatten();
            let data = run.as_ref().map(|run| run.data());
            let of_run = data.map(|data| [Some(data.train.as_path()), data.eval.as_deref()]);
            let files = [self.data.as_deref(), self.task.delta()].into_iter();
            let files = files.chain(of_run.into_iter().flatten()).flatten();
            check_not_read("--errors", path, dirs, files)?;
        }
        let mut columns = self.read.columns(run.as_ref());
        self.set_labels(&mut columns, &predictor.meta.task)?;
        let rows = match (&self.data, &run) {
            (Some(path), _) => data::read(path, &self.read.columns_of(&columns, path))?.rows,
            (None, Some(run)) => {
                columns.skip_bad_rows = run.data().skip_bad_rows;
                let declared = predictor.meta.task.labels_declared;
                RawRows::read_eval(run, &columns, declared, &mut downloads(&bars))?
            }
            (None, None) => {
                let problem = "--data PATH is needed where no --run says what to evaluate on";
                return Err(Error::Usage(problem.into()));
            }
        };
        let style = ProgressStyle::with_template("evaluating {bar:24} {pos}/{len} (left {eta})");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bars.add(ProgressBar::new(rows.len() as u64).with_style(style));
        let mut progress = |done| {
            bar.set_position(done as u64);
            Ok(())
        };
        let mut mistakes = self.errors.as_ref().map(|_| vec![]);
        let found = predictor.evaluate(&rows, mistakes.as_mut(), &mut progress)?;
        let Evaluation { metrics, report, constant } = found;
        bar.finish_and_clear();
        if let (Some(path), Some(mistakes)) = (&self.errors, mistakes) {
            write_mistakes(path, mistakes, &rows)?;
        }
        let count = rows.len();
        if self.json {
            let found =
                json!({"rows": count, "metrics": metrics, "constant": constant, "report": report});
            return print_json(&found);
        }
        let report = report.map(|report| format!("\n\n{report}")).unwrap_or_default();
        let (metrics, constant) = (list(&metrics), beside_constant(&constant));
        print(&format!("{count} rows: {metrics}\n{constant}{report}"))
    }

    /// Sets where the labels are: as the arguments say, else as in the run, else in the column
    /// `label`.
    fn set_labels(&self, columns: &mut Columns, task: &Task) -> Result<()> {
        if let Some(names) = &self.label_columns {
            let sorted = |names: &[String]| {
                let mut names = names.to_vec();
                names.sort();
                names
            };
            if sorted(names) != sorted(&task.labels) {
                let [found, expected] = [names, &task.labels]
                    .map(|names| Labels { names: names.clone(), declared: true });
                return Err(Error::Usage(format!(
                    "--label-columns: found {found}, expected the task's labels, {expected}"
                )));
            }
            columns.labels = LabelColumns::Each(names.clone());
            return Ok(());
        }
        if let Some(separator) = &self.label_separator
            && (separator.is_empty() || task.task_type != TaskType::MultiLabel)
        {
            let (found, task) = (separator, task.task_type.name());
            return Err(Error::Usage(format!(
                "--label-separator: found {found:?} for a {task} task, expected what stands between the labels of a multi_label one"
            )));
        }
        let (name, separator) = match &columns.labels {
            LabelColumns::One { name, separator } => (name.clone(), separator.clone()),
            LabelColumns::Each(_) if self.label_column.is_none() => return Ok(()),
            _ => (DataSection::default().label_column, None),
        };
        columns.labels = LabelColumns::One {
            name: self.label_column.clone().unwrap_or(name),
            separator: self.label_separator.clone().or(separator),
        };
        Ok(())
    }
}

/// Writes the mistakes to `path`, the surest first.
fn write_mistakes(path: &Path, mut mistakes: Vec<Mistake>, rows: &[Row]) -> Result<()> {
    mistakes.sort_by(|a, b| b.weight().total_cmp(&a.weight()));
    files::replace(path, |file| {
        let mut out = BufWriter::new(file);
        for mistake in &mistakes {
            let Some(row) = rows.get(mistake.row) else { continue };
            let line = json_line(&MistakeLine::new(row, mistake))?;
            writeln!(out, "{line}").map_err(Error::io("write", path))?;
        }
        out.flush().map_err(Error::io("write", path))
    })
}
