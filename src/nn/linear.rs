//! `y = x Wᵀ + b`.

use super::Bias;
use crate::error::Result;
use tch::{Tensor, nn};

/// A dense layer; checkpoint names `weight [E, I]` and `bias [E]`.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Bias,
}

impl Linear {
    /// Places the layer's tensors, `inputs` to `outputs`, in the store at `path`.
    pub fn new(path: nn::Path<'_>, inputs: i64, outputs: i64) -> Result<Self> {
        let weight = path.f_zeros("weight", &[outputs, inputs])?;
        Ok(Self { weight, bias: Bias::Shared(path.f_zeros("bias", &[outputs])?) })
    }

    /// `x [R, I]` -> `[R, E]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.bias.linear(x, &self.weight)
    }
}
