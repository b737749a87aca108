//! Tokenized rows with their targets.

use super::labels::{Labels, Target};
use super::source::Row;
use super::tokenize::{Encoding, Tokenizer};
use crate::error::Result;
use crate::models::TaskType;

/// A tokenized row with its target.
#[derive(Debug, Clone)]
pub struct Example {
    /// Token ids of the row.
    pub tokens: Encoding,
    /// Target of the row.
    pub target: Target,
}

/// Tokenizes labelled `rows`, each cut to `max_length` ids. Errs if a row's labels are not valid
/// for `task`.
pub fn examples(
    tokenizer: &Tokenizer,
    rows: &[Row],
    task: TaskType,
    labels: &Labels,
    max_length: usize,
) -> Result<Vec<Example>> {
    let targets = labels.targets(task, rows)?;
    let encoded =
        tokenizer.encode_all(rows, |row| (&row.text, row.text_pair.as_deref()), max_length);
    Ok(encoded
        .into_iter()
        .zip(targets)
        .map(|(tokens, target)| Example { tokens, target })
        .collect())
}
