//! Classification heads and the loss.

use super::config::ModelConfig;
use crate::error::Result;
use crate::nn::{Dropout, Linear};
use tch::{Reduction, Tensor, nn};

/// BERT's head: dropout, then `classifier`, on the pooler's output.
#[derive(Debug)]
pub struct Head {
    dropout: Dropout,
    classifier: Linear,
}

impl Head {
    /// Places `classifier.weight [L, H]` and `classifier.bias [L]` in the store.
    pub fn new(root: &nn::Path<'_>, config: &ModelConfig, num_labels: usize) -> Result<Self> {
        let labels = i64::try_from(num_labels).unwrap_or(i64::MAX);
        let site = 3 * config.num_hidden_layers + 1;
        let probability = config.dropouts.classifier.unwrap_or(config.dropouts.hidden);
        Ok(Self {
            dropout: Dropout { probability, site },
            classifier: Linear::new(root / "classifier", config.hidden_size, labels)?,
        })
    }

    /// `pooled_BH` -> logits `[B, L]`; `keys [B]` as in [`Dropout::forward`].
    pub fn forward(&self, pooled: Tensor, keys: Option<&Tensor>) -> Result<Tensor> {
        self.classifier.forward(&self.dropout.forward(pooled, keys)?)
    }
}

/// Cross entropy summed over the rows, in nats, divided by `rows` (the batch's global count): `logits_BL`, `labels_B` int64.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, rows: usize) -> Result<Tensor> {
    let sum = logits.f_cross_entropy_loss(labels, None::<&Tensor>, Reduction::Sum, -100, 0.0)?;
    Ok(sum.f_div_scalar(rows as f64)?)
}
