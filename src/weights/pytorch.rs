//! Weight files that PyTorch wrote, in any of its formats.

use super::pickle::Problem;
use super::stored::{Source, Stored};
use super::{archive, legacy};
use crate::error::{Error, Result};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Advice for a file that cannot be read: how to write the same weights to a file that can.
const ADVICE: &str =
    "in Python, AutoModel.from_pretrained(DIR).save_pretrained(DIR) writes a model.safetensors";

/// The mapped file, and the names and descriptions of its tensors.
pub fn list(path: &Path) -> Result<(Source, Vec<(String, Stored)>)> {
    let (source, mut file) = Source::open(path)?;
    let mut start = [0; 265];
    let length = file.read_at(&mut start, 0).map_err(Error::io("read", path))?;
    let start = start.get(..length).unwrap_or_default();
    let read = match () {
        () if start.starts_with(b"PK") => archive::zipped(&mut file),
        () if start.get(257..262) == Some(b"ustar") => legacy::tarred(&file),
        () => legacy::streamed(&file),
    };
    let tensors = read.map_err(|problem| {
        let problem = match (problem, path.extension()) {
            (Problem::Content(problem), _) => {
                format!("{problem}; in Python, torch.save(torch.load(FILE)[KEY], FILE) keeps only the state dict under KEY")
            }
            (Problem::Form(problem), Some(ending)) if ending == "ot" => {
                format!("not weights that PyTorch wrote: {problem}; write the file again with bitfit convert")
            }
            (Problem::Form(problem), _) => {
                format!("not weights that PyTorch wrote: {problem}; {ADVICE}")
            }
        };
        Error::file(path, problem)
    })?;
    Ok((source, tensors))
}
