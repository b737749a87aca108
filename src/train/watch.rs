//! Checks losses and gradients for NaN and infinity, before they spoil the trained parameters.

use crate::error::Result;
use crate::native::Flag;
use crate::optim::AdamW;
use tch::{Device, Kind, Tensor};

/// Checks each step's loss and gradient norm.
///
/// On the CPU the check comes before the update. On a GPU that would make the host wait for the
/// device in every step. There the device itself skips the update of such a step, and the host
/// reads the flag one step late.
#[derive(Debug)]
pub enum Watch {
    /// Reads each step's loss and norm before the update.
    AtOnce,
    /// Reads each step's flag after the next step has been handed to the device.
    Late(Option<PendingStep>),
}

/// A step whose flag has not been read.
#[derive(Debug)]
pub struct PendingStep {
    step: u64,
    good: Flag,
}

/// A step that gave NaN or infinity.
#[derive(Debug, PartialEq)]
pub struct NonFinite {
    /// The step's number, counted from 1.
    pub step: u64,
    /// The value that was NaN or infinite, for messages.
    pub what: String,
}

impl Watch {
    /// The watch for a device.
    pub fn on(device: Device) -> Self {
        if device == Device::Cpu { Self::AtOnce } else { Self::Late(None) }
    }

    /// Checks `step` before its update. Returns this step or the one before if it gave NaN or
    /// infinity; `optimizer` then has the state from before that step. Otherwise the caller makes
    /// the update.
    pub fn check(
        &mut self,
        step: u64,
        loss: &Tensor,
        grad_norm: &Tensor,
        optimizer: &mut AdamW,
    ) -> Result<Option<NonFinite>> {
        match self {
            Self::AtOnce => {
                let (loss, norm) = (f64::try_from(loss)?, f64::try_from(grad_norm)?);
                let what = match (loss.is_finite(), norm.is_finite()) {
                    (true, true) => return Ok(None),
                    (false, _) => format!("the loss is {loss}"),
                    (true, false) => format!("the gradient's norm is {norm}"),
                };
                Ok(Some(NonFinite { step, what }))
            }
            Self::Late(_) => {
                // The sum is finite if both are: neither comes near fp32's largest number.
                let good = loss.f_add(grad_norm)?.f_isfinite()?;
                let flag = Flag::send(&good)?;
                let non_finite = self.flush(optimizer)?;
                if non_finite.is_none() {
                    optimizer.skip_next_if(good.f_logical_not()?.f_to_kind(Kind::Float)?);
                    *self = Self::Late(Some(PendingStep { step, good: flag }));
                }
                Ok(non_finite)
            }
        }
    }

    /// Waits for the flag that was not read yet, as before an evaluation, a save and the end.
    /// Returns the step if it gave NaN or infinity; `optimizer` then has the state from before that
    /// step.
    pub fn flush(&mut self, optimizer: &mut AdamW) -> Result<Option<NonFinite>> {
        let Self::Late(held) = self else { return Ok(None) };
        let Some(PendingStep { step, good }) = held.take() else { return Ok(None) };
        if good.receive()? {
            return Ok(None);
        }
        optimizer.uncount_step()?;
        let what = "the loss or the gradient is NaN or infinite".into();
        Ok(Some(NonFinite { step, what }))
    }
}
