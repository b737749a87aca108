//! The commands: they parse arguments, run, and return an exit code.

#[cfg(feature = "compare")]
mod compare;
#[cfg(feature = "compare")]
mod comparison;
mod documents;
mod downloads;
mod eval;
mod export;
mod inputs;
mod inspect;
mod logging;
mod outputs;
mod predict;
#[cfg(feature = "serve")]
mod serve;
mod signals;
mod task_args;
mod terminal;
mod train;
#[cfg(feature = "compare")]
mod tune;
#[cfg(feature = "compare")]
mod tuning;

use crate::base::Base;
use crate::error::{Error, Result};
use crate::files::say;
use crate::sources::Model;
use crate::weights::{self, Weights};
use crate::{data, escape, native};
use clap::{Args, Parser, Subcommand};
use indicatif::MultiProgress;
use serde::Serialize;
use serde_json::json;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use tch::Device;

/// Fine-tunes a BERT classifier by training only its biases and the new head (BitFit).
#[derive(Parser)]
#[command(name = "bitfit-train", version, after_help = train::EXAMPLES, after_long_help = train::LESSON)]
struct TrainProgram {
    #[command(flatten)]
    train: train::Train,
}

/// BitFit for BERT classifiers: one frozen base, one small file for each task.
#[derive(Parser)]
#[command(name = "bitfit", version, after_help = EXAMPLES, after_long_help = LESSON)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a task, as bitfit-train does.
    #[command(after_help = train::EXAMPLES, after_long_help = train::LESSON)]
    Train(train::Train),
    /// Evaluate a trained task on labelled data.
    #[command(after_help = eval::EXAMPLES)]
    Eval(eval::Eval),
    /// Predict labels with their scores, as JSON lines on stdout.
    #[command(after_help = predict::EXAMPLES)]
    Predict(predict::Predict),
    /// Show the parameter groups of a model, of a configuration or of a delta, how two deltas
    /// differ, or runs side by side.
    #[command(after_help = inspect::EXAMPLES)]
    Inspect(inspect::Inspect),
    #[cfg(feature = "compare")]
    /// Train the same tasks with several methods, learning rates and seeds, and write a report that
    /// compares them.
    #[command(after_help = compare::EXAMPLES)]
    Compare(compare::Compare),
    #[cfg(feature = "compare")]
    /// Find the learning rates, the number of epochs and what else is best for one task, and write
    /// a tuned configuration.
    #[command(after_help = tune::EXAMPLES)]
    Tune(Box<tune::Tune>),
    /// Export a task for Python: as a whole checkpoint, or as a PEFT adapter.
    #[command(after_help = export::EXAMPLES)]
    Export(export::Export),
    #[cfg(feature = "serve")]
    /// Serve many tasks of one base over HTTP.
    #[command(after_help = serve::EXAMPLES)]
    Serve(Box<serve::Serve>),
    /// Convert a base's weights to a TorchScript archive that contains their fingerprint.
    #[command(
        after_help = "Examples:\n  bitfit convert --model models/all-MiniLM-L6-v2 --output models/all-MiniLM-L6-v2/model.ot"
    )]
    Convert(Convert),
    /// Write a shell's completions for bitfit and bitfit-train to stdout.
    #[command(after_help = documents::COMPLETIONS_EXAMPLES)]
    Completions(documents::Completions),
    /// Write the manual pages, the completions, the configuration reference and the JSON schemas.
    #[command(hide = true)]
    Docs(documents::Docs),
}

/// The end of `bitfit -h`.
const EXAMPLES: &str = "Examples:
  bitfit train --config configs/movie-reviews.toml
  bitfit predict --run runs/movie-reviews \"A warm, funny film.\"
  bitfit COMMAND --help                        what a command takes, with examples";

/// The end of `bitfit --help`.
const LESSON: &str = "From texts to labels:
  bitfit train --config my-task.toml --dry-run        read everything, show what would train
  bitfit train --config my-task.toml                  train; the task is runs/my-task/delta.safetensors
  bitfit tune --config my-task.toml                   find better rates and epochs: my-task.tuned.toml
  bitfit eval --run runs/my-task                      measure it again
  bitfit predict --run runs/my-task \"A text.\"         use it
  bitfit export --run runs/my-task --format hf --output exported/my-task

Words:
  base     a pretrained BERT, DistilBERT or RoBERTa in Hugging Face layout, or its id on the Hub; never written to
  delta    what a task adds to its base: the biases that trained and the new head, in one small file
  run      a training, in a directory of its own with configuration, delta, metrics and checkpoints

Environment:
  RUST_LOG=debug                    say more; warn says less
  NO_COLOR=1                        no colours
  OMP_NUM_THREADS=N                 threads of libtorch
  BITFIT_CPU_LEVEL=avx2             use no instructions above avx512, avx2 or sse2 [default: the highest]
  CUDA_VISIBLE_DEVICES=N            the GPUs to see
  HF_HOME, HF_HUB_CACHE             where models and data sets of the Hub are kept
  HF_TOKEN, HF_TOKEN_PATH           for those that are not public
  HF_ENDPOINT, HTTPS_PROXY          another Hub; a proxy
  HF_HUB_OFFLINE=1                  use what is there, ask nobody (or TRANSFORMERS_OFFLINE)

Exit codes:
  0 done, 1 it failed, 2 usage or configuration, 130 interrupted";

#[derive(Args)]
struct Convert {
    /// The base: a directory, or the id of a model on the Hub.
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// Branch, tag or commit of the model on the Hub [default: main].
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,
    /// The archive to write; its name must end in .ot, by which VarStore knows the format.
    #[arg(long, value_name = "FILE.ot")]
    output: PathBuf,
    /// The weight file to convert [default: model.safetensors, or pytorch_model.bin].
    #[arg(long, value_name = "NAME")]
    weights: Option<String>,
}

/// Runs the command of the arguments; under the program name `bitfit-train`, runs `bitfit train`.
///
/// Ends the process without destructors: those of libtorch would lengthen a short call.
pub fn main() -> ! {
    let code = run_arguments();
    // What could not be written before is lost, as when the standard library flushes at the end.
    let _ = std::io::stdout().flush();
    native::exit_now(code.into())
}

fn run_arguments() -> u8 {
    data::silence_parquet_panics();
    let name = std::env::args_os().next().unwrap_or_default();
    let command = match Path::new(&name).file_name() {
        Some(name) if name == "bitfit-train" => {
            TrainProgram::try_parse().map(|program| Command::Train(program.train))
        }
        _ => Program::try_parse().map(|program| program.command),
    };
    match command {
        Ok(command) => run(command),
        Err(error) => refuse(&error),
    }
}

/// Prints clap's message: what is wrong with the arguments, or the help that was asked for.
/// Arguments in the message are escaped, because they may be names of files.
fn refuse(error: &clap::Error) -> u8 {
    let text = error.render().to_string();
    let shown = escape::text(&text);
    if shown == text {
        error.exit();
    }
    say(&shown);
    2
}

fn run(command: Command) -> u8 {
    native::ignore_file_size_signal();
    native::explain_lack_of_memory();
    let json = command.json();
    native::report_bus_errors(json);
    let done = native::check_cpu_level().and_then(|()| command.run());
    let Err(error) = done else { return 0 };
    let code = error.exit_code();
    // A reader of stdout that went away, such as head, has what it wanted. (Training also writes
    // files, and goes on: see files::tell.)
    if matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
    {
        return 0;
    }
    say(&if json {
        format!("{}\n", json!({"error": error.to_string(), "exit_code": code}))
    } else {
        format!("error: {error}\n")
    });
    code
}

impl Command {
    fn run(&self) -> Result<()> {
        match self {
            Self::Train(args) => args.run(),
            Self::Eval(args) => args.run(),
            Self::Predict(args) => args.run(),
            Self::Inspect(args) => args.run(),
            #[cfg(feature = "compare")]
            Self::Compare(args) => args.run(),
            #[cfg(feature = "compare")]
            Self::Tune(args) => args.run(),
            Self::Export(args) => args.run(),
            #[cfg(feature = "serve")]
            Self::Serve(args) => args.run(),
            Self::Convert(args) => args.run(),
            Self::Completions(args) => args.run(),
            Self::Docs(args) => args.run(),
        }
    }

    /// Whether errors are printed as JSON.
    fn json(&self) -> bool {
        match self {
            Self::Train(args) => args.json,
            Self::Eval(args) => args.json,
            Self::Inspect(args) => args.json,
            #[cfg(feature = "compare")]
            Self::Compare(args) => args.json,
            #[cfg(feature = "compare")]
            Self::Tune(args) => args.json,
            #[cfg(feature = "serve")]
            Self::Serve(args) => args.json,
            _ => false,
        }
    }
}

/// Restarts this program in the same process with the same arguments, and returns only if that
/// fails.
///
/// Adds `more` to the environment, and a short spin count unless one is set;
/// src/bin/bitfit-train.rs says why. (The commands that compute without a restart get theirs from
/// src/native/start.cpp.)
fn become_anew<'a>(more: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<()> {
    let program = std::env::current_exe().map_err(Error::io("find", Path::new("bitfit")))?;
    let mut command = std::process::Command::new(&program);
    let mut arguments = std::env::args_os();
    command.arg0(arguments.next().unwrap_or_default()).args(arguments).envs(more);
    if ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"].iter().all(|name| std::env::var_os(name).is_none()) {
        command.env("GOMP_SPINCOUNT", "30000");
    }
    // `exec` returns only if it fails.
    Err(Error::io("start", &program)(command.exec()))
}

impl Convert {
    fn run(&self) -> Result<()> {
        let bars = logging::start(false);
        signals::end_on_signal();
        if self.output.extension().is_none_or(|e| e != "ot") {
            let found = self.output.display();
            return Err(Error::Usage(format!(
                "--output: found {found}, expected a name that ends in .ot, by which VarStore reads it"
            )));
        }
        // Without --weights, an existing .ot archive is not converted again.
        let Model { dir, weights, .. } = Model::locate(
            &self.model,
            self.revision.as_deref(),
            self.weights.as_deref(),
            &mut downloads(&bars),
        )?;
        let found = weights::find(&dir, weights.as_deref())?;
        let file = found
            .into_iter()
            .find(|path| self.weights.is_some() || path.extension().is_some_and(|e| e != "ot"));
        let missing = "nothing to convert; expected model.safetensors or pytorch_model.bin";
        let file = file.ok_or_else(|| Error::file(&dir, missing))?;
        // Building the base checks that its weights are complete, before any are written.
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        let base = Base::read(&dir, name.as_deref(), Device::Cpu)?.info;
        Weights::read(&base.config, &file)?.write_torchscript(&self.output)?;
        let written = Weights::read(&base.config, &self.output)?;
        if written.fingerprint != base.fingerprint {
            let problem = "written to while it was converted; convert it again";
            return Err(Error::file(&file, problem));
        }
        let (to, from) = (self.output.display(), file.display());
        tracing::info!("{to} from {from}, fingerprint {:.16}", written.fingerprint);
        Ok(())
    }
}

/// A listener that draws a bar for each download.
fn downloads(bars: &MultiProgress) -> impl FnMut(&str, u64, Option<u64>) -> Result<()> + use<> {
    let mut bar = downloads::DownloadBar::new(bars.clone());
    move |file, done, total| {
        bar.update(file, done, total);
        Ok(())
    }
}

/// Prints `text`, escaped for a terminal.
fn print(text: &str) -> Result<()> {
    print_line(&escape::text(text))
}

/// Prints `value` as one line of JSON.
fn print_json(value: &impl Serialize) -> Result<()> {
    print_line(&json_line(value)?)
}

/// `value` as one line of JSON, escaped for a terminal.
fn json_line(value: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string(value).map_err(Error::bug)?;
    Ok(escape::json(&json))
}

fn print_line(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").map_err(Error::io("write", Path::new("stdout")))
}
