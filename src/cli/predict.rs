//! `bitfit predict`: predictions of a trained task, or of many tasks of one base.

use super::inputs::{Asked, InputArgs};
use super::signals::end_on_signal;
use super::task_args::{ReadArgs, TaskArgs, check_not_read};
use super::{json_line, logging};
use crate::data::{Columns, LabelColumns, listed};
use crate::error::{Error, Result};
use crate::files;
use crate::predict::{Input, Prediction};
use crate::tasks::{RefusedTask, Tasks};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::{Serialize, Serializer};
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

pub const EXAMPLES: &str = "Examples:
  bitfit predict --run runs/movie-reviews \"I loved it.\" \"What a bore.\"
  bitfit predict --run runs/movie-reviews --input reviews.txt --output labels.jsonl
  bitfit predict --run runs/glue/rte \"A man sleeps.\" --text-pair \"A man is awake.\"
  bitfit predict --model textattack/bert-base-uncased-SST-2 \"A model that was saved with its head.\"
  zcat texts.gz | bitfit predict --model models/all-MiniLM-L6-v2 --delta task.safetensors --input -

Many tasks of one base, from a directory of NAME.safetensors or of runs (NAME/delta.safetensors):
  bitfit predict --model models/all-MiniLM-L6-v2 --tasks runs \"Each text by every task.\"
  bitfit predict --model models/all-MiniLM-L6-v2 --tasks runs --task spam --task topic --input texts.txt
  bitfit predict --model models/all-MiniLM-L6-v2 --tasks runs --task-column task --input rows.csv

A line of output is a JSON object: text, label, score and scores; with --tasks, text and predictions by
task; with --task-column, the first form and the task.";

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
    /// Write to this file instead of stdout; the file appears when all texts are done.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Give the scores of only the K most likely labels, the most likely first [default: all, in
    /// the order of the task's labels].
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Option<u32>,
    /// Leave out the texts: each line has its input's prediction alone, in the order of the inputs.
    #[arg(long)]
    no_text: bool,
}

/// A line of output: an input with its prediction.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    #[serde(flatten)]
    input: Option<&'a Input>,
    #[serde(flatten)]
    prediction: &'a Prediction,
}

/// A line of output: an input with the prediction of each task.
#[derive(Serialize)]
struct LineOfTasks<'a> {
    #[serde(flatten)]
    input: Option<&'a Input>,
    predictions: ByTask<'a>,
}

/// Predictions by the names of their tasks.
struct ByTask<'a>(&'a [&'a str], &'a [Prediction]);

impl Serialize for ByTask<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1))
    }
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
        let device = self.read.device()?;
        let found = self.task.resolve(bars)?;
        let predictor = self.read.prepared(found.predictor(device)?)?;
        let run = found.run.as_ref();
        let run_dir = run.map(|run| run.output_dir());
        let dirs = [Some(predictor.base_dir()), run_dir].into_iter().flatten();
        self.check_output(dirs, self.task.delta())?;
        if let Some(most) = self.top_k.filter(|_| predictor.task().labels.is_empty()) {
            let problem = format!("--top-k: found {most}; the task predicts a number, not labels");
            return Err(Error::Usage(problem));
        }
        let columns = Columns { labels: LabelColumns::None, ..self.read.columns(run) };
        let check = |asked: &Asked| predictor.check(&asked.input).map_err(|why| asked.error(why));
        let most = predictor.rows_at_once().min(AT_ONCE);
        let bar = self.bar(bars);
        self.write(&mut |write| {
            self.inputs.read(&self.read, &columns, most, &bar, &check, &mut |asked| {
                let inputs = asked.iter().map(|asked| asked.input.clone());
                let predictions = self.cut(predictor.predict(inputs)?);
                let mut lines = String::new();
                for (asked, prediction) in asked.iter().zip(&predictions) {
                    let line = Line { task: None, input: self.shown(asked), prediction };
                    lines += &(json_line(&line)? + "\n");
                }
                write(&lines)
            })
        })
    }

    /// Predicts by tasks of --tasks.
    fn by_several(&self, dir: &Path, bars: &MultiProgress) -> Result<()> {
        let (tasks, refused) = self.load(dir, bars)?;
        self.check_output([tasks.base_dir(), dir], None)?;
        let labels = match &self.task_column {
            Some(name) => LabelColumns::Task(name.clone()),
            None => LabelColumns::None,
        };
        let columns = Columns { labels, ..self.read.columns(None) };
        let mut named = BTreeSet::new();
        let names: Vec<&str> = match &self.names[..] {
            [] => tasks.names().collect(),
            names => names.iter().map(String::as_str).filter(|name| named.insert(*name)).collect(),
        };
        let names: Vec<&str> = names.into_iter().filter(|name| tasks.get(name).is_some()).collect();
        if names.is_empty() {
            return Err(failed(&refused));
        }
        let check = |asked: &Asked| {
            let check = |name| tasks.check(name, &asked.input).map_err(|why| asked.error(why));
            match &asked.task {
                Some(name) => check(name),
                None => names.iter().try_for_each(|name| check(name)),
            }
        };
        let of_each = self.task_column.is_none();
        let most = if of_each { (AT_ONCE / names.len()).max(1) } else { AT_ONCE };
        let bar = self.bar(bars);
        self.write(&mut |write| {
            self.inputs.read(&self.read, &columns, most, &bar, &check, &mut |asked| {
                let mut lines = String::new();
                if of_each {
                    let inputs = asked.iter().map(|asked| asked.input.clone());
                    let predictions = tasks.predict_by_each(&names, inputs)?;
                    for (asked, predictions) in asked.iter().zip(predictions) {
                        let predictions = self.cut(predictions);
                        let predictions = ByTask(&names, &predictions);
                        let line = LineOfTasks { input: self.shown(asked), predictions };
                        lines += &(json_line(&line)? + "\n");
                    }
                } else {
                    let rows = asked
                        .iter()
                        .filter_map(|asked| Some((asked.task.as_deref()?, asked.input.clone())));
                    let predictions = self.cut(tasks.predict(rows)?);
                    for (asked, prediction) in asked.iter().zip(&predictions) {
                        let (task, input) = (asked.task.as_deref(), self.shown(asked));
                        lines += &(json_line(&Line { task, input, prediction })? + "\n");
                    }
                }
                write(&lines)
            })
        })?;
        if refused.is_empty() { Ok(()) } else { Err(failed(&refused)) }
    }

    /// The predictions with the scores that --top-k leaves.
    fn cut(&self, predictions: Vec<Prediction>) -> Vec<Prediction> {
        match self.top_k {
            Some(most) => predictions.into_iter().map(|p| p.with_top(most as usize)).collect(),
            None => predictions,
        }
    }

    /// The input, unless --no-text leaves it out.
    fn shown<'a>(&self, asked: &'a Asked) -> Option<&'a Input> {
        (!self.no_text).then_some(&asked.input)
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
        let Some(output) = &self.output else { return Ok(()) };
        let files = self.inputs.input.as_deref().into_iter().chain(delta);
        check_not_read("--output", output, dirs, files)
    }

    /// A bar of the inputs that are done; hidden where the predictions appear on a terminal.
    fn bar(&self, bars: &MultiProgress) -> ProgressBar {
        if self.output.is_none() && std::io::stdout().is_terminal() {
            return ProgressBar::hidden();
        }
        let template = "predicting {bar:24} {pos}/{len} (left {eta})";
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        bars.add(ProgressBar::no_length().with_style(style))
    }

    /// Calls `predict` with a function that writes lines to --output or stdout.
    fn write(&self, predict: &mut Predicting<'_>) -> Result<()> {
        let mut write = |out: &mut dyn Write, name: &Path| {
            predict(&mut |lines| {
                out.write_all(lines.as_bytes()).map_err(Error::io("write", name))?;
                out.flush().map_err(Error::io("write", name))
            })
        };
        match self.output.as_deref().filter(|path| *path != Path::new("-")) {
            None => write(&mut std::io::stdout().lock(), Path::new("stdout")),
            Some(path) => files::replace(path, |file| write(file, path)),
        }
    }
}

/// A function that predicts, and is given a function that writes lines.
type Predicting<'a> = dyn FnMut(&mut dyn FnMut(&str) -> Result<()>) -> Result<()> + 'a;

/// The error of a command that left out the tasks `refused`.
fn failed(refused: &[RefusedTask]) -> Error {
    let (count, names) = (refused.len(), refused.iter().map(|task| task.name.as_str()));
    let tasks = if count == 1 { "task was" } else { "tasks were" };
    Error::Failed(format!("{count} {tasks} refused: {}", listed(names)))
}
