//! The commands: arguments in, exit code out.

use crate::base::BaseFiles;
use crate::config::{self, Run, RunConfig};
use crate::data::{self, Columns, Labels};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::files;
use crate::freeze::{FreezePlan, Group, Switches, thousands};
use crate::logging;
use crate::predict::{Prediction, Predictor};
use crate::train::{self, Listeners, MetricsFile, Terminal, setup};
use crate::weights::{self, Weights};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Device;

/// Fine-tunes a BERT classifier by training its biases and the new head alone (BitFit).
#[derive(Parser)]
#[command(name = "bitfit-train", version, after_help = TRAIN_EXAMPLES)]
struct TrainProgram {
    #[command(flatten)]
    train: Train,
}

/// BitFit for BERT classifiers: one frozen base, one small file for each task.
#[derive(Parser)]
#[command(name = "bitfit", version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a task, the same as bitfit-train.
    #[command(after_help = TRAIN_EXAMPLES)]
    Train(Train),
    /// Evaluate a trained task on labelled data.
    #[command(
        after_help = "Examples:\n  bitfit eval --run runs/movie-reviews\n  bitfit eval --model models/all-MiniLM-L6-v2 --delta task.safetensors --data test.tsv --json"
    )]
    Eval(Eval),
    /// Predict labels with confidences: one JSON object a line on stdout.
    #[command(
        after_help = "Examples:\n  bitfit predict --run runs/movie-reviews \"I loved it.\" \"What a bore.\"\n  bitfit predict --run runs/movie-reviews --input reviews.txt --output labels.jsonl\n  zcat texts.gz | bitfit predict --model models/all-MiniLM-L6-v2 --delta task.safetensors --input -"
    )]
    Predict(Predict),
    /// Show parameters by group: of a model, of what a configuration would train, or of what a delta holds.
    #[command(
        after_help = "Examples:\n  bitfit inspect --model models/all-MiniLM-L6-v2\n  bitfit inspect --config configs/movie-reviews.toml --set bitfit.train_attention_bias=false\n  bitfit inspect --delta runs/movie-reviews/delta.safetensors --json"
    )]
    Inspect(Inspect),
    /// Write a base's weights as a TorchScript archive, its fingerprint inside.
    #[command(
        after_help = "Example:\n  bitfit convert --model models/all-MiniLM-L6-v2 --output models/all-MiniLM-L6-v2/model.ot"
    )]
    Convert(Convert),
}

const TRAIN_EXAMPLES: &str = "Examples:
  bitfit-train --config configs/movie-reviews.toml
  bitfit-train --config configs/movie-reviews.toml --set training.seed=1 --set training.output_dir=runs/seed-1
  bitfit-train --config configs/movie-reviews.toml --dry-run

Exit codes: 0 done, 1 the run failed, 2 usage or configuration, 130 interrupted after saving.
RUST_LOG=debug says more, RUST_LOG=warn less.";

#[derive(Args)]
struct Train {
    /// The configuration, a TOML file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override a key of the file; may be given several times.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// Replace the run that training.output_dir holds.
    #[arg(long)]
    overwrite: bool,
    /// Check the configuration, the base and the data, print what would train, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Write metrics and the summary to stdout, and logs to stderr, as JSON lines.
    #[arg(long)]
    json: bool,
}

/// Which model and which task.
#[derive(Args)]
struct Task {
    /// A run directory: its base, its delta and its data are taken.
    #[arg(long, value_name = "DIR", required_unless_present = "delta")]
    run: Option<PathBuf>,
    /// The base directory; with --run, instead of the one the run names.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The task's delta.safetensors; with --run, instead of the run's.
    #[arg(long, value_name = "FILE")]
    delta: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Rows in a batch.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: u32,
    /// Name of the text's column in CSV, TSV and JSONL [default: the run's, or text].
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,
    /// Name of the second text's column [default: the run's, or none].
    #[arg(long, value_name = "NAME")]
    text_pair_column: Option<String>,
}

#[derive(Args)]
struct Eval {
    #[command(flatten)]
    task: Task,
    /// Labelled data: .csv, .tsv, .jsonl or a folder of class folders [default: the run's evaluation data].
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Name of the label's column [default: the run's, or label].
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,
    /// Write the metrics to stdout as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Predict {
    #[command(flatten)]
    task: Task,
    /// Texts to classify.
    #[arg(value_name = "TEXT", required_unless_present = "input", conflicts_with = "input")]
    texts: Vec<String>,
    /// Texts from a file, one a line, or from the text column of a .csv, .tsv or .jsonl; - is standard input.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Write there instead of stdout; the file appears when all is done.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["model", "config", "delta"])))]
struct Inspect {
    /// A base directory.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// A configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A task's delta.safetensors.
    #[arg(long, value_name = "FILE")]
    delta: Option<PathBuf>,
    /// Override a key of the configuration; may be given several times.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", requires = "config")]
    overrides: Vec<String>,
    /// Number of labels of the head that a model is shown with.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(2..=10000))]
    num_labels: u16,
    /// Write it to stdout as one JSON object, every tensor listed.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Convert {
    /// The base directory.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The archive to write; VarStore reads it by the ending .ot.
    #[arg(long, value_name = "FILE.ot")]
    output: PathBuf,
    /// The weight file to convert [default: model.safetensors, or pytorch_model.bin].
    #[arg(long, value_name = "NAME")]
    weights: Option<String>,
}

/// `bitfit-train`.
pub fn train_main() -> ExitCode {
    run(Command::Train(TrainProgram::parse().train))
}

/// `bitfit`.
pub fn main() -> ExitCode {
    run(Program::parse().command)
}

fn run(command: Command) -> ExitCode {
    let (result, json) = match command {
        Command::Train(args) => (run_train(&args), args.json),
        Command::Eval(args) => (run_eval(&args), args.json),
        Command::Predict(args) => (run_predict(&args), false),
        Command::Inspect(args) => (run_inspect(&args), args.json),
        Command::Convert(args) => (run_convert(&args), false),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    let code = error.exit_code();
    // A reader that went away, such as head, has what it wanted.
    if matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
    {
        return ExitCode::SUCCESS;
    }
    let message = if json {
        json!({"error": error.to_string(), "exit_code": code}).to_string()
    } else {
        format!("error: {error}")
    };
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::from(code)
}

fn run_train(args: &Train) -> Result<()> {
    let bars = logging::start(args.json);
    let run = Run::new(RunConfig::read(&args.config, &args.overrides)?, &args.config)?;
    if args.dry_run {
        return show_plan(&run, args.json);
    }
    let metrics = MetricsFile::new(&run.config.training.output_dir, args.json);
    let mut listeners = Listeners(vec![Box::new(metrics)]);
    if !args.json {
        listeners.0.push(Box::new(Terminal::new(bars)));
    }
    let stop = stop_on_signal()?;
    train::train(&run, args.overwrite, &mut listeners, &stop).map(drop)
}

/// The first Ctrl-C or SIGTERM asks the run to end after its step; the second ends the process.
fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let heard = stop.clone();
    let handler = move || {
        if heard.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        let _ = writeln!(std::io::stderr(), "\nending after this step; again to end at once");
    };
    ctrlc::set_handler(handler)
        .map_err(|e| Error::Bug(format!("signals cannot be handled: {e}")))?;
    Ok(stop)
}

/// The configuration of a run directory.
fn run_config(dir: &Path) -> Result<RunConfig> {
    let path = dir.join("config.toml");
    if !path.exists() {
        let problem =
            "not a run directory: no config.toml there; expected the output_dir of a training";
        return Err(Error::file(dir, problem));
    }
    RunConfig::read(&path, &[])
}

impl Task {
    fn load(&self) -> Result<(Predictor, Option<Run>)> {
        let device = self.device()?;
        let run = self
            .run
            .as_ref()
            .map(|dir| Run::new(run_config(dir)?, &dir.join("config.toml")))
            .transpose()?;
        let model = match (&self.model, &run) {
            (Some(dir), _) => dir,
            (None, Some(run)) => &run.config.model.model_name_or_path,
            (None, None) => {
                return Err(Error::Usage(
                    "--delta wants --model DIR, its base, or --run DIR".into(),
                ));
            }
        };
        let in_run = self.run.as_ref().map(|dir| dir.join("delta.safetensors"));
        let delta = self
            .delta
            .as_ref()
            .or(in_run.as_ref())
            .ok_or_else(|| Error::Bug("neither --run nor --delta".into()))?;
        let weights = if self.model.is_none() {
            run.as_ref().and_then(|r| r.config.model.weights.as_deref())
        } else {
            None
        };
        // The run's copy of the tokenizer goes with its delta.
        let tokenizer = self.run.as_ref().filter(|_| self.delta.is_none()).unwrap_or(model);
        Ok((Predictor::load(model, weights, delta, tokenizer, device)?, run))
    }

    fn device(&self) -> Result<Device> {
        config::device(&self.device).map_err(|(found, expected)| {
            Error::Usage(format!("--device: found {found}, expected {expected}"))
        })
    }

    fn columns(&self, run: Option<&Run>, label: Option<&str>) -> Columns {
        let defaults = run.map_or_else(Default::default, |run| run.config.data.clone());
        Columns {
            text: self.text_column.clone().unwrap_or(defaults.text_column),
            text_pair: self.text_pair_column.clone().or(defaults.text_pair_column),
            label: Some(label.map_or(defaults.label_column, str::to_owned)),
        }
    }
}

fn run_eval(args: &Eval) -> Result<()> {
    let bars = logging::start(args.json);
    let (predictor, run) = args.task.load()?;
    let rows = match (&args.data, &run) {
        (Some(path), _) => {
            data::read(path, &args.task.columns(run.as_ref(), args.label_column.as_deref()))?
        }
        (None, Some(run)) => setup::Rows::read(run)?.eval,
        (None, None) => {
            return Err(Error::Usage(
                "--data PATH is needed where no --run says what to evaluate on".into(),
            ));
        }
    };
    let style = ProgressStyle::with_template("evaluating {bar:32} {pos}/{len} (left {eta})")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = bars.add(ProgressBar::new(rows.len() as u64).with_style(style));
    let mut progress = |done| {
        bar.set_position(done as u64);
        Ok(())
    };
    let metrics = predictor.evaluate(&rows, args.task.batch_size as usize, &mut progress)?.metrics;
    bar.finish_and_clear();
    if args.json {
        return print(&json!({ "rows": rows.len(), "metrics": metrics }).to_string());
    }
    print(&format!("{} rows: {}", rows.len(), train::list(&metrics)))
}

fn run_predict(args: &Predict) -> Result<()> {
    logging::start(false);
    let (predictor, run) = args.task.load()?;
    let batch_size = args.task.batch_size as usize;
    match &args.output {
        None => predict_to(
            args,
            &predictor,
            run.as_ref(),
            batch_size,
            &mut std::io::stdout().lock(),
            Path::new("stdout"),
        ),
        Some(path) => files::replace(path, |file| {
            let mut out = std::io::BufWriter::new(file);
            predict_to(args, &predictor, run.as_ref(), batch_size, &mut out, path)?;
            out.flush().map_err(Error::io("write", path))
        }),
    }
}

fn predict_to(
    args: &Predict,
    predictor: &Predictor,
    run: Option<&Run>,
    batch_size: usize,
    out: &mut dyn Write,
    name: &Path,
) -> Result<()> {
    let mut predict = |rows: &[(String, Option<String>)]| {
        let write = |out: &mut dyn Write, predictions: &[Prediction]| {
            for prediction in predictions {
                serde_json::to_writer(&mut *out, prediction)?;
                out.write_all(b"\n")?;
            }
            out.flush()
        };
        write(out, &predictor.predict(rows, batch_size)?).map_err(Error::io("write", name))
    };
    let Some(input) = &args.input else {
        let rows: Vec<_> = args.texts.iter().map(|text| (text.clone(), None)).collect();
        return predict(&rows);
    };
    if input
        .extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| ["csv", "tsv", "jsonl", "ndjson"].contains(&e))
    {
        let columns = Columns { label: None, ..args.task.columns(run, None) };
        let rows: Vec<_> =
            data::read(input, &columns)?.into_iter().map(|row| (row.text, row.text_pair)).collect();
        return rows.chunks(32 * batch_size).try_for_each(predict);
    }
    let stdin = input == Path::new("-");
    let source: Box<dyn std::io::Read> = if stdin {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(input).map_err(Error::io("read", input))?)
    };
    let input = if stdin { Path::new("standard input") } else { input };
    let mut reader = std::io::BufReader::with_capacity(1 << 16, source);
    let (mut rows, mut number) = (vec![], 0);
    loop {
        let mut line = Vec::new();
        let more = reader.read_until(b'\n', &mut line).map_err(Error::io("read", input))? > 0;
        if more {
            number += 1;
            let text =
                String::from_utf8(line).map_err(|_| Error::data(input, number, "not UTF-8"))?;
            rows.push((text.trim_end_matches(['\n', '\r']).to_owned(), None));
        }
        // Whoever waits at the other end of a pipe gets an answer as soon as nothing more is there to read.
        let waiting = stdin && !reader.buffer().contains(&b'\n');
        if !more || rows.len() >= 32 * batch_size || waiting {
            predict(&rows)?;
            rows.clear();
        }
        if !more {
            return Ok(());
        }
    }
}

fn run_inspect(args: &Inspect) -> Result<()> {
    logging::start(args.json);
    if let Some(path) = &args.delta {
        return show_delta(path, args.json);
    }
    if let Some(path) = &args.config {
        return show_plan(&Run::new(RunConfig::read(path, &args.overrides)?, path)?, args.json);
    }
    let dir = args.model.as_deref().ok_or_else(|| Error::Bug("nothing to inspect".into()))?;
    let base =
        BaseFiles::read(dir, None)?.build(usize::from(args.num_labels), None, Device::Cpu)?;
    let plan = FreezePlan::new(&base.shapes(), &base.new, &Switches::default())?;
    show(&base.dir.display().to_string(), &base.fingerprint, &plan, args.json)
}

/// What `run` would train, with everything read and checked.
fn show_plan(run: &Run, json: bool) -> Result<()> {
    let rows = setup::Rows::read(run)?;
    let labels = &rows.labels;
    for rows in [&rows.train, &rows.eval] {
        Labels::number(labels, rows)?;
    }
    let section = &run.config.model;
    let files = BaseFiles::read(&section.model_name_or_path, section.weights.as_deref())?;
    run.check_model(&files.config)?;
    let base = files.build(labels.names.len(), None, Device::Cpu)?;
    let plan = run.plan(&base)?;
    if !json {
        print(&format!(
            "data         {} training rows, {} evaluation rows, labels {}",
            rows.train.len(),
            rows.eval.len(),
            labels.names.join(", ")
        ))?;
    }
    show(&base.dir.display().to_string(), &base.fingerprint, &plan, json)
}

fn show(name: &str, fingerprint: &str, plan: &FreezePlan, json: bool) -> Result<()> {
    let counts = plan.counts();
    if json {
        return print(&json!({"base": name, "fingerprint": fingerprint, "counts": counts, "parameters": plan.parameters()}).to_string());
    }
    print(&format!("base         {name}, fingerprint {}\n{counts}", &fingerprint[..16]))
}

fn show_delta(path: &Path, json: bool) -> Result<()> {
    let delta = Delta::read(path)?;
    let meta = &delta.meta;
    if json {
        let tensors: serde_json::Map<_, _> = delta
            .tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), json!(tensor.size())))
            .collect();
        return print(&json!({"meta": meta, "tensors": tensors}).to_string());
    }
    let mut text = format!(
        "base         {} ({}), fingerprint {}\nlabels       {}\nmax_length   {}\nmetrics      {}\n\n{:<12} {:>8} {:>13}\n",
        meta.base_name,
        meta.architecture,
        meta.base_fingerprint.get(..16).unwrap_or(&meta.base_fingerprint),
        meta.labels.join(", "),
        meta.max_length,
        if meta.metrics.is_empty() { "none".into() } else { train::list(&meta.metrics) },
        "group",
        "tensors",
        "parameters",
    );
    let (mut tensors, mut parameters) = (0, 0);
    for group in Group::ALL {
        let of_group: Vec<_> = delta
            .tensors
            .iter()
            .filter(|(name, _)| Group::of(name).is_ok_and(|g| g == group))
            .collect();
        let count: usize = of_group.iter().map(|(_, tensor)| tensor.numel()).sum();
        (tensors, parameters) = (tensors + of_group.len(), parameters + count);
        text += &format!(
            "{:<12} {:>8} {:>13}\n",
            group.name(),
            of_group.len(),
            thousands(count as u64)
        );
    }
    text += &format!("{:<12} {tensors:>8} {:>13}", "all", thousands(parameters as u64));
    print(&text)
}

fn run_convert(args: &Convert) -> Result<()> {
    logging::start(false);
    let config = crate::models::ModelConfig::read(&args.model)?;
    let file = match &args.weights {
        Some(name) => args.model.join(name),
        // Not from an archive that is there already.
        None => weights::find(&args.model, None)?
            .into_iter()
            .find(|path| path.extension().is_some_and(|e| e != "ot"))
            .ok_or_else(|| {
                Error::file(
                    &args.model,
                    "nothing to convert; expected model.safetensors or pytorch_model.bin",
                )
            })?,
    };
    if args.output.extension().is_none_or(|e| e != "ot") {
        let found = args.output.display();
        return Err(Error::Usage(format!(
            "--output: found {found}, expected a name that ends in .ot, by which VarStore reads it"
        )));
    }
    Weights::read(config.architecture, &file)?.write_torchscript(&args.output)?;
    let written = Weights::read(config.architecture, &args.output)?;
    tracing::info!(
        "{} from {}, fingerprint {}",
        args.output.display(),
        file.display(),
        &written.fingerprint[..16]
    );
    Ok(())
}

fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").map_err(Error::io("write", Path::new("stdout")))
}
