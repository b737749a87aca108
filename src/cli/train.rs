//! `bitfit-train` and `bitfit train`.

use super::inspect::show_plan;
use super::logging;
use super::signals::stop_on_signal;
use super::terminal::Terminal;
use crate::config::Run;
use crate::error::Result;
use crate::train::{self, Listeners, MetricsFile, Profiler, Start, TensorBoard, output};
use clap::Args;
use std::path::PathBuf;
use tch::Device;

/// Makes the end of the help: examples, `$between`, exit codes.
macro_rules! ending {
    ($between:literal) => {
        concat!(
            "Examples:
  bitfit-train --config configs/movie-reviews.toml
  bitfit-train --config configs/movie-reviews.toml --set training.seed=1 --set training.output_dir=runs/seed-1
  bitfit-train --config configs/movie-reviews.toml --dry-run
  bitfit-train --config configs/movie-reviews.toml --set method.name=lora --set training.output_dir=runs/lora
  bitfit-train --config configs/movie-reviews.toml --resume        (continues a run that ended early; on a CPU, with the same result)

",
            $between,
            "Exit codes:
  0 done, 1 the run failed, 2 usage or configuration, 130 interrupted; saved, unless no step was taken or it was interrupted twice"
        )
    };
}

/// The end of `-h`.
pub const EXAMPLES: &str = ending!("");

/// The end of `--help`.
pub const LESSON: &str = ending!(
    "The smallest configuration:
  [model]
  model_name_or_path = \"models/all-MiniLM-L6-v2\"   # a directory, or an id of the Hub
  [data]
  train = \"texts.csv\"                              # columns text and label; also .tsv, .json, .jsonl, .parquet, folders
  [training]
  output_dir = \"runs/my-task\"

Keys that are often set:
  data.eval                                 labelled texts to evaluate on [default: a tenth of the training rows]
  data.max_length                           tokens of a text that are read at once [default: 128]
  data.long_texts                           longer texts: cut, head_tail or windows [default: cut]
  training.num_train_epochs                 [default: as many as the data need]
  training.per_device_train_batch_size      [default: 16]
  training.learning_rate                    [default: 2e-3 for BitFit, 1e-2 for the head; each method has its own]
  training.eval_strategy                    \"steps\", every eval_steps, or \"epoch\"
  method.name                               bitfit, full, lora, adapter, head, layer_norm or probe
  bitfit.train_attention_bias, ...          which groups of biases train
  docs/configuration.md has all of them; --dry-run shows what a configuration would train.

The run directory:
  config.toml          every key, with the values that the base and the data decided
  delta.safetensors    the task: the best state evaluated, or the last
  metrics.jsonl        a line for each logged step and each evaluation
  tensorboard/         the same for TensorBoard, with histograms of the biases' changes
  summary.json         counts, times, memory, the best metrics, the constant answer
  manifest.json        versions, machine, command, hashes, start and end times
  checkpoints/         the states that --resume continues from

Environment:
  RUST_LOG=debug logs more, RUST_LOG=warn less; bitfit --help lists the rest

Signals:
  Ctrl-C, SIGTERM, SIGHUP, and the warnings of batch systems (SIGUSR1, SIGUSR2, SIGXCPU) end the run after the current step and save it
  closing the terminal does not end the run

"
);

#[derive(Args)]
pub struct Train {
    /// The configuration, a TOML file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override a key of the file; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// Resume the run in training.output_dir from its newest checkpoint; without a checkpoint,
    /// start it.
    #[arg(long)]
    resume: bool,
    /// Replace the run in training.output_dir.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Read and check everything, print what would train, and stop; nothing is written.
    #[arg(long)]
    dry_run: bool,
    /// Print at the end how long each part of a step took; only on the CPU.
    #[arg(long)]
    profile: bool,
    /// Write metrics and the summary to stdout, and logs to stderr, as JSON lines.
    #[arg(long)]
    pub json: bool,
}

impl Train {
    pub fn run(&self) -> Result<()> {
        let bars = logging::start(self.json);
        let run = Run::read(&self.config, &self.overrides)?;
        if self.dry_run {
            output::check(&run, self.start())?;
            return show_plan(&run, self.json, &bars);
        }
        let training = run.training();
        let mut listeners = Listeners(vec![
            Box::new(MetricsFile::new(&training.output_dir, self.json)),
            Box::new(TensorBoard::new(&training.output_dir)),
        ]);
        if !self.json {
            listeners.0.push(Box::new(Terminal::new(bars, run.metric.name())));
        }
        if self.profile {
            if run.device != Device::Cpu {
                let expected = "cpu with --profile, which times the parts of a step on the CPU";
                return Err(run.error("training.device", &run.training().device, expected));
            }
            listeners.0.push(Box::new(Profiler::default()));
        }
        let stop = stop_on_signal(self.json);
        train::train(&run, self.start(), &mut listeners, &stop).map(drop)
    }

    fn start(&self) -> Start {
        match (self.resume, self.overwrite) {
            (true, _) => Start::Resume,
            (_, true) => Start::Overwrite,
            _ => Start::Fresh,
        }
    }
}
