//! From files to batches: rows, targets, token ids, order, packed tensors.

mod batch;
mod labels;
mod sampler;
mod source;
mod spelling;
mod tokenize;

pub use batch::{Batch, DropoutKeys, at_once, sent};
pub use labels::{Labels, Reading, Target};
pub use sampler::{BatchSize, Sampler, draw, epoch_order, split_by_class};
pub use source::{
    Columns, DELIMITER, FORMATS, Label, LabelColumns, Place, Row, Table, can_delimit, has_ending,
    is_table, packing_of, place_of, read, read_all, unpack, unreadable, whole,
};
pub use tokenize::{Encoded, MIN_LENGTH, TOKENIZER_FILES, Tokenizer, settings};

/// A tokenized row with its target.
#[derive(Debug, Clone)]
pub struct Example {
    /// Its token ids.
    pub tokens: Encoded,
    /// What it is to be predicted as.
    pub target: Target,
}
