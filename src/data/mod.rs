//! From files to batches: rows, token ids, order, packed tensors.

mod batch;
mod sampler;
mod source;
mod tokenize;

pub use batch::{Batch, DropoutKeys};
pub use sampler::{epoch_order, split_by_class};
pub use source::{Columns, Labels, Place, Row, ending, read};
pub use tokenize::{Encoded, Tokenizer};

/// A tokenized row with its class.
#[derive(Debug, Clone)]
pub struct Example {
    /// Its token ids.
    pub tokens: Encoded,
    /// Its class number.
    pub label: usize,
}
