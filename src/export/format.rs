//! The formats of an export, and the tensors in them.

use crate::error::Result;
use crate::files;
use crate::weights::write_safetensors;
use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::Path;
use tch::Tensor;

/// The formats of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum ExportFormat {
    /// A whole checkpoint, for from_pretrained: base and task merged.
    Hf,
    /// An adapter, for PeftModel.from_pretrained over the base.
    Peft,
    /// A SentenceTransformer that makes the logits, for a head on the mean of all tokens.
    SentenceTransformers,
}

/// Writes tensors with the metadata `format`, without which transformers and peft refuse the file.
pub fn write_tensors(dir: &Path, name: &str, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let path = dir.join(name);
    let file = files::FileWriter::create(&path)?;
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_safetensors(&mut BufWriter::new(file), &path, &metadata, tensors)
}
