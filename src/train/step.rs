//! One optimizer step.

use super::Prepared;
use super::watch::{Spoilt, Watch};
use crate::data::{Batch, BatchSize, DropoutKeys};
use crate::error::Result;
use crate::native;
use tch::Tensor;

/// What a step leaves, on the device.
pub struct Taken {
    /// Mean loss of the batch, before the step.
    pub loss: Tensor,
    /// Norm of the gradient, before clipping.
    pub grad_norm: Tensor,
    /// Tokens in the batch.
    pub tokens: usize,
    /// Set if this step, or the one before, gave no numbers; then no step was taken.
    pub spoilt: Option<Spoilt>,
}

/// Takes steps.
pub struct Stepper {
    /// What is computed at once: a batch that does not fit into memory is split.
    pub at_once: BatchSize,
    /// Looks at what comes out.
    pub watch: Watch,
}

impl Stepper {
    /// Forward, backward, clip, AdamW; `number` counts from 1, `lengths` are the tokens of all rows, and `factor` scales the rates.
    pub fn take(
        &mut self,
        run: &mut Prepared,
        number: u64,
        rows: &[usize],
        lengths: &[usize],
        keys: DropoutKeys,
        factor: f64,
    ) -> Result<Taken> {
        let (loss, tokens) = loop {
            let parts: Vec<&[usize]> = self.at_once.cut(rows, lengths).collect();
            match gradient(run, &parts, run.total(rows), keys) {
                Ok(done) => break done,
                Err(error) => {
                    let most = parts.iter().map(|rows| rows.len()).max().unwrap_or(0);
                    let fewer = native::fewer_at_once(error, most, run.base.device())?;
                    self.at_once = BatchSize::Rows(fewer);
                }
            }
        };
        let grad_norm = run.optimizer.clip()?;
        let spoilt = self.watch.look(number, &loss, &grad_norm, &mut run.optimizer)?;
        if spoilt.is_none() {
            run.optimizer.step(factor)?;
        }
        Ok(Taken { loss, grad_norm, tokens, spoilt })
    }
}

/// The gradient over a step's rows, part by part; returns loss and tokens. Parts add up to what the whole would give: dropout goes by
/// rows, and each part is divided by the whole's total.
fn gradient(
    run: &mut Prepared,
    parts: &[&[usize]],
    total: f64,
    keys: DropoutKeys,
) -> Result<(Tensor, usize)> {
    run.optimizer.zero_grad()?;
    let (mut sum, mut tokens) = (None, 0);
    for rows in parts {
        let batch = Batch::of(&run.train, rows, Some(keys));
        let (packed, targets) = batch.to_device(run.base.device())?;
        let logits = run.base.model.forward(&packed)?;
        let loss = run.task_type.loss(&logits, &targets, &run.shaping, total)?;
        loss.f_backward()?;
        let loss = loss.f_detach()?;
        sum = Some(match sum {
            None => loss,
            Some(sum) => loss.f_add(&sum)?,
        });
        tokens += batch.tokens();
    }
    Ok((sum.unwrap_or_else(Tensor::new), tokens))
}
