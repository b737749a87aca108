//! Every LayerNorm's weight and bias (Qi et al., 2022), and the new head. It adds nothing.

use crate::freeze::{Group, Parameter};

/// As BitFit's.
pub const LEARNING_RATE: f64 = 1e-3;

/// What trains.
pub fn trains(parameter: &Parameter) -> bool {
    parameter.new || parameter.place.group == Group::LayerNorm
}
