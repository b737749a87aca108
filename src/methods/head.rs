//! The new head alone, and a pooler that the base lacks. It adds nothing.

use crate::freeze::Parameter;

/// As BitFit's.
pub const LEARNING_RATE: f64 = 1e-3;

/// What trains.
pub fn trains(parameter: &Parameter) -> bool {
    parameter.new
}
