//! `bitfit predict`: predictions of a trained task, or of many tasks of one base.

use super::inputs::{Asked, InputArgs};
use super::logging;
use super::outputs::{OutputArgs, Work};
use super::signals::end_on_signal;
use super::task_args::{ReadArgs, TaskArgs, check_not_read};
use crate::data::{Columns, LabelColumns, listed};
use crate::error::{Error, Result};
use crate::models::Task;
use crate::predict::Asking;
use crate::tasks::{RefusedTask, Tasks};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub const EXAMPLES: &str = "Examples:
  bitfit predict --run runs/movie-reviews \"I loved it.\" \"What a bore.\"
  bitfit predict --run runs/movie-reviews --input reviews.txt --output labels.jsonl
  bitfit predict --run runs/glue/rte \"A man sleeps.\" --text-pair \"A man is awake.\"
  bitfit predict --model textattack/bert-base-uncased-SST-2 \"A model that was saved with its head.\"
  zcat texts.gz | bitfit predict --model models/all-MiniLM-L6-v2 --delta task.safetensors --input -

A table with the columns of the input and those of the predictions:
  bitfit predict --run runs/movie-reviews --input reviews.csv --output labelled.csv
  bitfit predict --run runs/movie-reviews --input reviews.parquet --output labelled.parquet --scores
  bitfit predict --run runs/movie-reviews --input reviews.csv --output labelled.csv --prefix pred_

Many tasks of one base, from a directory of NAME.safetensors or of runs (NAME/delta.safetensors):
  bitfit predict --model models/all-MiniLM-L6-v2 --tasks runs \"Each text by every task.\"
  bitfit predict --model models/all-MiniLM-L6-v2 --tasks runs --task spam --task topic --input texts.txt
  bitfit predict --model models/all-MiniLM-L6-v2 --tasks runs --task-column task --input rows.csv

A line of output is a JSON object: text, label, score and scores; with --tasks, text and predictions by
task; with --task-column, the first form and the task. A table has the columns label (or labels) and
score; with --tasks, TASK_label and TASK_score of each task.";

#[derive(Args)]
pub struct Predict {
    #[command(flatten)]
    task: TaskArgs,
    /// Directory of tasks of the base --model: NAME.safetensors, or NAME/delta.safetensors as a
    /// run has it. Every text is predicted by every task.
    #[arg(long, value_name = "DIR", requires = "model", conflicts_with_all = ["run", "delta"])]
    tasks: Option<PathBuf>,
    /// Predict by this task of --tasks; may be given several times [default: all].
    #[arg(long = "task", value_name = "NAME", requires = "tasks")]
    names: Vec<String>,
    /// Name of the column with the name of each row's task, instead of predicting every row by
    /// every task.
    #[arg(long, value_name = "NAME", requires_all = ["tasks", "input"], conflicts_with = "names")]
    task_column: Option<String>,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    inputs: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The most inputs to tokenize and predict at once, times the tasks that predict each.
const AT_ONCE: usize = 1024;

impl Predict {
    pub fn run(&self) -> Result<()> {
        let bars = logging::start(false);
        end_on_signal();
        match &self.tasks {
            None => self.by_one(&bars),
            Some(dir) => self.by_several(dir, &bars),
        }
    }

    /// Predicts by the task of --run, --delta or the model.
    fn by_one(&self, bars: &MultiProgress) -> Result<()> {
        let format = self.output.format()?;
        let device = self.read.device()?;
        let found = self.task.resolve(bars)?;
        let predictor = self.read.prepared(found.predictor(device)?)?;
        let run = found.run.as_ref();
        let run_dir = run.map(|run| run.output_dir());
        let dirs = [Some(predictor.base_dir()), run_dir].into_iter().flatten();
        self.check_output(dirs, self.task.delta())?;
        self.output.check_top(predictor.task())?;
        self.output.check_least(None, predictor.task())?;
        let columns = self.read.columns(run);
        let separator = match &columns.labels {
            LabelColumns::One { separator, .. } => separator.clone(),
            _ => None,
        };
        let columns = Columns { labels: LabelColumns::None, ..columns };
        let check = |asked: &Asked| predictor.check(&asked.input).map_err(|why| asked.error(why));
        let inputs = self.inputs.open(&self.read, &columns, format.is_some(), &check)?;
        self.output.write(Work {
            inputs,
            asking: Asking::One(predictor.task()),
            separator,
            most: predictor.rows_at_once().min(AT_ONCE),
            bars,
            predict: &mut |asked| {
                let inputs = asked.iter().map(|asked| asked.input.clone());
                let predictions = predictor.predict(inputs)?;
                Ok(predictions.into_iter().map(|prediction| vec![prediction]).collect())
            },
        })
    }

    /// Predicts by tasks of --tasks.
    fn by_several(&self, dir: &Path, bars: &MultiProgress) -> Result<()> {
        let format = self.output.format()?;
        let (tasks, refused) = self.load(dir, bars)?;
        self.check_output([tasks.base_dir(), dir], None)?;
        let labels = match &self.task_column {
            Some(name) => LabelColumns::Task(name.clone()),
            None => LabelColumns::None,
        };
        let columns = Columns { labels, ..self.read.columns(None) };
        let named = self.named(&tasks);
        if named.is_empty() {
            return Err(failed(&refused));
        }
        let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
        named.iter().try_for_each(|(name, task)| self.output.check_least(Some(name), task))?;
        let check = |asked: &Asked| {
            let check = |name| tasks.check(name, &asked.input).map_err(|why| asked.error(why));
            match &asked.task {
                Some(name) => check(name),
                None => names.iter().try_for_each(|name| check(name)),
            }
        };
        let inputs = self.inputs.open(&self.read, &columns, format.is_some(), &check)?;
        let (asking, most) = match &self.task_column {
            None => (Asking::Each(named), (AT_ONCE / names.len()).max(1)),
            Some(_) => (Asking::OfRow(named.iter().map(|(_, task)| *task).collect()), AT_ONCE),
        };
        let of_each = self.task_column.is_none();
        self.output.write(Work {
            inputs,
            asking,
            separator: None,
            most,
            bars,
            predict: &mut |asked| {
                if of_each {
                    let inputs = asked.iter().map(|asked| asked.input.clone());
                    return tasks.predict_by_each(&names, inputs);
                }
                let rows = asked
                    .iter()
                    .filter_map(|asked| Some((asked.task.as_deref()?, asked.input.clone())));
                let predictions = tasks.predict(rows)?;
                Ok(predictions.into_iter().map(|prediction| vec![prediction]).collect())
            },
        })?;
        if refused.is_empty() { Ok(()) } else { Err(failed(&refused)) }
    }

    /// The tasks that --task names and that are there, or all, each once.
    fn named<'a>(&'a self, tasks: &'a Tasks) -> Vec<(&'a str, &'a Task)> {
        let mut named = BTreeSet::new();
        let names: Vec<&str> = match &self.names[..] {
            [] => tasks.names().collect(),
            names => names.iter().map(String::as_str).filter(|name| named.insert(*name)).collect(),
        };
        names.into_iter().filter_map(|name| Some((name, tasks.get(name)?))).collect()
    }

    /// Opens the base and loads the tasks, and warns of each that is refused.
    fn load(&self, dir: &Path, bars: &MultiProgress) -> Result<(Tasks, Vec<RefusedTask>)> {
        let device = self.read.device()?;
        let found = self.task.find_model(bars)?;
        let mut builder = Tasks::builder(&found.dir).device(device).precision(self.read.precision);
        if let Some(size) = self.read.batch_size {
            builder = builder.batch_size(size as usize);
        }
        let mut tasks = builder.open_model(&found)?;
        let style = ProgressStyle::with_template("loading tasks {bar:24} {pos}/{len}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bars.add(ProgressBar::new(0).with_style(style));
        let refused = tasks.load_of_dir(dir, &self.names, &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            Ok(())
        })?;
        bar.finish_and_clear();
        for RefusedTask { name, error } in &refused {
            tracing::warn!("task {name} is refused: {error}");
        }
        Ok((tasks, refused))
    }

    /// Checks that --output would not replace a file of one of `dirs`, which are read, nor the
    /// inputs, nor the file `delta`.
    fn check_output<'a>(
        &'a self,
        dirs: impl IntoIterator<Item = &'a Path>,
        delta: Option<&'a Path>,
    ) -> Result<()> {
        let Some(output) = self.output.path() else { return Ok(()) };
        let files = self.inputs.input.as_deref().into_iter().chain(delta);
        check_not_read("--output", output, dirs, files)
    }
}

/// The error of a command that left out the tasks `refused`.
fn failed(refused: &[RefusedTask]) -> Error {
    let (count, names) = (refused.len(), refused.iter().map(|task| task.name.as_str()));
    let tasks = if count == 1 { "task was" } else { "tasks were" };
    Error::Failed(format!("{count} {tasks} refused: {}", listed(names)))
}
