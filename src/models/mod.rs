//! The models that `config.json` describes, with the checkpoint's own names. `encoder.rs` and
//! `head.rs` hold what the architectures share. `spec.rs` says what may differ, and
//! `architectures/` has a file for each.

mod architectures;
mod config;
mod encoder;
mod head;
mod keys;
mod long_texts;
mod names;
mod saved;
mod sentence_transformers;
mod spec;
mod task;
mod term;

pub use architectures::{ARCHITECTURES, by_class, by_model_type};
pub use config::{Dropouts, ModelConfig};
pub use head::{Head, Shaping, TargetScale, TaskType, check_labels, sigmoid, softmax};
pub use keys::KeyVerdict;
pub use long_texts::{LongTexts, MOST_WINDOWS, Reading, WindowSettings};
pub use names::{Name, canonical, classify};
pub use sentence_transformers::{SENTENCE_FILES, declared_pooling};
pub use spec::{
    Architecture, ConfigKeys, EmbeddingNames, HeadSpec, LayerNames, Spec, TokenAlgorithm,
};
pub use task::{Task, largest};
pub use term::Term;

use crate::error::{Error, Result};
use crate::nn::{AdapterShape, LoraShape, Packed, PackedRows, Pooling, below};
pub use encoder::Checkpointed;
use encoder::Encoder;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor, nn};

/// The first dropout site of LoRA, above the sites of any model.
const LORA_SITES: i64 = 1 << 20;

/// An encoder with a classification head: Hugging Face's `...ForSequenceClassification`.
#[derive(Debug)]
pub struct Classifier {
    encoder: Encoder,
    pooling: Pooling,
    head: Head,
}

/// Whether `target`, of LoRA's `target_modules`, names the dense layer `name`: by its full name, or
/// by its last parts.
pub fn is_target(name: &str, target: &str) -> bool {
    name.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl Classifier {
    /// Places all tensors, zero-filled, in the store under their Hugging Face names.
    pub fn new(
        root: &nn::Path<'_>,
        config: &ModelConfig,
        num_labels: usize,
        pooling: Pooling,
    ) -> Result<Self> {
        let encoder = Encoder::new(root, config)?;
        Ok(Self { encoder, pooling, head: Head::new(root, config, num_labels, pooling)? })
    }

    /// The shapes of the encoder's tensors, including BERT's pooler, by canonical name.
    pub fn encoder_shapes(config: &ModelConfig) -> Result<BTreeMap<String, Vec<i64>>> {
        let store = nn::VarStore::new(Device::Cpu);
        Self::new(&store.root(), config, 1, Pooling::First)?;
        let variables = store.variables().into_iter();
        Ok(variables
            .filter(|(name, _)| !config.architecture.in_head(name))
            .map(|(name, tensor)| (name, tensor.size()))
            .collect())
    }

    /// Joins the query, key and value weights of each layer, so that they are one product. To be
    /// called once the weights are loaded.
    pub fn join(&mut self) -> Result<()> {
        self.encoder.join()
    }

    /// Converts the layers' dense weights, and so their products, to `kind`, except those that
    /// train.
    pub fn keep_in(&mut self, kind: Kind) -> Result<()> {
        self.encoder.keep_in(kind)
    }

    /// Adds LoRA to the dense layers of encoder and pooler that `targets` name, by full names or
    /// their last parts. Returns an error if a target names no dense layer.
    pub fn add_lora(
        &mut self,
        root: &nn::Path<'_>,
        config: &ModelConfig,
        targets: &[String],
        shape: LoraShape,
    ) -> Result<()> {
        let architecture = config.architecture;
        let mut layers = self.encoder.dense_layers(architecture);
        if let Some((pooler, dense)) = architecture.pooler().zip(self.head.dense_layer()) {
            layers.push((pooler.to_owned(), dense));
        }
        if let Some(target) =
            targets.iter().find(|target| !layers.iter().any(|(name, _)| is_target(name, target)))
        {
            let last = |(name, _): &(String, _)| name.rsplit('.').next().map(str::to_owned);
            let names: std::collections::BTreeSet<_> = layers.iter().filter_map(last).collect();
            let names: Vec<_> = names.into_iter().collect();
            return Err(Error::Usage(format!(
                "method.target_modules: found {target:?}, expected dense layers of the base, such as {}; the new head trains without LoRA",
                names.join(", ")
            )));
        }
        for (index, (name, layer)) in layers.into_iter().enumerate() {
            if targets.iter().any(|target| is_target(&name, target)) {
                layer.add_lora(&below(root, &name), shape, LORA_SITES + index as i64)?;
            }
        }
        Ok(())
    }

    /// Adds adapters to each layer of the encoder.
    pub fn add_adapters(
        &mut self,
        root: &nn::Path<'_>,
        config: &ModelConfig,
        shape: AdapterShape,
    ) -> Result<()> {
        self.encoder.add_adapters(root, config, shape)
    }

    /// The logits, `[B, L]`.
    pub fn forward(&self, batch: &Packed) -> Result<Tensor> {
        let first = batch.first_rows()?;
        let pooled = self.encoder.forward(batch, &first, self.pooling)?;
        self.head.forward(pooled, &first)
    }

    /// Takes biases and LayerNorm weights from the row of each sequence's task. `offset` says
    /// where the vector of a canonical name begins in its part of the row; the pooler is routed if
    /// its bias does.
    pub fn route(
        &mut self,
        config: &ModelConfig,
        offset: &dyn Fn(&str) -> Option<usize>,
    ) -> Result<()> {
        let size = usize::try_from(config.hidden_size).unwrap_or(0);
        self.encoder.route(config.architecture, size, offset)?;
        let pooler = config.architecture.pooler();
        if let Some(offset) = pooler.and_then(|pooler| offset(&format!("{pooler}.bias"))) {
            self.head.route_dense(offset);
        }
        Ok(())
    }

    /// The encoder's output for each sequence, `[B, H]`, pooled as `pooling` says. `first` are the
    /// first tokens as rows.
    pub fn encode(
        &self,
        batch: &Packed,
        first: &PackedRows<'_>,
        pooling: Pooling,
    ) -> Result<Tensor> {
        self.encoder.forward(batch, first, pooling)
    }

    /// The encoder's output for every token, `[T, H]`.
    pub fn encode_tokens(&self, batch: &Packed) -> Result<Tensor> {
        self.encoder.whole(batch)
    }

    /// The head's layers.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The input of layer `count`, `[T, H]`. `count` is less than the number of layers.
    pub fn lower(&self, batch: &Packed, count: usize) -> Result<Tensor> {
        self.encoder.lower(batch, count)
    }

    /// The logits, `[B, L]`, from the output of [`Classifier::lower`]. With `checkpointing`, the
    /// backward pass of the loss ends at the last layer's input, and the second value lets
    /// [`Classifier::backward`] continue from there.
    pub fn upper(
        &self,
        lower: Tensor,
        count: usize,
        batch: &Packed,
        checkpointing: bool,
    ) -> Result<(Tensor, Option<Checkpointed>)> {
        let first = batch.first_rows()?;
        let (encoded, checkpointed) = if checkpointing {
            let (encoded, inputs) =
                self.encoder.forward_checkpointed(lower, count, batch, &first, self.pooling)?;
            (encoded, Some(inputs))
        } else {
            (self.encoder.upper(lower, count, batch, &first, self.pooling)?, None)
        };
        Ok((self.head.forward(encoded, &first)?, checkpointed))
    }

    /// Backpropagates through the layers below the last. Each layer's forward pass is computed
    /// again.
    pub fn backward(&self, checkpointed: Checkpointed, batch: &Packed) -> Result<()> {
        self.encoder.backward(checkpointed, batch)
    }
}
