//! Full fine-tuning: every parameter trains. Nothing is added to the model.

use crate::freeze::Parameter;

/// The default learning rate: that of Hugging Face's `TrainingArguments`, the largest in BERT's
/// paper.
pub const LEARNING_RATE: f64 = 5e-5;

/// Whether a parameter trains: always.
pub fn trains(_: &Parameter) -> bool {
    true
}
