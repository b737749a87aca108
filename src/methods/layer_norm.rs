//! LayerNorm tuning (Qi et al., 2022): every LayerNorm's weight and bias train with the new head.
//! Nothing is added to the model.

use crate::freeze::{Group, Parameter};

/// The default learning rate, equal to that of BitFit's biases.
pub const LEARNING_RATE: f64 = 2e-3;

/// Whether a parameter trains: if it is a LayerNorm's, or the base lacks it.
pub fn trains(parameter: &Parameter) -> bool {
    parameter.new || parameter.place.group == Group::LayerNorm
}
