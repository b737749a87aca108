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
pub use encoder::Kept;
use head::Head;
use tch::{Kind, Tensor, nn};

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

    /// Keeps the layers' weights in `weights`, those that train aside, and what layers take and give in `kind`.
    pub fn set_kinds(&mut self, weights: Kind, kind: Kind) -> Result<()> {
        self.encoder.set_kinds(weights, kind)
    }

    /// What layers take and give.
    pub fn kind(&self) -> Kind {
        self.encoder.kind()
    }

    /// The logits, `[B, L]`.
    pub fn forward(&self, batch: &Packed) -> Result<Tensor> {
        let first = batch.first_rows()?;
        let encoded = self.encoder.forward(batch, &first)?;
        self.head.forward(encoded, first.keys.as_ref())
    }

    /// What goes into the layer `count`, `[T, H]`; all layers but the last at most are below it.
    pub fn lower(&self, batch: &Packed, count: usize) -> Result<Tensor> {
        self.encoder.lower(batch, count)
    }

    /// The logits from what [`Classifier::lower`] gives; `sparing`, with what [`Classifier::backward`] needs to go on below the last
    /// layer, from which backward goes no further by itself.
    pub fn upper(
        &self,
        lower: Tensor,
        count: usize,
        batch: &Packed,
        sparing: bool,
    ) -> Result<(Tensor, Option<Kept>)> {
        let first = batch.first_rows()?;
        let (encoded, kept) = if sparing {
            let (encoded, kept) = self.encoder.upper_sparing(lower, count, batch, &first)?;
            (encoded, Some(kept))
        } else {
            (self.encoder.upper(lower, count, batch, &first)?, None)
        };
        Ok((self.head.forward(encoded, first.keys.as_ref())?, kept))
    }

    /// Backward through the layers below the last, computed again one by one.
    pub fn backward(&self, kept: Kept, batch: &Packed) -> Result<()> {
        self.encoder.backward(kept, batch)
    }
}
