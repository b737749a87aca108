//! Scaled dot-product attention inside each sequence of a packed batch.

use super::{Dropout, PackedRows};
use crate::error::Result;
use crate::native;
use tch::Tensor;

/// Queries, keys and values of a layer.
#[derive(Debug)]
pub enum Projected {
    /// Queries, keys and values of every token: `[T, 3 H]`.
    All(Tensor),
    /// Queries of some rows, with keys and values of every token.
    Some {
        /// Queries of the rows: `[R, H]`.
        queries: Tensor,
        /// Keys and values of every token: `[T, 2 H]`.
        rest: Tensor,
    },
}

/// Multi-head attention without its projections.
#[derive(Debug)]
pub struct Attention {
    /// Number of heads, `N`.
    pub heads: i64,
    /// Dropout of the attention probabilities.
    pub dropout: Dropout,
}

impl Attention {
    /// The attention output, `[R, H]`. Each row attends to its own sequence alone.
    pub fn forward(
        &self,
        projected: &Projected,
        rows: &PackedRows<'_>,
        cu_seqlens: &[i64],
    ) -> Result<Tensor> {
        let (queries, rest) = match projected {
            Projected::All(rest) => (None, rest),
            Projected::Some { queries, rest } => (Some(queries), rest),
        };
        let dropped = self.dropout.of(rows.keys.as_ref());
        let starts = &rows.cu_seqlens;
        native::attention(queries, rest, starts, cu_seqlens, self.heads, dropped, rows.seed)
    }
}
