//! Watches for losses and gradients that are no numbers, before they spoil what was trained.

use crate::error::Result;
use crate::native::Flag;
use crate::optim::{AdamW, Snapshot};
use tch::{Device, Tensor};

/// Looks at each step's loss and gradient.
///
/// On the CPU at once, before the update. Elsewhere that would make the host wait for the device in every step: there the flag is
/// read one step late, and the state from before the step is at hand to go back to.
#[derive(Debug)]
pub enum Watch {
    /// Reads each step's numbers at once.
    AtOnce,
    /// Reads each step's flag after the next step has been handed to the device.
    Late(Option<Box<Held>>),
}

/// A step whose flag has not been read.
#[derive(Debug)]
pub struct Held {
    step: u64,
    good: Flag,
    before: Snapshot,
}

/// The step after which everything was still a number, and what was none in the next.
#[derive(Debug, PartialEq)]
pub struct Spoilt {
    /// The step that gave no numbers.
    pub step: u64,
    /// What was no number in it.
    pub what: String,
}

impl Watch {
    /// The watch for a device.
    pub fn on(device: Device) -> Self {
        if device == Device::Cpu { Self::AtOnce } else { Self::Late(None) }
    }

    /// Looks at `step`, whose update follows; if it or the step before is spoilt, `optimizer` has the state before that one.
    pub fn look(
        &mut self,
        step: u64,
        loss: &Tensor,
        grad_norm: &Tensor,
        optimizer: &mut AdamW,
    ) -> Result<Option<Spoilt>> {
        match self {
            Self::AtOnce => {
                let (loss, norm) = (f64::try_from(loss)?, f64::try_from(grad_norm)?);
                let what = match (loss.is_finite(), norm.is_finite()) {
                    (true, true) => return Ok(None),
                    (false, _) => format!("the loss is {loss}"),
                    (true, false) => format!("the gradient's norm is {norm}"),
                };
                Ok(Some(Spoilt { step, what }))
            }
            Self::Late(_) => {
                let good = loss.f_isfinite()?.f_logical_and(&grad_norm.f_isfinite()?)?;
                let (good, before) = (Flag::send(&good)?, optimizer.snapshot()?);
                let spoilt = self.settle(optimizer)?;
                if spoilt.is_none() {
                    *self = Self::Late(Some(Box::new(Held { step, good, before })));
                }
                Ok(spoilt)
            }
        }
    }

    /// Waits for what has not been read, as before an evaluation, a save and the end.
    pub fn settle(&mut self, optimizer: &mut AdamW) -> Result<Option<Spoilt>> {
        let Self::Late(held) = self else { return Ok(None) };
        let Some(Held { step, good, before }) = held.take().map(|held| *held) else {
            return Ok(None);
        };
        if good.receive()? {
            return Ok(None);
        }
        optimizer.restore(&before)?;
        let what = "the loss or the gradient is no finite number".into();
        Ok(Some(Spoilt { step, what }))
    }
}
