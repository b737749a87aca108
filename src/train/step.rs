//! One optimizer step.

use super::cache::Cache;
use super::session::Session;
use super::watch::{NonFinite, Watch};
use crate::data::{Batch, BatchSize, DropoutKeys};
use crate::error::Result;
use crate::native;
use crate::optim::LossScale;
use tch::Tensor;

/// The output of a step. The tensors are on the device.
pub struct StepOutput {
    /// Mean loss of the batch, before the update; of a regression, in squared units of the data.
    pub loss: Tensor,
    /// Norm of the gradient, before clipping.
    pub grad_norm: Tensor,
    /// Tokens in the batch.
    pub tokens: usize,
    /// Set if this step or the one before gave NaN or infinity. This step's update was then not
    /// made.
    pub non_finite: Option<NonFinite>,
}

/// Takes the steps of a run.
pub struct Stepper {
    /// The batch size that is computed at once, made smaller if a batch does not fit into memory.
    pub at_once: BatchSize,
    /// The number of windows of each training row.
    pub windows: Vec<usize>,
    /// Checks losses and gradients for NaN and infinity.
    pub watch: Watch,
    /// The loss scale of fp16; `None` with another precision.
    pub scale: Option<LossScale>,
    /// Whether backward computes the layers again, as gradient checkpointing does.
    pub sparing: bool,
    /// The cached output of the frozen layers; `None` without `training.cache_frozen_layers`.
    pub cache: Option<Cache>,
}

impl Stepper {
    /// Takes one step: forward, backward, clip, AdamW. A batch that does not fit into memory is
    /// computed again in smaller parts. With fp16, a step whose gradient overflows makes no update.
    ///
    /// `number` counts from 1, `lengths` are the numbers of tokens of all training rows, and
    /// `factor` multiplies the learning rates.
    pub fn take(
        &mut self,
        session: &mut Session,
        number: u64,
        rows: &[usize],
        lengths: &[usize],
        keys: DropoutKeys,
        factor: f64,
    ) -> Result<StepOutput> {
        let (loss, tokens) = loop {
            // Each window counts as a row, because it takes as much memory.
            let (size, sizes) = match self.at_once {
                BatchSize::Rows(rows) => (BatchSize::Tokens(rows), &self.windows[..]),
                tokens => (tokens, lengths),
            };
            let parts: Vec<&[usize]> = size.cut(rows, sizes).collect();
            match self.gradient(session, &parts, session.total(rows), keys) {
                Ok(done) => break done,
                Err(error) => {
                    let windows = |row: &usize| self.windows.get(*row).copied().unwrap_or(1);
                    let counts = parts.iter().map(|rows| rows.iter().map(windows).sum());
                    let most = counts.max().unwrap_or(0);
                    let fewer = native::fewer_at_once(error, most, session.plan.model.device())?;
                    self.at_once = BatchSize::Rows(fewer);
                }
            }
        };
        if self.scale.is_some() {
            session.optimizer.scale_gradient(1.0 / self.factor())?;
        }
        let grad_norm = session.optimizer.clip()?;
        let reported = match session.shaping.target_scale {
            Some(scale) => loss.f_mul_scalar(scale.std * scale.std)?,
            None => loss.shallow_clone(),
        };
        if let Some(scale) = &mut self.scale {
            let finite = f64::try_from(&grad_norm)?.is_finite();
            *scale = scale.after(finite);
            if !finite && !scale.is_spent() {
                tracing::info!(
                    "step {number} is skipped: its gradient was too large for fp16; the loss scale is now {}",
                    scale.factor
                );
                return Ok(StepOutput { loss: reported, grad_norm, tokens, non_finite: None });
            }
        }
        let non_finite = self.watch.check(number, &loss, &grad_norm, &mut session.optimizer)?;
        if non_finite.is_none() {
            session.optimizer.step(factor)?;
        }
        Ok(StepOutput { loss: reported, grad_norm, tokens, non_finite })
    }

    /// The factor that the loss is multiplied by; 1 without a loss scale.
    fn factor(&self) -> f64 {
        self.scale.map_or(1.0, |scale| scale.factor)
    }

    /// Computes the gradient over a step's rows, part by part, and returns the loss and the number
    /// of tokens.
    ///
    /// The parts add up to the gradient of the whole step: dropout is keyed by row, and the loss of
    /// each part is divided by `total`, the divisor of the whole step.
    fn gradient(
        &self,
        session: &mut Session,
        parts: &[&[usize]],
        total: f64,
        keys: DropoutKeys,
    ) -> Result<(Tensor, usize)> {
        session.optimizer.zero_grad()?;
        let (mut sum, mut tokens) = (None, 0);
        for rows in parts {
            let batch = Batch::from_examples(&session.plan.data.train, rows, Some(keys));
            let (packed, targets) = batch.to_device(session.plan.model.device())?;
            let (model, frozen) =
                (&session.plan.model.classifier, session.plan.freeze.frozen_layers());
            let lower = match &self.cache {
                Some(cache) => cache.lower(&session.plan, rows, &packed)?,
                None => model.lower(&packed, frozen)?,
            };
            let (logits, kept) = model.upper(lower, frozen, &packed, self.sparing)?;
            let task = &session.plan.meta.task;
            let logits = packed.by_text(logits, task.long_texts.pooling())?;
            let loss = task.task_type.loss(&logits, &targets, &session.shaping, total)?;
            match self.scale {
                None => loss.f_backward()?,
                Some(scale) => loss.f_mul_scalar(scale.factor)?.f_backward()?,
            }
            kept.map_or(Ok(()), |kept| model.backward(kept, &packed))?;
            let loss = loss.f_detach()?;
            sum = Some(match sum {
                None => loss,
                Some(sum) => loss.f_add(&sum)?,
            });
            tokens += batch.tokens();
        }
        Ok((sum.unwrap_or_else(Tensor::new), tokens))
    }
}
