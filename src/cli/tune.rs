//! `bitfit tune`.

use super::logging;
use super::signals::stop_on_signal;
use super::tuning::TuningProgress;
use crate::config::MethodName;
use crate::error::Result;
use crate::tune::{Budget, TuneEvent, TuneOptions, tune};
use clap::Args;
use std::path::PathBuf;

pub const EXAMPLES: &str = "Examples:
  bitfit tune --config my-task.toml
  bitfit train --config my-task.tuned.toml
  bitfit tune --config my-task.toml --minutes 240
  bitfit tune --config my-task.toml --methods bitfit,lora,full
  bitfit tune --config my-task.toml --runs 20 --folds 5
  bitfit tune --config my-task.toml --resume          (continues a tuning that was ended)

What it tries:
  bitfit, layer_norm    head rates 3e-3, 1e-2, 3e-2 with rates 2e-3, 5e-3 of the biases or the LayerNorms
  head                  head rates 3e-3, 1e-2, 3e-2
  full, lora, adapter   the configured or default rate, times 0.3 and 3
  probe                 the configured or default c, times 10 and 0.1
  all but probe         1, 2 and 0.5 times the number of epochs
  then on top           label smoothing 0.1; balanced class weights if classes are uneven; the other pooling
  The configuration as it is always runs to the end, so that the answer can be: it is best as it is.

Which rows decide:
  data.eval, if it is configured and --folds is not given; else held-out training rows
  fewer than 1,000 rows are split 3 times, and the mean decides; give no rows of a final test

Output:
  my-task.tuned.toml, beside the configuration: the same text with the tuned keys and a comment on what was found
  in --output-dir: report.html, report.md, tune.json, and a directory for each run
  Ctrl-C ends after the current step and saves.

Exit codes:
  0 done, 1 it failed, 2 usage or configuration, 130 interrupted after saving";

#[derive(Args)]
pub struct Tune {
    /// The configuration to tune, a TOML file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override a key of the file; may be repeated. The tuned configuration has these keys too.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// The time to take; only the configuration as it is may take longer. A tuning that was resumed
    /// goes on counting [default: 30].
    #[arg(long, value_name = "MINUTES", value_parser = positive, conflicts_with = "runs")]
    minutes: Option<f64>,
    /// The steps to take, in runs of the configuration on one split, instead of --minutes. The
    /// result then does not depend on the clock.
    #[arg(long, value_name = "N", value_parser = positive)]
    runs: Option<f64>,
    /// Split the training rows this number of times, and let the mean decide, also with data.eval
    /// [default: 3 with fewer than 1,000 rows, else 1].
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(2..=20))]
    folds: Option<u64>,
    /// Methods to try, with a comma between them: bitfit, head, layer_norm, full, lora, adapter or
    /// probe [default: method.name].
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = method)]
    methods: Vec<MethodName>,
    /// The directory of the runs and the report [default: training.output_dir with -tune].
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Continue the tuning in the directory; without one, begin.
    #[arg(long)]
    resume: bool,
    /// Replace the tuning in the directory.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Write events to stdout as JSON lines; the last one says what was found.
    #[arg(long)]
    pub json: bool,
}

/// Reads a positive number.
fn positive(text: &str) -> std::result::Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "expected a positive number".into())
}

/// Reads the name of a method.
fn method(text: &str) -> std::result::Result<MethodName, String> {
    let name = toml::Value::String(text.trim().to_owned());
    name.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

impl Tune {
    pub fn run(&self) -> Result<()> {
        let bars = logging::start(self.json);
        let stop = stop_on_signal(self.json);
        let budget = match self.runs {
            Some(runs) => Budget::Runs(runs),
            None => Budget::Minutes(self.minutes.unwrap_or(30.0)),
        };
        let options = TuneOptions {
            config: self.config.clone(),
            overrides: self.overrides.clone(),
            budget,
            folds: self.folds,
            methods: self.methods.clone(),
            output_dir: self.output_dir.clone(),
            resume: self.resume,
            overwrite: self.overwrite,
        };
        let mut progress = TuningProgress::new(bars, self.json);
        let mut on_event = |event: &TuneEvent<'_>| progress.on_event(event);
        tune(&options, &mut on_event, &stop).map(drop)
    }
}
