//! Tokenized rows with their targets.

use super::labels::{Labels, Target};
use super::source::Row;
use super::tokenize::{Tokenizer, Windows};
use crate::error::Result;
use crate::models::{Reading, TaskType};

/// A tokenized row with its target.
#[derive(Debug, Clone)]
pub struct Example {
    /// Token ids of the row.
    pub tokens: Windows,
    /// Target of the row.
    pub target: Target,
}

/// Tokenizes labelled `rows` as `reading` says. Errs if a row's labels are not valid for `task`.
pub fn examples(
    tokenizer: &Tokenizer,
    rows: &[Row],
    task: TaskType,
    labels: &Labels,
    reading: Reading,
) -> Result<Vec<Example>> {
    let targets = labels.targets(task, rows)?;
    let encoded = tokenizer.encode_all(rows, |row| (&row.text, row.text_pair.as_deref()), reading);
    Ok(encoded
        .into_iter()
        .zip(targets)
        .map(|(tokens, target)| Example { tokens, target })
        .collect())
}
