//! Lookup tables.

use super::variable;
use crate::error::Result;
use tch::{Tensor, nn};

/// A lookup table; checkpoint name `weight [V, H]`.
#[derive(Debug)]
pub struct Embedding {
    weight: Tensor,
    /// The entry that never trains, torch's `padding_idx`.
    padding: Option<i64>,
}

impl Embedding {
    /// Places the table in the store at `path`.
    pub fn new(path: nn::Path<'_>, entries: i64, size: i64, padding: Option<i64>) -> Result<Self> {
        Ok(Self { weight: variable(&path, "weight", &[entries, size])?, padding })
    }

    /// `ids [T]` (int64, each below the number of entries) -> `[T, H]`.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(Tensor::f_embedding(&self.weight, ids, self.padding.unwrap_or(-1), false, false)?)
    }
}
