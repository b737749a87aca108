//! LoRA: the product of two low-rank matrices, added to a dense layer (Hu et al., ICLR 2022).

use super::{Dropout, below, variable};
use crate::error::Result;
use crate::native;
use tch::{Kind, Tensor, nn};

/// The rank, scaling and dropout of LoRA.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraShape {
    /// The rank, `r`.
    pub rank: i64,
    /// The factor of the product: `lora_alpha / r`.
    pub scaling: f64,
    /// Dropout probability of the input to LoRA's matrices.
    pub dropout: f64,
}

/// `scaling B A dropout(x)`. Checkpoint names, as in peft: `lora_A.weight [r, I]` and
/// `lora_B.weight [E, r]`.
#[derive(Debug)]
pub struct Lora {
    a: Tensor,
    b: Tensor,
    scaling: f64,
    dropout: Dropout,
}

impl Lora {
    /// Places the tensors in the store below `path`, the dense layer's path. `site` is the site of
    /// LoRA's dropout.
    pub fn new(
        path: &nn::Path<'_>,
        inputs: i64,
        outputs: i64,
        shape: LoraShape,
        site: i64,
    ) -> Result<Self> {
        Ok(Self {
            a: variable(&below(path, "lora_A"), "weight", &[shape.rank, inputs])?,
            b: variable(&below(path, "lora_B"), "weight", &[outputs, shape.rank])?,
            scaling: shape.scaling,
            dropout: Dropout { probability: shape.dropout, site },
        })
    }

    /// Adds LoRA's output for `x [R, I]` to the dense layer's output `y [R, E]`, in place. `keys`
    /// holds a dropout key for each row.
    pub fn add(&self, mut y: Tensor, x: &Tensor, keys: Option<&Tensor>) -> Result<Tensor> {
        let (inner, kind) = (self.inner(x, keys)?, y.kind());
        Ok(y.f_addmm_(&inner.f_to_kind(kind)?, &self.b.f_to_kind(kind)?.f_tr()?)?)
    }

    /// Adds the LoRA outputs of several layers to `y`, in place and by one product. `y` holds the
    /// outputs of the layers side by side. Each of `parts` is a layer's LoRA and number of outputs.
    pub fn add_all(
        parts: &[(Option<&Self>, i64)],
        mut y: Tensor,
        x: &Tensor,
        keys: Option<&Tensor>,
    ) -> Result<Tensor> {
        let ranks = parts.iter().filter_map(|(lora, _)| *lora).map(Self::rank);
        let (all, mut before) = (ranks.sum::<i64>(), 0);
        let (mut inner, mut outer) = (vec![], vec![]);
        for (lora, outputs) in parts {
            let Some(lora) = lora else {
                outer.push(Tensor::f_zeros([*outputs, all], (Kind::Float, y.device()))?);
                continue;
            };
            inner.push(lora.inner(x, keys)?);
            outer.push(lora.b.f_constant_pad_nd([before, all - before - lora.rank()])?);
            before += lora.rank();
        }
        if inner.is_empty() {
            return Ok(y);
        }
        let (inner, kind) = (Tensor::f_cat(&inner, 1)?.f_to_kind(y.kind())?, y.kind());
        Ok(y.f_addmm_(&inner, &Tensor::f_cat(&outer, 0)?.f_to_kind(kind)?.f_tr()?)?)
    }

    fn rank(&self) -> i64 {
        self.a.size().first().copied().unwrap_or(0)
    }

    /// `scaling A dropout(x)`: `[R, r]`.
    fn inner(&self, x: &Tensor, keys: Option<&Tensor>) -> Result<Tensor> {
        let x = self.dropout.forward(x.shallow_clone(), keys)?;
        Ok(native::product(&x, &self.a, None)?.f_mul_scalar(self.scaling)?)
    }
}
