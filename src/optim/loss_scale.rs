//! fp16's loss scaling, as PyTorch's `GradScaler` does it (Micikevicius et al., ICLR 2018).

use serde::{Deserialize, Serialize};

/// What the loss is multiplied with before backward, and the gradient divided by after it.
///
/// Gradients below 6e-8 are zero in fp16; a factor brings them up. Where it is too much, some become infinite: that step is left out,
/// and the factor halved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// The factor.
    pub factor: f64,
    /// Steps since it changed.
    pub steps: u64,
}

/// Steps after which a factor that did no harm is doubled.
const GROWTH_INTERVAL: u64 = 2000;

impl Default for LossScale {
    fn default() -> Self {
        Self { factor: 65_536.0, steps: 0 }
    }
}

impl LossScale {
    /// The next step's, after one whose gradient was `finite` or not.
    pub fn after(self, finite: bool) -> Self {
        match self.steps + 1 {
            _ if !finite => Self { factor: self.factor / 2.0, steps: 0 },
            GROWTH_INTERVAL.. => Self { factor: self.factor * 2.0, steps: 0 },
            steps => Self { steps, ..self },
        }
    }

    /// Whether it has become so small that scaling is not what the gradient lacks.
    pub fn is_spent(self) -> bool {
        self.factor < 1.0
    }
}
