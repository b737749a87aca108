//! The models: what `config.json` describes, under the checkpoint's own names.

mod bert;
mod config;
mod head;
mod names;

pub use config::{Architecture, Dropouts, ModelConfig};
pub use head::cross_entropy;
pub use names::{Name, canonical, classify};

use crate::error::Result;
use crate::nn::Packed;
use bert::Bert;
use head::Head;
use tch::{Tensor, nn};

/// An encoder with a classification head: Hugging Face's `...ForSequenceClassification`.
#[derive(Debug)]
pub struct Classifier {
    encoder: Bert,
    head: Head,
}

impl Classifier {
    /// Places all tensors, zero-filled, in the store under their Hugging Face names.
    pub fn new(root: &nn::Path<'_>, config: &ModelConfig, num_labels: usize) -> Result<Self> {
        let encoder = match config.architecture {
            Architecture::Bert => Bert::new(root / "bert", config)?,
        };
        Ok(Self { encoder, head: Head::new(root, config, num_labels)? })
    }

    /// The logits, `[B, L]`.
    pub fn forward(&self, batch: &Packed) -> Result<Tensor> {
        let first = batch.first_rows()?;
        let pooled = self.encoder.forward(batch, &first)?;
        self.head.forward(pooled, first.keys.as_ref())
    }
}
