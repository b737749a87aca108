//! What a configuration leaves to the data: how long to train.

use super::TrainingSection;
use crate::bounds::Count;
use crate::error::Result;

/// The size of the training data.
#[derive(Debug, Clone, Copy)]
pub struct DataSize {
    /// Number of training rows.
    pub rows: usize,
    /// Number of evaluation rows.
    pub eval_rows: usize,
    /// Mean number of tokens of a row.
    pub mean_length: f64,
}

/// Evaluation rows below which chance decides which state is the best.
pub const FEW_EVAL_ROWS: usize = 100;

/// Steps that small data need.
const STEPS: f64 = 400.0;

/// The most tokens that a run reads for each training row, in all epochs.
const TOKENS_PER_ROW: f64 = 640.0;

/// A run on fewer rows may read as many tokens as a run on this number of rows.
const MANY_ROWS: usize = 1000;

/// The fewest epochs.
const LEAST_EPOCHS: u64 = 3;

/// The most epochs.
const MOST_EPOCHS: u64 = 200;

/// Passes over training data of `size` in the batches of `training`, and the reason for their
/// number.
pub fn epochs(size: DataSize, training: &TrainingSection) -> Result<(Count, &'static str)> {
    let rows = match training.max_tokens_per_batch {
        Some(tokens) => tokens.get() as f64 / size.mean_length.max(1.0),
        None => training.per_device_train_batch_size.get() as f64,
    };
    let rows = rows * training.gradient_accumulation_steps.get() as f64;
    let steps_per_epoch = (size.rows as f64 / rows).ceil().max(1.0);
    let (mut epochs, mut why) = ((STEPS / steps_per_epoch).ceil(), "about 400 steps");
    let tokens_per_epoch = size.rows as f64 * size.mean_length.max(1.0);
    let affordable = TOKENS_PER_ROW * size.rows.max(MANY_ROWS) as f64 / tokens_per_epoch.max(1.0);
    if affordable < epochs {
        let many = size.rows > MANY_ROWS;
        epochs = affordable;
        why = if many { "640 tokens a row at most" } else { "640,000 tokens at most" };
    }
    let epochs = epochs as u64;
    let (epochs, why) = match epochs {
        ..LEAST_EPOCHS => (LEAST_EPOCHS, "3 at least"),
        LEAST_EPOCHS..=MOST_EPOCHS => (epochs, why),
        _ => (MOST_EPOCHS, "200 at most"),
    };
    Ok((Count::try_from(epochs)?, why))
}
