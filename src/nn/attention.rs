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
        // Split at once: the backward pass of a slice each would write, and add, a whole gradient per sequence.
        let (row_counts, token_counts) = (lengths(&rows.cu_seqlens), lengths(cu_seqlens));
        let (q, k) = (split(q, &row_counts)?, split(k, &token_counts)?);
        let v = split(v, &token_counts)?;
        let keys = rows.keys.as_ref().map(|keys| split(keys, &row_counts)).transpose()?;
        let mut contexts = Vec::with_capacity(q.len());
        for (b, ((q, k), v)) in q.iter().zip(&k).zip(&v).enumerate() {
            let (q, k, v) = (self.heads_first(q)?, self.heads_first(k)?, self.heads_first(v)?);
            let keys = keys.as_ref().and_then(|keys| keys.get(b));
            let context = if self.dropout.active(keys) {
                self.with_dropout(&q, &k, &v, keys)?
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

    /// `x [L, H]` -> `[1, N, L, D]`.
    fn heads_first(&self, x: &Tensor) -> Result<Tensor> {
        let rows = x.size().first().copied().unwrap_or(0);
        Ok(x.f_view([1, rows, self.heads, -1])?.f_transpose(1, 2)?)
    }
}

/// The lengths of the sequences that start, and the last one ends, at `cu_seqlens`.
fn lengths(cu_seqlens: &[i64]) -> Vec<i64> {
    cu_seqlens.iter().zip(cu_seqlens.iter().skip(1)).map(|(start, end)| end - start).collect()
}

/// The rows of each sequence.
fn split(x: &Tensor, lengths: &[i64]) -> Result<Vec<Tensor>> {
    Ok(x.f_split_with_sizes(lengths, 0)?)
}
