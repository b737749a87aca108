//! Layer normalization over the last dimension.

use super::{Bias, Dropout, Hidden, PackedRows, variable};
use crate::error::Result;
use tch::{Tensor, nn};

/// Layer normalization; checkpoint names `weight [H]` and `bias [H]`.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Bias,
    bias: Bias,
    eps: f64,
}

impl LayerNorm {
    /// Places the layer's tensors in the store at `path`.
    pub fn new(path: nn::Path<'_>, size: i64, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: Bias::Shared(variable(&path, "weight", &[size])?),
            bias: Bias::Shared(variable(&path, "bias", &[size])?),
            eps,
        })
    }

    /// Takes weight and bias, of `size` values, from the row of each sequence's task, from these
    /// offsets on.
    pub fn route(&mut self, weight: usize, bias: usize, size: usize) {
        self.weight = Bias::Routed { offset: weight, size };
        self.bias = Bias::Routed { offset: bias, size };
    }

    /// `x [R, H]` -> `[R, H]`.
    pub fn forward(&self, x: &Tensor, rows: &PackedRows<'_>) -> Result<Tensor> {
        self.bias.layer_norm(x, &self.weight, self.eps, rows)
    }

    /// Layer normalization of `residual + dropout(product + bias)`, all `[R, H]`, in one pass.
    pub fn of_residual(
        &self,
        product: &Tensor,
        bias: &Bias,
        dropout: Dropout,
        residual: &Tensor,
        rows: &PackedRows<'_>,
    ) -> Result<Hidden> {
        let dropped = dropout.of(rows.keys.as_ref());
        bias.residual_norm(product, residual, &self.weight, &self.bias, self.eps, dropped, rows)
    }
}
