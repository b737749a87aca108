//! `bitfit predict` and `bitfit eval`: predictions of a trained task, and their metrics.

use super::signals::end_on_signal;
use super::terminal::list;
use super::which::{Found, Which};
use super::{downloads, json_line, logging, print, print_json};
use crate::config::{DataSection, DeviceName, Run, RunConfig};
use crate::data::{self, Columns, LabelColumns, Labels};
use crate::error::{Error, Result};
use crate::eval::Evaluation;
use crate::files;
use crate::models::{self, TaskType};
use crate::nn::Precision;
use crate::predict::{Predictor, Text};
use crate::train::RawRows;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

pub const EVAL_EXAMPLES: &str = "Examples:
  bitfit eval --run runs/movie-reviews
  bitfit eval --run runs/glue/cola --data more.tsv --text-column 4 --label-column 2 --no-header
  bitfit eval --model models/all-MiniLM-L6-v2 --delta task.safetensors --data test.tsv --json";

pub const PREDICT_EXAMPLES: &str = "Examples:
  bitfit predict --run runs/movie-reviews \"I loved it.\" \"What a bore.\"
  bitfit predict --run runs/movie-reviews --input reviews.txt --output labels.jsonl
  bitfit predict --run runs/glue/rte \"A man sleeps.\" --text-pair \"A man is awake.\"
  bitfit predict --model textattack/bert-base-uncased-SST-2 \"A model that was saved with its head.\"
  zcat texts.gz | bitfit predict --model models/all-MiniLM-L6-v2 --delta task.safetensors --input -";

/// The arguments that both commands share.
#[derive(Args)]
struct Task {
    #[command(flatten)]
    which: Which,
    /// Device to compute on: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Precision of the matrix products, whatever the task was trained in.
    #[arg(long, value_enum, default_value = "fp32")]
    precision: Precision,
    /// Rows in a batch; batches of short rows may have more [default: the run's
    /// per_device_eval_batch_size, or 32].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: Option<u32>,
    /// Name of the text column in CSV, TSV, JSON and Parquet [default: the run's, or text].
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,
    /// Name of the second text column [default: the run's, or none].
    #[arg(long, value_name = "NAME")]
    text_pair_column: Option<String>,
    /// The CSV or TSV has no header line; columns are numbered from 1 [default: as in the run].
    #[arg(long)]
    no_header: bool,
    /// The CSV or TSV has a header line, even if the run's data has none.
    #[arg(long, conflicts_with = "no_header")]
    header: bool,
    /// Delimiter between the columns of a CSV, one character; \t is a tab [default: the run's, or
    /// detected from the first lines].
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    delimiter: Option<char>,
}

#[derive(Args)]
pub struct Eval {
    #[command(flatten)]
    task: Task,
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
    /// Write the metrics, the metrics of each class and the confusion matrix to stdout as one JSON
    /// object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Predict {
    #[command(flatten)]
    task: Task,
    /// Texts to classify.
    #[arg(value_name = "TEXT", required_unless_present = "input", conflicts_with = "input")]
    texts: Vec<String>,
    /// The second text, for a task on text pairs: predict TEXT --text-pair TEXT.
    #[arg(long, value_name = "TEXT", requires = "texts", conflicts_with = "input")]
    text_pair: Option<String>,
    /// File of texts, one per line, or a .csv, .tsv, .jsonl, .json or .parquet file with a text
    /// column; - is standard input.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Write to this file instead of stdout; the file appears when all texts are done.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A loaded task, with the settings that the arguments and the run give.
struct Loaded {
    predictor: Predictor,
    /// The configuration of --run; `None` if --run is not given.
    run: Option<Run>,
    /// Names of the text columns and of the label columns.
    columns: Columns,
    batch_size: usize,
}

impl Task {
    /// The columns of the file `path`. The run's delimiter is for its own files: a `.tsv` has tabs
    /// unless this command says otherwise.
    fn columns_of(&self, columns: &Columns, path: &Path) -> Columns {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let is_tsv = name.ends_with(".tsv") || name.contains(".tsv.");
        let delimiter = columns.delimiter.filter(|_| !is_tsv || self.delimiter.is_some());
        Columns { delimiter, ..columns.clone() }
    }

    fn load(&self, bars: &MultiProgress) -> Result<Loaded> {
        let device = self.device.parse().and_then(DeviceName::find);
        let device = device.map_err(|e| Error::Usage(format!("--device: {e}")))?;
        let Found { run, model, delta, tokenizer, .. } = self.which.find(&self.device, bars)?;
        let (weights, delta) = (model.weights.as_deref(), delta.as_deref());
        let predictor = Predictor::load(&model.dir, weights, delta, &tokenizer, device)?
            .with_precision(self.precision)?;
        let defaults = run.as_ref().map_or_else(RunConfig::default, |run| run.written().clone());
        let columns = Columns {
            text: self.text_column.clone().unwrap_or(defaults.data.text_column),
            text_pair: self.text_pair_column.clone().or(defaults.data.text_pair_column),
            labels: run.as_ref().map_or(LabelColumns::None, |run| run.columns().labels),
            header: self.header || (!self.no_header && defaults.data.header),
            delimiter: self.delimiter.or(defaults.data.delimiter),
            skip_bad_rows: false,
        };
        let batch_size = self
            .batch_size
            .map_or(defaults.training.per_device_eval_batch_size.size(), |size| size as usize);
        Ok(Loaded { predictor, run, columns, batch_size })
    }
}

impl Eval {
    pub fn run(&self) -> Result<()> {
        let bars = logging::start(self.json);
        let Loaded { predictor, run, mut columns, batch_size } = self.task.load(&bars)?;
        self.set_labels(&mut columns, &predictor.meta.task)?;
        let rows = match (&self.data, &run) {
            (Some(path), _) => data::read(path, &self.task.columns_of(&columns, path))?.rows,
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
        let Evaluation { metrics, report } =
            predictor.evaluate(&rows, batch_size, &mut progress)?;
        bar.finish_and_clear();
        let count = rows.len();
        if self.json {
            return print_json(&json!({"rows": count, "metrics": metrics, "report": report}));
        }
        let report = report.map(|report| format!("\n\n{report}")).unwrap_or_default();
        print(&format!("{count} rows: {}{report}", list(&metrics)))
    }

    /// Sets where the labels are: as the arguments say, else as in the run, else in the column
    /// `label`.
    fn set_labels(&self, columns: &mut Columns, task: &models::Task) -> Result<()> {
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

impl Predict {
    pub fn run(&self) -> Result<()> {
        let bars = logging::start(false);
        end_on_signal();
        let task = self.task.load(&bars)?;
        self.check_output(&task)?;
        match self.output.as_deref().filter(|path| *path != Path::new("-")) {
            None => self.predict(&task, &mut std::io::stdout().lock(), Path::new("stdout")),
            Some(path) => files::replace(path, |file| {
                self.predict(&task, &mut std::io::BufWriter::new(file), path)
            }),
        }
    }

    /// Checks that --output would not replace a file that is read.
    fn check_output(&self, task: &Loaded) -> Result<()> {
        let Some(output) = &self.output else { return Ok(()) };
        let Ok(there) = std::fs::canonicalize(output) else { return Ok(()) };
        let is = |path: &Path| std::fs::canonicalize(path).is_ok_and(|path| path == there);
        let run = task.run.as_ref().map(|run| run.output_dir());
        let holds = |dir: &Path| {
            let dir = std::fs::canonicalize(dir).ok();
            dir.is_some_and(|dir| there.parent() == Some(&*dir) && there.is_file())
        };
        if self.input.as_deref().is_some_and(is)
            || [Some(task.predictor.base_dir()), run].into_iter().flatten().any(holds)
            || self.task.which.delta().is_some_and(is)
        {
            let problem = format!(
                "--output: {} is there, and of what is read; expected another name",
                output.display()
            );
            return Err(Error::Usage(problem));
        }
        Ok(())
    }

    /// Predicts all texts of the arguments and writes the predictions to `out`, which errors call
    /// `name`.
    fn predict(&self, task: &Loaded, out: &mut dyn Write, name: &Path) -> Result<()> {
        let mut predict = |rows: &[Text]| {
            for prediction in task.predictor.predict(rows, task.batch_size)? {
                writeln!(out, "{}", json_line(&prediction)?).map_err(Error::io("write", name))?;
            }
            out.flush().map_err(Error::io("write", name))
        };
        if let Some(path) = self.input.as_ref().filter(|path| data::is_table(path)) {
            let columns = self.task.columns_of(&task.columns, path);
            let rows = data::read(path, &Columns { labels: LabelColumns::None, ..columns })?;
            let rows: Vec<_> = rows.rows.into_iter().map(|row| (row.text, row.text_pair)).collect();
            return rows.chunks(task.rows_at_once()).try_for_each(predict);
        }
        let columns = [
            ("--text-column", self.task.text_column.is_some()),
            ("--text-pair-column", self.task.text_pair_column.is_some()),
            ("--delimiter", self.task.delimiter.is_some()),
            ("--header", self.task.header),
            ("--no-header", self.task.no_header),
        ];
        if let Some((flag, _)) = columns.into_iter().find(|(_, is_given)| *is_given) {
            let problem = format!(
                "{flag}: what is given are texts, one a line, and no table; expected --input with {}",
                data::FORMATS
            );
            return Err(Error::Usage(problem));
        }
        if self.text_pair.is_some() && self.texts.len() != 1 {
            let found = self.texts.len();
            let problem = format!("--text-pair: found {found} first texts, expected one");
            return Err(Error::Usage(problem));
        }
        if task.columns.text_pair.is_some() && self.text_pair.is_none() {
            let problem = "this task is about pairs of texts; expected TEXT --text-pair TEXT, or --input with a .csv, .tsv, .jsonl, .json or .parquet that has both columns";
            return Err(Error::Usage(problem.into()));
        }
        match &self.input {
            None => {
                let pair = |text: &String| (text.clone(), self.text_pair.clone());
                predict(&self.texts.iter().map(pair).collect::<Vec<_>>())
            }
            Some(path) if path == Path::new("-") => each_line(
                std::io::stdin(),
                Path::new("standard input"),
                true,
                task.rows_at_once(),
                &mut predict,
            ),
            Some(path) => {
                let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
                let source: Box<dyn Read> = match data::packing_of(path) {
                    Some(packing) => data::unpack(file, packing)
                        .map_err(|error| data::unreadable(path, error))?,
                    None => Box::new(file),
                };
                each_line(source, path, false, task.rows_at_once(), &mut predict)
            }
        }
    }
}

impl Loaded {
    /// The number of rows to tokenize and predict at once.
    fn rows_at_once(&self) -> usize {
        const BATCHES: usize = 32;
        self.predictor.rows_at_once().min(BATCHES * self.batch_size)
    }
}

/// The maximum number of bytes of an input line. A line without an end would take all memory.
const LONGEST_LINE: u64 = 64 << 20;

/// The number of bytes after which the lines read so far are handed over.
const MOST_BYTES: usize = 16 << 20;

/// Parses the value of --delimiter.
fn delimiter(text: &str) -> std::result::Result<char, String> {
    let mut characters = if text == "\\t" { "\t" } else { text }.chars();
    match (characters.next(), characters.next()) {
        (Some(character), None) if data::can_delimit(character) => Ok(character),
        _ => Err(format!("expected {}", data::DELIMITER)),
    }
}

/// Reads the lines of `source` and hands them to `take`, `most` at a time. If a program `waits`
/// for answers, hands lines over as soon as no further whole line is buffered.
///
/// Errs, with `name` and the line's number, on a line that is too long, is not UTF-8 or contains
/// NUL or a carriage return.
fn each_line(
    source: impl Read,
    name: &Path,
    waits: bool,
    most: usize,
    take: &mut dyn FnMut(&[Text]) -> Result<()>,
) -> Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, source);
    let (mut rows, mut bytes, mut number) = (vec![], 0, 0);
    loop {
        let mut line = Vec::new();
        let read = (&mut reader).take(LONGEST_LINE + 1).read_until(b'\n', &mut line);
        let more = read.map_err(|error| data::unreadable(name, error))? > 0;
        if more {
            number += 1;
            if line.len() as u64 > LONGEST_LINE {
                let problem = format!(
                    "a line of more than {} MiB; expected a text a line",
                    LONGEST_LINE >> 20
                );
                return Err(Error::data(name, number, problem));
            }
            bytes += line.len();
            let text = String::from_utf8(line)
                .map_err(|_| Error::data(name, number, "not UTF-8; convert it, say with iconv"))?;
            if text.contains('\0') {
                let problem = "a NUL character; if it is UTF-16, convert it, say with iconv";
                return Err(Error::data(name, number, problem));
            }
            let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { &text };
            let text = text.trim_end_matches(['\n', '\r']);
            if text.contains('\r') {
                let problem = "a carriage return within the line; expected lines that end in \\n or \\r\\n: convert it, say with tr '\\r' '\\n'";
                return Err(Error::data(name, number, problem));
            }
            rows.push((text.to_owned(), None));
        }
        if !more
            || rows.len() >= most
            || bytes >= MOST_BYTES
            || (waits && !reader.buffer().contains(&b'\n'))
        {
            take(&rows)?;
            (rows, bytes) = (vec![], 0);
        }
        if !more {
            return Ok(());
        }
    }
}
