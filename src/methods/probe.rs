//! A linear probe: regression on the base's own embeddings, solved to its optimum. The head's
//! output layer is the solution; no step is taken, and nothing is added to the model.

use super::Wrong;
use crate::bounds::ProbeC;
use serde::{Deserialize, Serialize};

/// The settings of a probe, under scikit-learn's names and with its defaults.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeConfig {
    /// The factor of the losses beside the penalty: `C` of `LogisticRegression`, and `1 / alpha` of
    /// `Ridge`.
    pub c: f64,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self { c: 1.0 }
    }
}

impl ProbeConfig {
    pub(super) fn check(&self) -> std::result::Result<(), Wrong> {
        ProbeC::try_from(self.c).map(drop).map_err(|e| ("method.c", e))
    }
}

impl std::fmt::Display for ProbeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "c {}", self.c)
    }
}
