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

/// Steps that a task with few outputs needs on small data.
const STEPS: f64 = 400.0;

/// Tokens of all epochs, for each training row, above which a run gets no more steps than
/// [`LEAST_EPOCHS`] gives.
const TOKENS_PER_ROW: f64 = 640.0;

/// Fewest epochs.
const LEAST_EPOCHS: u64 = 3;

/// Most epochs.
const MOST_EPOCHS: u64 = 200;

/// Why a run has the number of epochs that [`epochs`] gives.
pub const WHY: &str = "about 400 steps, and 3 epochs at least";

/// Passes over training data of `size`, in the batches of `training`: as many as give about
/// [`STEPS`] steps, within the other bounds of this file.
pub fn epochs(size: DataSize, training: &TrainingSection) -> Result<Count> {
    let rows = match training.max_tokens_per_batch {
        Some(tokens) => tokens.get() as f64 / size.mean_length.max(1.0),
        None => training.per_device_train_batch_size.get() as f64,
    };
    let rows = rows * training.gradient_accumulation_steps.get() as f64;
    let steps_per_epoch = (size.rows as f64 / rows).ceil().max(1.0);
    let wanted = (STEPS / steps_per_epoch).ceil();
    let affordable = TOKENS_PER_ROW / size.mean_length.max(1.0);
    let large = size.rows as f64 >= 1000.0;
    let epochs = if large { wanted.min(affordable) } else { wanted };
    Count::try_from((epochs as u64).clamp(LEAST_EPOCHS, MOST_EPOCHS)).map_err(Into::into)
}
