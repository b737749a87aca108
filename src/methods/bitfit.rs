//! BitFit (Ben-Zaken et al., ACL 2022): the biases that [`crate::freeze::Switches`] select train
//! with the new head. Nothing is added to the model.

/// The default learning rate of the biases (docs/defaults.md).
pub const LEARNING_RATE: f64 = 2e-3;
