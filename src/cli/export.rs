//! `bitfit export`.

use super::logging;
use super::signals::end_on_signal;
use super::task_args::TaskArgs;
use crate::error::{Error, Result};
use crate::export::{ExportFormat, export};
use clap::Args;
use std::path::PathBuf;

pub const EXAMPLES: &str = "Examples:
  bitfit export --run runs/movie-reviews --format hf --output exported/movie-reviews
  bitfit export --run runs/movie-reviews --format peft --output adapters/movie-reviews
  bitfit export --run runs/my-task --format sentence-transformers --output exported/my-task    # a head on the mean of all tokens

Other methods than BitFit:
  A LoRA task is merged into the weights by hf, and is peft's own LORA adapter by peft; full fine-tuning is for hf alone, and
  AdapterHub's adapters are for neither: their delta.safetensors has the names that the package adapters loads.

In Python, of the first:
  model = AutoModelForSequenceClassification.from_pretrained(\"exported/movie-reviews\")

Of the second, with its labels:
  config = AutoConfig.from_pretrained(\"adapters/movie-reviews\")
  base = AutoModelForSequenceClassification.from_pretrained(\"models/all-MiniLM-L6-v2\", config=config)
  model = PeftModel.from_pretrained(base, \"adapters/movie-reviews\")    # peft 0.20 or newer";

#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    task: TaskArgs,
    /// The format to write.
    #[arg(long, value_enum)]
    format: ExportFormat,
    /// The directory to write to; it must be new or empty.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

impl Export {
    pub fn run(&self) -> Result<()> {
        let bars = logging::start(false);
        end_on_signal();
        let found = self.task.resolve(&bars)?;
        let Some(delta) = &found.delta else {
            return Err(Error::Usage(
                "--model alone has no task to export; name one with --run DIR or --delta FILE"
                    .into(),
            ));
        };
        let (tokenizer, run) = (&found.tokenizer, found.run.as_ref().filter(|_| found.own_delta));
        export(self.format, &found.model, delta, tokenizer, run, &self.output)?;
        tracing::info!("{} from {} and {}", self.output.display(), found.model, delta.display());
        Ok(())
    }
}
