//! A pass that keeps only what goes into each layer, and computes the rest again in backward (Chen et al., 2016): `gradient_checkpointing`.

use super::Encoder;
use crate::error::Result;
use crate::nn::{Packed, Rows};
use tch::Tensor;

/// What a sparing pass keeps.
#[derive(Debug)]
pub struct Kept {
    /// What was given, with what it was computed from.
    given: Tensor,
    /// What goes into each layer from `count` on, without that.
    inputs: Vec<Tensor>,
    count: usize,
}

impl Encoder {
    /// As [`Encoder::upper`]; once the loss has gone backward, [`Encoder::backward`] takes it on.
    pub fn upper_sparing(
        &self,
        given: Tensor,
        count: usize,
        batch: &Packed,
        first: &Rows<'_>,
    ) -> Result<(Tensor, Kept)> {
        let all = batch.all_rows();
        let mut x = given.f_detach()?.f_set_requires_grad(given.requires_grad())?;
        let mut inputs = vec![];
        for layer in self.layers.iter().skip(count) {
            let output =
                tch::no_grad(|| layer.whole(&x, batch, &all))?.f_set_requires_grad(true)?;
            inputs.push(std::mem::replace(&mut x, output));
        }
        let encoded = self.last(&x, batch, first)?;
        inputs.push(x);
        Ok((encoded, Kept { given, inputs, count }))
    }

    /// Takes the gradient from the last layer's input down, layer by layer.
    pub fn backward(&self, kept: Kept, batch: &Packed) -> Result<()> {
        let Kept { given, mut inputs, count } = kept;
        let all = batch.all_rows();
        let Some(mut above) = inputs.pop() else { return Ok(()) };
        for layer in self.layers.iter().skip(count).rev() {
            let Some(x) = inputs.pop() else { break };
            along(&layer.whole(&x, batch, &all)?, &above)?;
            above = x;
        }
        if given.requires_grad() { along(&given, &above) } else { Ok(()) }
    }
}

/// Backward from `output` with the gradient that `leaf`, the same without its history, was given: that of their product with it.
fn along(output: &Tensor, leaf: &Tensor) -> Result<()> {
    let product = output.f_flatten(0, -1)?.f_dot(&leaf.f_grad()?.f_flatten(0, -1)?)?;
    Ok(product.f_backward()?)
}
