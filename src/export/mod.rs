//! Exports a task in formats that Python loads: a whole checkpoint, a PEFT adapter, or a model of
//! sentence-transformers.
//!
//! The files in reading order; each imports only from those before it: `format`, `card`, `peft`,
//! `sentence`.

mod card;
mod format;
mod peft;
mod sentence;

pub use format::ExportFormat;

use crate::base::Base;
use crate::config::Run;
use crate::data::{self, Tokenizer};
use crate::delta::Delta;
use crate::error::Result;
use crate::files;
use crate::sources::Model;
use crate::task_model::TaskModel;
use format::write_tensors;
use std::path::Path;
use tch::Device;

/// Writes the task in the file `delta`, over the base `source`, into the new directory `output`,
/// with a model card. The tokenizer's files come from `tokenizer`. `run` is the run that trained
/// the task, if known.
///
/// Errs where `tokenizer` or the base is not the one that the task was trained with, and where
/// `format` cannot hold the task.
pub fn export(
    format: ExportFormat,
    source: &Model,
    delta: &Path,
    tokenizer: &Path,
    run: Option<&Run>,
    output: &Path,
) -> Result<()> {
    let task = Delta::read(delta)?;
    sentence::check(&task.meta.task, format == ExportFormat::SentenceTransformers)?;
    let reader = Tokenizer::read(tokenizer)?;
    data::same_tokenizer(&task.meta, delta, tokenizer, &reader)?;
    let base = Base::read(&source.dir, source.weights.as_deref(), Device::Cpu)?;
    data::check_length(&task.meta, delta, &base.info.config)?;
    let mut model = TaskModel::new(&base, task.meta.task.outputs(), task.meta.task.pooling, None)?;
    task.apply_with_method(delta, &mut model)?;
    let config =
        task.meta.task.config(&source.dir.join("config.json"), model.config.architecture)?;
    files::new_dir(output, |dir| {
        let write = |name: &str, bytes: &[u8]| files::write(&dir.join(name), bytes);
        if format != ExportFormat::SentenceTransformers {
            write("config.json", config.as_bytes())?;
        }
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let card = card::Card { format, name: &name, source, model: &model, task: &task, run };
        write("README.md", card.text()?.as_bytes())?;
        for (name, bytes) in reader.files()? {
            write(name, &bytes)?;
        }
        match format {
            // Every tensor of the model, as its `state_dict()` has it.
            ExportFormat::Hf => {
                write_tensors(dir, "model.safetensors", &task.meta.method.merged(&model)?)
            }
            ExportFormat::Peft => peft::write(dir, source, &base, &model, &task),
            ExportFormat::SentenceTransformers => {
                let mut tensors = task.meta.method.merged(&model)?;
                // transformers' encoder has the pooler, which this head does not read.
                for (name, tensor) in base.tensors() {
                    tensors.entry(name.clone()).or_insert_with(|| tensor.shallow_clone());
                }
                let architecture = model.config.architecture;
                sentence::write(dir, architecture, &task.meta.task, &config, tensors)
            }
        }?;
        // The tensors that were written are views of the base's file, so that file must not have
        // changed.
        base.info.check_unchanged()
    })
}
