//! Full fine-tuning: everything trains. It adds nothing.

use crate::freeze::Parameter;

/// The default of Hugging Face's `TrainingArguments`, the largest of BERT's paper.
pub const LEARNING_RATE: f64 = 5e-5;

/// What trains.
pub fn trains(_: &Parameter) -> bool {
    true
}
