//! The data pipeline, from files to batches: rows, targets, token ids, order of rows, packed
//! tensors.
//!
//! The files in reading order; each imports only from those before it: `spelling`, `source`,
//! `labels`, `tokenize`, `fit`, `example`, `batch`, `sampler`.

mod batch;
mod example;
mod fit;
mod labels;
mod sampler;
mod source;
mod spelling;
mod tokenize;

pub use batch::{Batch, DropoutKeys, copied_to, texts_per_batch, worthwhile};
pub use example::{Example, examples};
pub use fit::{check_length, fits, has_embeddings, same_tokenizer};
pub use labels::{Labels, Target};
pub use sampler::{BatchSize, Sampler, draw, epoch_order, split_by_class};
pub use source::{
    Columns, DELIMITER, Dataset, FORMATS, LabelColumns, Original, ParquetTable, Row, RowOrigin,
    can_delimit, has_ending, is_rows, is_table, packing_of, place_of, read, read_all,
    read_with_original, silence_parquet_panics, unpack, unreadable, whole,
};
pub use spelling::{listed, nearest};
pub use tokenize::{Encoding, MIN_LENGTH, TOKENIZER_FILES, TextSize, Tokenizer, Windows, settings};
