//! The one place where a bias is looked up.

use crate::error::Result;
use tch::Tensor;

/// The additive term of a layer.
#[derive(Debug)]
pub enum Bias {
    /// One vector `[E]` for every row.
    Shared(Tensor),
}

impl Bias {
    /// `x weightᵀ + bias`: `x [R, I]`, `weight [E, I]` -> `[R, E]`.
    pub fn linear(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        match self {
            Bias::Shared(bias) => Ok(x.f_linear(weight, Some(bias))?),
        }
    }

    /// Layer normalization of `x [R, E]` with `weight [E]`, whose additive term this is.
    pub fn layer_norm(&self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
        match self {
            Bias::Shared(bias) => {
                Ok(x.f_layer_norm(weight.size(), Some(weight), Some(bias), eps, false)?)
            }
        }
    }
}
