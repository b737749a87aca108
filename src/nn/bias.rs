//! The one place where a bias is looked up.

use super::Activation;
use crate::error::Result;
use crate::native::{self, Dropped};
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
        let Bias::Shared(bias) = self;
        native::product(x, weight, Some(bias))
    }

    /// The activation of `product [R, E] + bias`, in one pass; `product` may be used up.
    pub fn activate(&self, product: &Tensor, activation: Activation) -> Result<Tensor> {
        let Bias::Shared(bias) = self;
        native::bias_activation(product, bias, activation as i64)
    }

    /// Layer normalization of `x [R, E]` with `weight [E]`, whose additive term this is.
    pub fn layer_norm(&self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
        let Bias::Shared(bias) = self;
        Ok(x.f_layer_norm(weight.size(), Some(weight), Some(bias), eps, false)?)
    }

    /// Layer normalization of `residual + dropout(product + bias)`, whose additive term is `shift`, in one pass.
    pub fn residual_norm(
        &self,
        product: &Tensor,
        residual: &Tensor,
        weight: &Tensor,
        shift: &Self,
        eps: f64,
        dropped: Dropped<'_>,
    ) -> Result<Tensor> {
        let (Bias::Shared(bias), Bias::Shared(shift)) = (self, shift);
        native::residual_norm(product, bias, residual, weight, shift, eps, dropped)
    }

    /// Several biases as one, one behind the other, for products that are made as one.
    pub fn joined(biases: &[&Self]) -> Result<Self> {
        let tensors: Vec<&Tensor> = biases.iter().map(|Bias::Shared(bias)| bias).collect();
        Ok(Bias::Shared(Tensor::f_cat(&tensors, 0)?))
    }
}
