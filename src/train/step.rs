//! One optimizer step.

use super::Prepared;
use crate::data::{Batch, DropoutKeys};
use crate::error::Result;
use tch::Tensor;

/// What a step leaves, on the device.
pub struct Taken {
    /// Mean loss of the batch, before the step.
    pub loss: Tensor,
    /// Norm of the gradient, before clipping.
    pub grad_norm: Tensor,
    /// Tokens in the batch.
    pub tokens: usize,
}

/// Batch, forward, backward, clip, AdamW.
pub fn step(run: &mut Prepared, rows: &[usize], keys: DropoutKeys) -> Result<Taken> {
    let batch = Batch::of(&run.train, rows, Some(keys));
    let (packed, targets) = batch.to_device(run.base.device())?;
    run.optimizer.zero_grad()?;
    let logits = run.base.model.forward(&packed)?;
    let loss = run.task_type.loss(&logits, &targets, rows.len())?;
    loss.f_backward()?;
    let grad_norm = run.optimizer.step()?;
    Ok(Taken { loss: loss.f_detach()?, grad_norm, tokens: batch.tokens() })
}
