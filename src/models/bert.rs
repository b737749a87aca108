//! BERT (Devlin et al., NAACL 2019), as Hugging Face's `BertForSequenceClassification` computes it.

use super::config::ModelConfig;
use crate::error::Result;
use crate::nn::{Activation, Attention, Dropout, Embedding, LayerNorm, Linear, Packed, Rows};
use tch::{Tensor, nn};

/// The encoder with its pooler.
#[derive(Debug)]
pub struct Bert {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    last: Layer,
    pooler: Linear,
}

impl Bert {
    /// Places the tensors in the store below `path`, in the checkpoint's order.
    pub fn new(path: nn::Path<'_>, config: &ModelConfig) -> Result<Self> {
        let embeddings = Embeddings::new(&path / "embeddings", config)?;
        let last = config.num_hidden_layers - 1;
        let layers = (0..last)
            .map(|i| Layer::new(&path / "encoder" / "layer" / i, config, i))
            .collect::<Result<_>>()?;
        let last = Layer::new(&path / "encoder" / "layer" / last, config, last)?;
        let pooler =
            Linear::new(path / "pooler" / "dense", config.hidden_size, config.hidden_size)?;
        Ok(Self { embeddings, layers, last, pooler })
    }

    /// The pooler's output, `[B, H]`; `first` are the batch's first tokens as rows.
    ///
    /// Only first tokens are read at the end, so the last layer computes keys and values for all tokens and everything else
    /// for the first ones alone.
    pub fn forward(&self, batch: &Packed, first: &Rows<'_>) -> Result<Tensor> {
        let mut x = self.embeddings.forward(batch)?;
        let all = batch.all_rows();
        for layer in &self.layers {
            x = layer.forward(&x, &x, &all, &batch.cu_seqlens)?;
        }
        let first_tokens = x.f_index_select(0, &batch.first)?;
        let first_tokens = self.last.forward(&first_tokens, &x, first, &batch.cu_seqlens)?;
        Ok(self.pooler.forward(&first_tokens)?.f_tanh()?)
    }
}

#[derive(Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    layer_norm: LayerNorm,
    dropout: Dropout,
}

impl Embeddings {
    fn new(path: nn::Path<'_>, config: &ModelConfig) -> Result<Self> {
        let hidden = config.hidden_size;
        Ok(Self {
            word_embeddings: Embedding::new(&path / "word_embeddings", config.vocab_size, hidden)?,
            position_embeddings: Embedding::new(
                &path / "position_embeddings",
                config.max_position_embeddings,
                hidden,
            )?,
            token_type_embeddings: Embedding::new(
                &path / "token_type_embeddings",
                config.type_vocab_size,
                hidden,
            )?,
            layer_norm: LayerNorm::new(path / "LayerNorm", hidden, config.layer_norm_eps)?,
            dropout: Dropout { probability: config.dropouts.hidden, site: 0 },
        })
    }

    fn forward(&self, batch: &Packed) -> Result<Tensor> {
        let words = self.word_embeddings.forward(&batch.input_ids)?;
        let types = self.token_type_embeddings.forward(&batch.token_type_ids)?;
        let positions = self.position_embeddings.forward(&batch.position_ids)?;
        let x = self.layer_norm.forward(&words.f_add(&types)?.f_add(&positions)?)?;
        self.dropout.forward(x, batch.dropout_keys.as_ref())
    }
}

#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention: Attention,
    attention_output: Output,
    intermediate: Linear,
    activation: Activation,
    output: Output,
}

impl Layer {
    fn new(path: nn::Path<'_>, config: &ModelConfig, index: i64) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let site = 3 * index + 1;
        let attention = &path / "attention";
        let projection = |name| Linear::new(&attention / "self" / name, hidden, hidden);
        Ok(Self {
            query: projection("query")?,
            key: projection("key")?,
            value: projection("value")?,
            attention: Attention {
                heads: config.num_attention_heads,
                dropout: Dropout { probability: config.dropouts.attention, site },
            },
            attention_output: Output::new(&attention / "output", config, hidden, site + 1)?,
            intermediate: Linear::new(&path / "intermediate" / "dense", hidden, inner)?,
            activation: config.hidden_act,
            output: Output::new(path / "output", config, inner, site + 2)?,
        })
    }

    /// `x_RH`, the rows to compute, of the sequences `all_TH` -> `[R, H]`.
    fn forward(
        &self,
        x: &Tensor,
        all: &Tensor,
        rows: &Rows<'_>,
        cu_seqlens: &[i64],
    ) -> Result<Tensor> {
        let query = self.query.forward(x)?;
        let (key, value) = (self.key.forward(all)?, self.value.forward(all)?);
        let context = self.attention.forward(&query, &key, &value, rows, cu_seqlens)?;
        let x = self.attention_output.forward(&context, x, rows)?;
        let inner = self.activation.forward(&self.intermediate.forward(&x)?)?;
        self.output.forward(&inner, &x, rows)
    }
}

/// Dense, dropout, residual, LayerNorm: how both halves of a layer end.
#[derive(Debug)]
struct Output {
    dense: Linear,
    dropout: Dropout,
    layer_norm: LayerNorm,
}

impl Output {
    fn new(path: nn::Path<'_>, config: &ModelConfig, inputs: i64, site: i64) -> Result<Self> {
        Ok(Self {
            dense: Linear::new(&path / "dense", inputs, config.hidden_size)?,
            dropout: Dropout { probability: config.dropouts.hidden, site },
            layer_norm: LayerNorm::new(
                path / "LayerNorm",
                config.hidden_size,
                config.layer_norm_eps,
            )?,
        })
    }

    fn forward(&self, x: &Tensor, residual: &Tensor, rows: &Rows<'_>) -> Result<Tensor> {
        let x = self.dropout.forward(self.dense.forward(x)?, rows.keys.as_ref())?;
        self.layer_norm.forward(&x.f_add(residual)?)
    }
}
