//! A whole checkpoint.

use crate::base::Base;
use crate::error::{Error, Result};
use crate::weights::write_safetensors;
use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::Path;

/// Writes `model.safetensors`: every tensor of the model, as its `state_dict()` has it.
pub fn write(dir: &Path, base: &Base) -> Result<()> {
    let path = dir.join("model.safetensors");
    let file = std::fs::File::create(&path).map_err(Error::io("create", &path))?;
    let tensors: BTreeMap<_, _> = base.store.variables().into_iter().collect();
    // Without this, transformers refuses the file.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_safetensors(&mut BufWriter::new(file), &path, &metadata, &tensors)
}
