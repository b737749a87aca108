//! Head-only training: the new head trains, and the pooler if the base lacks it. Nothing is added
//! to the model.

use crate::freeze::Parameter;

/// The default learning rate of a new head, for the methods that give the head its own
/// (docs/defaults.md).
pub const LEARNING_RATE: f64 = 1e-2;

/// Whether a parameter trains: if the base lacks it.
pub fn trains(parameter: &Parameter) -> bool {
    parameter.new
}
