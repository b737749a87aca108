//! The one place where a bias is looked up: in a tensor that all rows share, or in the row of each
//! sequence's task.

use super::{Activation, Hidden, PackedRows, route};
use crate::error::Result;
use crate::native::{self, Dropped};
use tch::Tensor;

/// The weight of a product, `[E, I]`.
#[derive(Debug)]
pub enum Weight<'a> {
    /// A model's weight, or several that are contiguous.
    Kept(&'a Tensor),
    /// A copy that was made for one product.
    Passing(&'a Tensor),
}

impl Weight<'_> {
    /// Computes `x weightᵀ` plus the biases side by side: `x [R, I]`, together `[E]` -> `[R, E]`.
    fn product(&self, x: &Tensor, biases: &[&Tensor]) -> Result<Tensor> {
        match self {
            Self::Kept(weight) => native::product_by(x, weight, biases, true),
            Self::Passing(weight) => native::product_by(x, weight, biases, false),
        }
    }
}

/// A vector of a layer: its additive term, or LayerNorm's weight.
#[derive(Debug)]
pub enum Bias {
    /// One vector `[E]` for every row.
    Shared(Tensor),
    /// A vector of its own for each task: `E` biases of the task's row, or LayerNorm weights, from
    /// `offset` on. For predicting alone.
    Routed {
        /// Where it begins in its part of the row.
        offset: usize,
        /// `E`.
        size: usize,
    },
}

impl Bias {
    /// Computes `x weightᵀ + bias`: `x [R, I]`, `weight [E, I]` -> `[R, E]`.
    pub fn linear(&self, x: &Tensor, weight: &Weight<'_>, rows: &PackedRows<'_>) -> Result<Tensor> {
        match self {
            Bias::Shared(bias) => weight.product(x, &[bias]),
            Bias::Routed { offset, size } => {
                route::add(&weight.product(x, &[])?, &[(*offset, *size)], rows)
            }
        }
    }

    /// Computes the product with several weights, one below the other, each with its bias.
    pub fn joined_linear(
        biases: &[&Self],
        x: &Tensor,
        weight: &Weight<'_>,
        rows: &PackedRows<'_>,
    ) -> Result<Tensor> {
        let (mut shared, mut routed) = (vec![], vec![]);
        for bias in biases {
            match bias {
                Bias::Shared(bias) => shared.push(bias),
                Bias::Routed { offset, size } => routed.push((*offset, *size)),
            }
        }
        if routed.is_empty() {
            return weight.product(x, &shared);
        }
        route::add(&weight.product(x, &[])?, &routed, rows)
    }

    /// The activation of `product [R, E] + bias`, in one pass; `product` may be used up.
    pub fn activate(
        &self,
        product: &Tensor,
        activation: Activation,
        rows: &PackedRows<'_>,
    ) -> Result<Tensor> {
        match self {
            Bias::Shared(bias) => native::bias_activation(product, bias, activation as i64),
            Bias::Routed { offset, size } => {
                route::activate(product, (*offset, *size), activation, rows)
            }
        }
    }

    /// Layer normalization of `x [R, E]` with `weight`, whose additive term this is.
    pub fn layer_norm(
        &self,
        x: &Tensor,
        weight: &Self,
        eps: f64,
        rows: &PackedRows<'_>,
    ) -> Result<Tensor> {
        match (weight, self) {
            (Bias::Shared(weight), Bias::Shared(bias)) => {
                let norm = |bias| x.f_layer_norm(weight.size(), Some(weight), bias, eps, false);
                // CUDA's gradient fails for more than 65,536 rows if only the bias trains.
                let bias_alone = bias.requires_grad() && !weight.requires_grad();
                Ok(match bias_alone && x.device().is_cuda() {
                    true => norm(None)?.f_add(bias)?,
                    false => norm(Some(bias))?,
                })
            }
            (weight, bias) => Ok(route::normalize(x, None, None, weight, bias, eps, rows)?.0),
        }
    }

    /// Layer normalization of `residual + dropout(product + bias)`, whose additive term is `shift`,
    /// in one pass.
    #[allow(clippy::too_many_arguments)]
    pub fn residual_norm(
        &self,
        product: &Tensor,
        residual: &Tensor,
        weight: &Self,
        shift: &Self,
        eps: f64,
        dropped: Dropped<'_>,
        rows: &PackedRows<'_>,
    ) -> Result<Hidden> {
        let (full, rounded) = match (self, weight, shift) {
            (Bias::Shared(bias), Bias::Shared(weight), Bias::Shared(shift)) => {
                native::residual_norm(product, bias, residual, weight, shift, eps, dropped)?
            }
            (bias, weight, shift) => {
                let (bias, residual) = (Some(bias), Some(residual));
                route::normalize(product, bias, residual, weight, shift, eps, rows)?
            }
        };
        Ok(Hidden { full, rounded })
    }
}
