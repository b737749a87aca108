//! Dropout whose mask is a pure function of (token key, site), so that no random state is stored in
//! memory or in a checkpoint.

use crate::{error::Result, native};
use tch::Tensor;

/// Dropout at one place of the model.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// The share of entries set to zero, `0 <= p < 1`.
    pub probability: f64,
    /// The number of this place, unique in the model.
    pub site: i64,
}

impl Dropout {
    /// The arguments of the fused kernels.
    pub fn of(self, keys: Option<&Tensor>) -> native::Dropped<'_> {
        native::Dropped { keys, site: self.site, probability: self.probability }
    }

    /// Applies dropout to `x [.., R, C]` with a key for each row, `keys [R]`. Returns `x` unchanged
    /// without keys.
    pub fn forward(self, x: Tensor, keys: Option<&Tensor>) -> Result<Tensor> {
        match keys {
            Some(keys) if self.probability > 0.0 => {
                native::dropout(&x, keys, self.site, self.probability)
            }
            _ => Ok(x),
        }
    }
}
