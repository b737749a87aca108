//! The output of `bitfit predict`: JSON lines, or a table with the columns of the input.

use super::inputs::{Asked, Inputs};
use super::json_line;
use crate::error::{Error, Result};
use crate::files;
use crate::models::{Task, TaskType};
use crate::predict::{
    Asking, Extent, Input, Prediction, Table, TableFormat, TableOptions, TableWriter,
};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::{Serialize, Serializer};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Arguments that say where and how predictions are written.
#[derive(Args)]
pub struct OutputArgs {
    /// Write to this file instead of stdout; the file appears when all texts are done. A .csv, .tsv
    /// or .parquet is a table: the columns of the input, then those of the predictions. Any other
    /// file has JSON lines.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Give the scores of only the K most likely labels, the most likely first [default: all, in
    /// the order of the task's labels]. In a table, add the columns label_1, score_1 to label_K,
    /// score_K.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Option<u32>,
    /// Give no label where its probability is below P: the line has "label": null and "unsure":
    /// true, and a table an empty cell. For tasks with one label a text.
    #[arg(long, value_name = "P", value_parser = probability)]
    min_score: Option<f32>,
    /// Leave out the texts: each line has its input's prediction alone, in the order of the inputs;
    /// a table has the other columns of the input.
    #[arg(long)]
    no_text: bool,
    /// In a table, add a column score_LABEL for each label, in the order of class numbers.
    #[arg(long)]
    scores: bool,
    /// In a table, begin the name of each column of predictions with this text.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// In a table, put this text between several labels in one cell [default: the run's
    /// data.label_separator, or ;].
    #[arg(long, value_name = "TEXT")]
    label_separator: Option<String>,
}

/// The probability in `text`. The error is what was expected.
fn probability(text: &str) -> std::result::Result<f32, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "expected a probability from 0 to 1".into())
}

/// The inputs to predict, and what predicts them.
pub struct Work<'a> {
    /// The inputs.
    pub inputs: Inputs<'a>,
    /// The tasks.
    pub asking: Asking<'a>,
    /// The separator of labels in the data that the task was trained on.
    pub separator: Option<String>,
    /// The most inputs to predict at once.
    pub most: usize,
    /// The bars to show the progress among.
    pub bars: &'a MultiProgress,
    /// Predicts inputs by each of their tasks.
    pub predict: &'a mut Predicting<'a>,
}

/// A function that predicts each input by each of its tasks.
type Predicting<'a> = dyn FnMut(&[Asked]) -> Result<Vec<Vec<Prediction>>> + 'a;

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
struct ByTask<'a>(&'a [(&'a str, &'a Task)], &'a [Prediction]);

impl Serialize for ByTask<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let names = self.0.iter().map(|(name, _)| name);
        serializer.collect_map(names.zip(self.1))
    }
}

impl OutputArgs {
    /// The file of --output.
    pub fn path(&self) -> Option<&Path> {
        self.output.as_deref()
    }

    /// The format of a table; `None` for JSON lines. Errs on arguments that are for tables alone.
    pub fn format(&self) -> Result<Option<TableFormat>> {
        let format = self.path().map_or(Ok(None), TableFormat::of)?;
        let alone = [
            ("--scores", self.scores, "the output is JSON lines, which have all scores already"),
            ("--prefix", self.prefix.is_some(), "the output is JSON lines, whose keys are fixed"),
            (
                "--label-separator",
                self.label_separator.is_some(),
                "the output is JSON lines, which have labels as a list",
            ),
        ];
        match alone.iter().find(|(_, given, _)| *given && format.is_none()) {
            Some((flag, _, why)) => Err(Error::Usage(format!(
                "{flag}: {why}; expected --output with a .csv, .tsv or .parquet"
            ))),
            None => Ok(format),
        }
    }

    /// Checks that a task of --min-score gives one label. `name` is the task's name among several.
    pub fn check_least(&self, name: Option<&str>, task: &Task) -> Result<()> {
        let what = match task.task_type {
            TaskType::Classification => return Ok(()),
            TaskType::MultiLabel => "gives several labels, each from its own threshold on",
            TaskType::Regression => "predicts a number",
        };
        let Some(least) = self.min_score else { return Ok(()) };
        let which = name.map_or("the task".into(), |name| format!("the task {name}"));
        Err(Error::Usage(format!("--min-score: found {least}; {which} {what}")))
    }

    /// Checks that a task of --top-k has labels.
    pub fn check_top(&self, task: &Task) -> Result<()> {
        match self.top_k.filter(|_| task.labels.is_empty()) {
            Some(most) => {
                let problem =
                    format!("--top-k: found {most}; the task predicts a number, not labels");
                Err(Error::Usage(problem))
            }
            None => Ok(()),
        }
    }

    /// Predicts all inputs, and writes the predictions.
    pub fn write(&self, work: Work<'_>) -> Result<()> {
        let Some(format) = self.format()? else { return self.write_lines(work) };
        let Work { mut inputs, asking, separator, most, bars, predict } = work;
        let extent = match self.top_k {
            _ if self.scores && matches!(asking, Asking::OfRow(_)) => Extent::Scores,
            Some(most) => Extent::Top(most as usize),
            None if self.scores => Extent::Scores,
            None => Extent::Label,
        };
        let separator = self.label_separator.clone().or(separator);
        let options = TableOptions {
            format,
            extent,
            prefix: self.prefix.clone().unwrap_or_default(),
            separator: separator.unwrap_or_else(|| ";".into()),
        };
        let table = Table::new(inputs.columns(self.no_text), &asking, options)?;
        let bar = self.bar(bars);
        let path = self.path().unwrap_or(Path::new("-"));
        files::replace(path, |file| {
            let mut writer = TableWriter::new(table, file, path)?;
            inputs.each(most, &bar, &mut |asked| {
                for (asked, predictions) in asked.iter().zip(predict(&asked)?) {
                    writer.add(&asked.input, &self.cut(predictions))?;
                }
                Ok(())
            })?;
            writer.finish()
        })
    }

    /// Predicts all inputs, and writes the predictions as JSON lines.
    fn write_lines(&self, work: Work<'_>) -> Result<()> {
        let Work { inputs, asking, most, bars, predict, .. } = work;
        let bar = self.bar(bars);
        let write = |out: &mut dyn Write, name: &Path| {
            inputs.each(most, &bar, &mut |asked| {
                let mut lines = String::new();
                for (asked, predictions) in asked.iter().zip(predict(&asked)?) {
                    lines += &self.line(&asking, asked, &self.cut(predictions))?;
                    lines.push('\n');
                }
                out.write_all(lines.as_bytes()).map_err(Error::io("write", name))?;
                out.flush().map_err(Error::io("write", name))
            })
        };
        match self.path().filter(|path| *path != Path::new("-")) {
            None => write(&mut std::io::stdout().lock(), Path::new("stdout")),
            Some(path) => files::replace(path, |file| write(file, path)),
        }
    }

    /// The line of an input, without the text if --no-text leaves it out.
    fn line(
        &self,
        asking: &Asking<'_>,
        asked: &Asked,
        predictions: &[Prediction],
    ) -> Result<String> {
        let input = (!self.no_text).then_some(&asked.input);
        if let Asking::Each(tasks) = asking {
            return json_line(&LineOfTasks { input, predictions: ByTask(tasks, predictions) });
        }
        let [prediction] = predictions else {
            return Err(Error::Bug("an input without a prediction".into()));
        };
        json_line(&Line { task: asked.task.as_deref(), input, prediction })
    }

    /// The predictions with the labels that --min-score leaves, and the scores that --top-k leaves.
    fn cut(&self, mut predictions: Vec<Prediction>) -> Vec<Prediction> {
        if let Some(least) = self.min_score {
            predictions = predictions.into_iter().map(|p| p.at_least(least)).collect();
        }
        if let Some(most) = self.top_k {
            predictions = predictions.into_iter().map(|p| p.with_top(most as usize)).collect();
        }
        predictions
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
}
