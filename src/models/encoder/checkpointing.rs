//! Gradient checkpointing (Chen et al., 2016): the forward pass keeps only the input of each layer,
//! and the backward pass computes the rest again.

use super::Encoder;
use crate::error::Result;
use crate::nn::{Hidden, Packed, PackedRows, Pooling};
use tch::Tensor;

/// The tensors that a forward pass with gradient checkpointing keeps.
#[derive(Debug)]
pub struct Checkpointed {
    /// The input of the pass, with its autograd history.
    given: Tensor,
    /// The input of each layer from `count` on, without its autograd history.
    inputs: Vec<Tensor>,
    count: usize,
}

impl Encoder {
    /// Like [`Encoder::upper`], with gradient checkpointing. The backward pass of the loss ends at
    /// the last layer's input, and [`Encoder::backward`] continues from there.
    pub fn forward_checkpointed(
        &self,
        given: Tensor,
        count: usize,
        batch: &Packed,
        first: &PackedRows<'_>,
        pooling: Pooling,
    ) -> Result<(Tensor, Checkpointed)> {
        let all = batch.all_rows();
        let x = given.f_detach()?.f_set_requires_grad(given.requires_grad())?;
        let (mut x, mut inputs) = (Hidden::new(x), vec![]);
        for layer in self.layers.iter().skip(count) {
            let output = tch::no_grad(|| layer.whole(&x, batch, &all))?.full;
            let output = Hidden::new(output.f_set_requires_grad(true)?);
            inputs.push(std::mem::replace(&mut x, output).full);
        }
        let encoded = self.last(&x, batch, first, pooling)?;
        inputs.push(x.full);
        Ok((encoded, Checkpointed { given, inputs, count }))
    }

    /// Backpropagates from the last layer's input down, layer by layer.
    pub fn backward(&self, checkpointed: Checkpointed, batch: &Packed) -> Result<()> {
        let Checkpointed { given, mut inputs, count } = checkpointed;
        let all = batch.all_rows();
        let Some(mut above) = inputs.pop() else { return Ok(()) };
        for layer in self.layers.iter().skip(count).rev() {
            let Some(x) = inputs.pop().map(Hidden::new) else { break };
            along(&layer.whole(&x, batch, &all)?.full, &above)?;
            above = x.full;
        }
        if given.requires_grad() { along(&given, &above) } else { Ok(()) }
    }
}

/// Backpropagates through `output` the gradient of `leaf`, a copy of `output` without autograd
/// history. The gradient of their dot product with respect to `output` is the gradient of `leaf`.
fn along(output: &Tensor, leaf: &Tensor) -> Result<()> {
    let product = output.f_flatten(0, -1)?.f_dot(&leaf.f_grad()?.f_flatten(0, -1)?)?;
    Ok(product.f_backward()?)
}
