//! BitFit (Ben-Zaken et al., ACL 2022): biases, as [`crate::freeze::Switches`] say, and the new head. It adds nothing.

/// The paper's largest.
pub const LEARNING_RATE: f64 = 1e-3;
