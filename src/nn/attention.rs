//! Scaled dot-product attention inside each sequence of a packed batch.

use super::{Dropout, Rows};
use crate::error::Result;
use tch::{Kind, Tensor};

/// Multi-head attention without its projections.
#[derive(Debug)]
pub struct Attention {
    /// Number of heads, `N`.
    pub heads: i64,
    /// Dropout of the attention probabilities.
    pub dropout: Dropout,
}

impl Attention {
    /// `q_RH` of the rows asked for, `k_TH` and `v_TH` of all tokens -> `[R, H]`. A row attends to its own sequence alone.
    pub fn forward(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        rows: &Rows<'_>,
        cu_seqlens: &[i64],
    ) -> Result<Tensor> {
        let sequences = cu_seqlens.len() - 1;
        let mut contexts = Vec::with_capacity(sequences);
        for b in 0..sequences {
            let (row, rows_end) = (rows.cu_seqlens[b], rows.cu_seqlens[b + 1]);
            let (token, tokens_end) = (cu_seqlens[b], cu_seqlens[b + 1]);
            let q = self.heads_first(q, row, rows_end - row)?;
            let k = self.heads_first(k, token, tokens_end - token)?;
            let v = self.heads_first(v, token, tokens_end - token)?;
            let keys =
                rows.keys.as_ref().map(|keys| keys.f_narrow(0, row, rows_end - row)).transpose()?;
            let context = if self.dropout.active(keys.as_ref()) {
                self.with_dropout(&q, &k, &v, keys.as_ref())?
            } else {
                Tensor::f_scaled_dot_product_attention(
                    &q,
                    &k,
                    &v,
                    None::<&Tensor>,
                    0.0,
                    false,
                    None,
                    false,
                )?
            };
            contexts.push(context.f_squeeze_dim(0)?.f_transpose(0, 1)?.f_flatten(1, 2)?);
        }
        Ok(Tensor::f_cat(&contexts, 0)?)
    }

    /// libtorch's fused kernels know no counter-based dropout, so the probabilities are made one step at a time.
    fn with_dropout(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        keys: Option<&Tensor>,
    ) -> Result<Tensor> {
        let scale = 1.0 / (*q.size().last().unwrap_or(&1) as f64).sqrt();
        let probabilities =
            q.f_mul_scalar(scale)?.f_matmul(&k.f_transpose(2, 3)?)?.f_softmax(-1, None::<Kind>)?;
        Ok(self.dropout.forward(probabilities, keys)?.f_matmul(v)?)
    }

    /// `length` rows of `x [_, H]` from `start` -> `[1, N, length, D]`.
    fn heads_first(&self, x: &Tensor, start: i64, length: i64) -> Result<Tensor> {
        Ok(x.f_narrow(0, start, length)?.f_view([1, length, self.heads, -1])?.f_transpose(1, 2)?)
    }
}
