//! Layer normalization over the last dimension.

use super::{Bias, variable};
use crate::error::Result;
use crate::native::Dropped;
use tch::{Tensor, nn};

/// Layer normalization; checkpoint names `weight [H]` and `bias [H]`.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Bias,
    eps: f64,
}

impl LayerNorm {
    /// Places the layer's tensors in the store at `path`.
    pub fn new(path: nn::Path<'_>, size: i64, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: variable(&path, "weight", &[size])?,
            bias: Bias::Shared(variable(&path, "bias", &[size])?),
            eps,
        })
    }

    /// `x [R, H]` -> `[R, H]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.bias.layer_norm(x, &self.weight, self.eps)
    }

    /// Of `residual + dropout(product + bias)`, all `[R, H]`, in one pass.
    pub fn of_residual(
        &self,
        product: &Tensor,
        bias: &Bias,
        dropped: Dropped<'_>,
        residual: &Tensor,
    ) -> Result<Tensor> {
        bias.residual_norm(product, residual, &self.weight, &self.bias, self.eps, dropped)
    }
}
