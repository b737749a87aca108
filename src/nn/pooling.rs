//! Pooling: one vector for each sequence, from the output of the last layer, and one row of logits
//! for each text, from those of its windows.

use super::Packed;
use crate::error::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// How the head reads a sequence from the output of the last layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first token, as in transformers' `...ForSequenceClassification`.
    #[default]
    First,
    /// The mean over all tokens, special tokens included, as in sentence-transformers.
    Mean,
}

impl Pooling {
    /// Whether the head reads the first token.
    pub fn is_first(&self) -> bool {
        *self == Self::First
    }
}

/// Formats what the head reads.
impl std::fmt::Display for Pooling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::First => "the first token",
            Self::Mean => "the mean of all tokens",
        })
    }
}

/// The mean of `x_TH` over the tokens of each sequence of `batch`, `[B, H]`. There is a row for
/// each row of [`Packed::first`], of which those after the batch's sequences mean nothing.
pub fn mean(x: &Tensor, batch: &Packed) -> Result<Tensor> {
    let starts = batch.cu_seqlens.iter();
    let lengths: Vec<i64> = starts.clone().zip(starts.skip(1)).map(|(a, b)| b - a).collect();
    let sequences = lengths.len() as i64;
    let lengths = Tensor::f_from_slice(&lengths)?.f_to_device(x.device())?;
    let none = None::<&Tensor>;
    // Sums run over one sequence after the other, so a text's mean does not depend on the batch.
    let means = Tensor::f_segment_reduce(x, "mean", Some(&lengths), none, none, 0, false, 0.0)?;
    let rows = batch.first.numel() as i64;
    if rows <= sequences {
        return Ok(means.f_narrow(0, 0, rows)?);
    }
    let last = sequences.checked_sub(1).ok_or_else(|| Error::Bug("an empty batch".into()))?;
    let rows: Vec<i64> = (0..rows).map(|row| row.min(last)).collect();
    Ok(means.f_index_select(0, &Tensor::f_from_slice(&rows)?.f_to_device(x.device())?)?)
}

/// How the logits of a text's windows become those of the text.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Deserialize,
    Serialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum WindowPooling {
    /// The mean of each logit over the windows.
    #[default]
    Mean,
    /// The highest of each logit over the windows.
    Max,
}

impl WindowPooling {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Max => "max",
        }
    }

    /// The logits of each text, `[B, L]`, from those of all windows. `windows` has the number of
    /// windows of each text, in order.
    pub fn pool(self, logits: &Tensor, windows: &[i64]) -> Result<Tensor> {
        let lengths = Tensor::f_from_slice(windows)?.f_to_device(logits.device())?;
        let none = None::<&Tensor>;
        let (name, start) = match self {
            Self::Mean => ("mean", 0.0),
            Self::Max => ("max", f64::NEG_INFINITY),
        };
        Ok(Tensor::f_segment_reduce(logits, name, Some(&lengths), none, none, 0, false, start)?)
    }
}
