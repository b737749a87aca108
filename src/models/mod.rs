//! The models: what `config.json` describes, under the checkpoint's own names. `encoder.rs` and `head.rs` are what they share;
//! `bert.rs`, `roberta.rs` and `distilbert.rs` are their differences.

mod architecture;
mod bert;
mod config;
mod distilbert;
mod encoder;
mod head;
mod names;
mod roberta;
mod saved;

pub use architecture::Architecture;
pub use config::{Dropouts, ModelConfig};
pub use head::{Shaping, TaskType};
pub use names::{Name, canonical, classify};
pub use saved::SavedTask;

use crate::error::Result;
use crate::nn::Packed;
use encoder::Encoder;
use head::Head;
use tch::{Tensor, nn};

/// An encoder with a classification head: Hugging Face's `...ForSequenceClassification`.
#[derive(Debug)]
pub struct Classifier {
    encoder: Encoder,
    head: Head,
}

impl Classifier {
    /// Places all tensors, zero-filled, in the store under their Hugging Face names.
    pub fn new(root: &nn::Path<'_>, config: &ModelConfig, num_labels: usize) -> Result<Self> {
        Ok(Self {
            encoder: Encoder::new(root, config)?,
            head: Head::new(root, config, num_labels)?,
        })
    }

    /// Lays the weights out for the products that they are used in, once they are loaded.
    pub fn join(&mut self) -> Result<()> {
        self.encoder.join()
    }

    /// The logits, `[B, L]`.
    pub fn forward(&self, batch: &Packed) -> Result<Tensor> {
        let first = batch.first_rows()?;
        let encoded = self.encoder.forward(batch, &first)?;
        self.head.forward(encoded, first.keys.as_ref())
    }
}
