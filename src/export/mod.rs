//! A task in forms that Python loads: a whole checkpoint, or a PEFT adapter.

mod hf;
mod peft;

use crate::base::BaseFiles;
use crate::data::Tokenizer;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::files;
use crate::models::SavedTask;
use crate::predict;
use crate::sources::Model;
use std::path::Path;
use tch::Device;

/// The forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A checkpoint that `from_pretrained` loads: every tensor, the task's in the place of the base's.
    Hf,
    /// An adapter that `PeftModel.from_pretrained` loads over the base: BEFT, with LayerNorms and head saved whole.
    Peft,
}

/// Writes the task `delta` of the base `model` into the new directory `output`; the tokenizer is `tokenizer`'s.
pub fn export(
    format: Format,
    model: &Model,
    weights: Option<&str>,
    delta: &Path,
    tokenizer: &Path,
    output: &Path,
) -> Result<()> {
    let task = Delta::read(delta)?;
    let reader = Tokenizer::read(tokenizer)?;
    predict::same_tokenizer(&task.meta, delta, tokenizer, &reader)?;
    let base_files = BaseFiles::read(&model.dir, weights)?;
    predict::check_meta(&task.meta, delta, &base_files.config)?;
    let outputs = task.meta.task_type.outputs(task.meta.labels.len());
    let mut base = base_files.build(outputs, None, Device::Cpu)?;
    let before = Delta::take(&base, base.shapes().keys(), task.meta.clone())?;
    task.apply(delta, &mut base)?;
    let saved = SavedTask {
        task_type: task.meta.task_type,
        labels: task.meta.labels.clone(),
        pairs: Some(task.meta.pairs),
        max_length: Some(task.meta.max_length),
    };
    let config = saved.config(&model.dir.join("config.json"), base.config.architecture)?;
    files::new_dir(output, |dir| {
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            std::fs::write(&path, bytes).map_err(Error::io("write", &path))
        };
        write("config.json", config.as_bytes())?;
        for file in &reader.files {
            let bytes = std::fs::read(file).map_err(Error::io("read", file))?;
            write(&file.file_name().unwrap_or_default().to_string_lossy(), &bytes)?;
        }
        match format {
            Format::Hf => hf::write(dir, &base),
            Format::Peft => peft::write(dir, model, &base, &before.tensors, &task),
        }
    })
}
