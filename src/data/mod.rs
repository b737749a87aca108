//! The data pipeline, from files to batches: rows, targets, token ids, order of rows, packed
//! tensors.

mod batch;
mod fit;
mod labels;
mod sampler;
mod source;
mod spelling;
mod tokenize;

pub use batch::{Batch, DropoutKeys, at_once, sent};
pub use fit::{check_length, fits, has_embeddings, same_tokenizer};
pub use labels::{Labels, Reading, Target};
pub use sampler::{BatchSize, Sampler, draw, epoch_order, split_by_class};
pub use source::{
    Columns, DELIMITER, FORMATS, Label, LabelColumns, Place, Row, Table, can_delimit, has_ending,
    is_rows, is_table, packing_of, place_of, read, read_all, unpack, unreadable, whole,
};
pub use spelling::listed;
pub use tokenize::{Encoded, MIN_LENGTH, TOKENIZER_FILES, Tokenizer, settings};

use crate::error::Result;
use crate::models::TaskType;

/// A tokenized row with its target.
#[derive(Debug, Clone)]
pub struct Example {
    /// Token ids of the row.
    pub tokens: Encoded,
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
