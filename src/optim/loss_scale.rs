//! fp16's loss scaling, as PyTorch's `GradScaler` does it (Micikevicius et al., ICLR 2018).

use serde::{Deserialize, Serialize};

/// The factor that the loss is multiplied by before backward, and the gradient divided by after it.
///
/// Gradients below 6e-8 are zero in fp16, and the factor makes them larger. If the factor is too
/// large, some gradients become infinite. That step is then skipped and the factor is halved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// The factor.
    pub factor: f64,
    /// Steps since the factor changed.
    pub steps: u64,
}

/// Steps without infinite gradients after which the factor is doubled.
const GROWTH_INTERVAL: u64 = 2000;

impl Default for LossScale {
    fn default() -> Self {
        Self { factor: 65_536.0, steps: 0 }
    }
}

impl LossScale {
    /// Returns the scale for the next step, after a step whose gradient was `finite` or not.
    pub fn after(self, finite: bool) -> Self {
        match self.steps + 1 {
            _ if !finite => Self { factor: self.factor / 2.0, steps: 0 },
            GROWTH_INTERVAL.. => Self { factor: self.factor * 2.0, steps: 0 },
            steps => Self { steps, ..self },
        }
    }

    /// Whether the factor is so small that scaling cannot be what made the gradient infinite.
    pub fn is_spent(self) -> bool {
        self.factor < 1.0
    }
}
