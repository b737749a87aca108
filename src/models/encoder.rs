//! The encoder that all architectures share: embeddings, then layers of attention and feedforward,
//! each half ending in a residual and LayerNorm.

mod checkpointing;

pub use checkpointing::Checkpointed;

use super::config::{Dropouts, ModelConfig};
use super::spec::Architecture;
use super::term::Term;
use crate::error::{Error, Result};
use crate::nn::{
    Activation, Adapter, AdapterShape, Attention, Dropout, Embedding, Hidden, Joined, LayerNorm,
    Linear, Packed, PackedRows, Pooling, Projected, below, mean,
};
use tch::{Kind, Tensor, nn};

/// An encoder.
#[derive(Debug)]
pub struct Encoder {
    embeddings: Embeddings,
    layers: Vec<EncoderLayer>,
    last: EncoderLayer,
}

impl Encoder {
    /// Places the tensors in the store under their canonical names.
    pub fn new(root: &nn::Path<'_>, config: &ModelConfig) -> Result<Self> {
        let embeddings = Embeddings::new(root, config)?;
        let layer = |index| EncoderLayer::new(root, config, index);
        let last = usize::try_from(config.num_hidden_layers - 1).unwrap_or(0);
        let layers = (0..last).map(layer).collect::<Result<_>>()?;
        Ok(Self { embeddings, layers, last: layer(last)? })
    }

    /// All layers, from the lowest up, with their numbers.
    fn layers_mut(&mut self) -> impl Iterator<Item = (usize, &mut EncoderLayer)> {
        self.layers.iter_mut().chain([&mut self.last]).enumerate()
    }

    /// Joins the query, key and value weights of each layer, so that they are one product.
    pub fn join(&mut self) -> Result<()> {
        self.layers_mut().try_for_each(|(_, layer)| layer.projections.join())
    }

    /// Converts the layers' dense weights, and so their products, to `kind`, except those that
    /// train.
    pub fn keep_in(&mut self, kind: Kind) -> Result<()> {
        self.layers_mut().try_for_each(|(_, layer)| layer.keep_in(kind))
    }

    /// The dense layers with their canonical names, in the order of the computation.
    pub fn dense_layers(&mut self, architecture: Architecture) -> Vec<(String, &mut Linear)> {
        let named = |(index, layer): (usize, _)| {
            EncoderLayer::dense_layers(layer)
                .map(move |(term, linear)| (architecture.module(term, index), linear))
        };
        self.layers_mut().flat_map(named).collect()
    }

    /// The LayerNorms with their canonical names.
    fn layer_norms(&mut self, architecture: Architecture) -> Vec<(String, &mut LayerNorm)> {
        let Self { embeddings, layers, last, .. } = self;
        let mut norms = vec![(0, (Term::EmbeddingsLayerNorm, &mut embeddings.layer_norm))];
        for (index, layer) in layers.iter_mut().chain([last]).enumerate() {
            norms.extend(layer.layer_norms().map(|norm| (index, norm)));
        }
        let named = |(index, (term, norm))| (architecture.module(term, index), norm);
        norms.into_iter().map(named).collect()
    }

    /// Takes biases and LayerNorm weights from the row of each sequence's task. `offset` says
    /// where the vector of a canonical name begins in its part of the row.
    pub fn route(
        &mut self,
        architecture: Architecture,
        size: usize,
        offset: &dyn Fn(&str) -> Option<usize>,
    ) -> Result<()> {
        let offset = |name: String| {
            offset(&name).ok_or_else(|| Error::Bug(format!("{name} is no vector of the base")))
        };
        for (name, linear) in self.dense_layers(architecture) {
            linear.route(offset(format!("{name}.bias"))?);
        }
        for (name, norm) in self.layer_norms(architecture) {
            let [weight, bias] = ["weight", "bias"].map(|leaf| offset(format!("{name}.{leaf}")));
            norm.route(weight?, bias?, size);
        }
        Ok(())
    }

    /// Places adapters in the store and in each layer.
    pub fn add_adapters(
        &mut self,
        root: &nn::Path<'_>,
        config: &ModelConfig,
        shape: AdapterShape,
    ) -> Result<()> {
        let architecture = config.architecture;
        for (index, layer) in self.layers_mut() {
            for (term, module) in architecture.layer.adapters() {
                let output = match term {
                    Term::AttentionOutput if !shape.after_attention => continue,
                    Term::AttentionOutput => &mut layer.attention_output,
                    _ => &mut layer.output,
                };
                let path = below(root, &architecture.in_layer(index, module));
                output.adapter = Some(Adapter::new(&path, config.hidden_size, shape)?);
            }
        }
        Ok(())
    }

    /// The output of the last layer for each sequence, `[B, H]`, pooled as `pooling` says. `first`
    /// holds the first tokens as rows.
    pub fn forward(
        &self,
        batch: &Packed,
        first: &PackedRows<'_>,
        pooling: Pooling,
    ) -> Result<Tensor> {
        self.upper(self.lower(batch, 0)?, 0, batch, first, pooling)
    }

    /// The output of the last layer for every token, `[T, H]`.
    pub fn whole(&self, batch: &Packed) -> Result<Tensor> {
        let x = self.lower(batch, self.layers.len())?;
        Ok(self.last.whole(&Hidden::new(x), batch, &batch.all_rows())?.full)
    }

    /// The input of layer `count`, `[T, H]`: the output of the embeddings and `count` layers.
    /// `count` is less than the number of layers.
    pub fn lower(&self, batch: &Packed, count: usize) -> Result<Tensor> {
        let mut x = Hidden::new(self.embeddings.forward(batch)?);
        let all = batch.all_rows();
        for layer in self.layers.iter().take(count) {
            x = layer.whole(&x, batch, &all)?;
        }
        Ok(x.full)
    }

    /// The rest of [`Encoder::forward`], from the output of [`Encoder::lower`].
    pub fn upper(
        &self,
        lower: Tensor,
        count: usize,
        batch: &Packed,
        first: &PackedRows<'_>,
        pooling: Pooling,
    ) -> Result<Tensor> {
        let mut x = Hidden::new(lower);
        let all = batch.all_rows();
        for layer in self.layers.iter().skip(count) {
            x = layer.whole(&x, batch, &all)?;
        }
        self.last(&x, batch, first, pooling)
    }

    /// Runs the last layer and pools its output. For a head that reads first tokens, keys and
    /// values are computed for all tokens, and everything else for the first tokens alone.
    fn last(
        &self,
        x: &Hidden,
        batch: &Packed,
        first: &PackedRows<'_>,
        pooling: Pooling,
    ) -> Result<Tensor> {
        let all = batch.all_rows();
        if pooling == Pooling::Mean {
            return mean(&self.last.whole(x, batch, &all)?.full, batch);
        }
        let first_tokens = Hidden::new(x.full.f_index_select(0, &batch.first)?);
        let projections = &self.last.projections;
        let query = projections.part(QUERY).ok_or_else(|| Error::Bug("no query".into()))?;
        let projected = Projected::Some {
            queries: query.forward(first_tokens.input(), first)?,
            rest: projections.forward(x.input(), QUERY + 1, &all)?,
        };
        Ok(self.last.forward(&projected, &first_tokens, first, &batch.cu_seqlens)?.full)
    }
}

#[derive(Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    /// The padding id, if positions start after it.
    padding: Option<i64>,
    token_type_embeddings: Option<Embedding>,
    layer_norm: LayerNorm,
    dropout: Dropout,
}

impl Embeddings {
    fn new(root: &nn::Path<'_>, config: &ModelConfig) -> Result<Self> {
        let (architecture, names) = (config.architecture, &config.architecture.embeddings);
        let table = |name, entries, padding| {
            let path = below(root, &architecture.embedding(name));
            Embedding::new(path, entries, config.hidden_size, padding)
        };
        let norm = below(root, &architecture.embedding(names.layer_norm));
        Ok(Self {
            word_embeddings: table(names.word, config.vocab_size, config.pad_token_id)?,
            position_embeddings: table(
                names.position,
                config.max_position_embeddings,
                config.padding,
            )?,
            padding: config.padding,
            token_type_embeddings: names
                .token_type
                .map(|name| table(name, config.type_vocab_size, None))
                .transpose()?,
            layer_norm: LayerNorm::new(norm, config.hidden_size, config.layer_norm_eps)?,
            dropout: Dropout { probability: config.dropouts.hidden, site: 0 },
        })
    }

    fn forward(&self, batch: &Packed) -> Result<Tensor> {
        let mut x = self.word_embeddings.forward(&batch.input_ids)?;
        if let Some(types) = &self.token_type_embeddings {
            x = x.f_add(&types.forward(&batch.token_type_ids)?)?;
        }
        let positions = match self.padding {
            None => self.position_embeddings.forward(&batch.position_ids)?,
            Some(padding) => self.position_embeddings.forward(&after_padding(batch, padding)?)?,
        };
        let x = self.layer_norm.forward(&x.f_add(&positions)?, &batch.all_rows())?;
        self.dropout.forward(x, batch.dropout_keys.as_ref())
    }
}

/// RoBERTa's positions, int64 `[T]`. Positions start at `padding + 1`. A padding token, which a
/// text may contain, is at position `padding` and is not counted.
fn after_padding(batch: &Packed, padding: i64) -> Result<Tensor> {
    let ids = &batch.input_ids;
    let counted = ids.f_ne(padding)?.f_to_kind(Kind::Int64)?;
    let through = counted.f_cumsum(0, Kind::Int64)?;
    // Number of tokens counted in earlier sequences: the cumulative sum at each sequence's first
    // token, without this token.
    let starts = Tensor::f_arange(ids.numel() as i64, (Kind::Int64, ids.device()))?;
    let starts = starts.f_sub(&batch.position_ids)?;
    let before = through.f_sub(&counted)?.f_index_select(0, &starts)?;
    Ok(through.f_sub(&before)?.f_mul(&counted)?.f_add_scalar(padding)?)
}

/// A layer's projections, which are one product.
const PROJECTIONS: [Term; 3] = [Term::Query, Term::Key, Term::Value];

/// The index of the query in [`PROJECTIONS`].
const QUERY: usize = 0;

/// A layer: attention, then the feedforward.
#[derive(Debug)]
struct EncoderLayer {
    /// Query, key, value.
    projections: Joined,
    attention: Attention,
    attention_output: HalfEnd,
    intermediate: Linear,
    activation: Activation,
    output: HalfEnd,
}

impl EncoderLayer {
    fn new(root: &nn::Path<'_>, config: &ModelConfig, index: usize) -> Result<Self> {
        let path = |term| below(root, &config.architecture.module(term, index));
        let linear =
            |term| Linear::new(path(term), config.inputs_of(term), config.outputs_of(term));
        let end = |dense, norm, probability, site| -> Result<HalfEnd> {
            let (size, eps) = (config.outputs_of(norm), config.layer_norm_eps);
            Ok(HalfEnd {
                dense: linear(dense)?,
                dropout: Dropout { probability, site },
                layer_norm: LayerNorm::new(path(norm), size, eps)?,
                adapter: None,
            })
        };
        let Dropouts { hidden, attention, .. } = config.dropouts;
        let after_attention =
            if config.architecture.attention_output_dropout { hidden } else { 0.0 };
        let site = 3 * index as i64 + 1;
        Ok(Self {
            projections: Joined::new(PROJECTIONS.into_iter().map(linear).collect::<Result<_>>()?),
            attention: Attention {
                heads: config.num_attention_heads,
                dropout: Dropout { probability: attention, site },
            },
            attention_output: end(
                Term::AttentionOutput,
                Term::AttentionLayerNorm,
                after_attention,
                site + 1,
            )?,
            intermediate: linear(Term::Intermediate)?,
            activation: config.hidden_act,
            output: end(Term::Output, Term::OutputLayerNorm, hidden, site + 2)?,
        })
    }

    fn keep_in(&mut self, kind: Kind) -> Result<()> {
        self.dense_layers().try_for_each(|(_, linear)| linear.keep_in(kind))?;
        self.projections.join_frozen()
    }

    /// Runs the layer on all tokens: `x_TH` -> `[T, H]`.
    fn whole(&self, x: &Hidden, batch: &Packed, all: &PackedRows<'_>) -> Result<Hidden> {
        let projected = Projected::All(self.projections.forward(x.input(), QUERY, all)?);
        self.forward(&projected, x, all, &batch.cu_seqlens)
    }

    /// Runs the layer on the given rows: `x_RH` -> `[R, H]`.
    fn forward(
        &self,
        projected: &Projected,
        x: &Hidden,
        rows: &PackedRows<'_>,
        cu_seqlens: &[i64],
    ) -> Result<Hidden> {
        let context = self.attention.forward(projected, rows, cu_seqlens)?;
        let x = self.attention_output.forward(&context, &x.full, rows)?;
        let inner = self.intermediate.activated(x.input(), self.activation, rows)?;
        self.output.forward(&inner, &x.full, rows)
    }

    /// The dense layers, in the order of the computation.
    fn dense_layers(&mut self) -> impl Iterator<Item = (Term, &mut Linear)> {
        PROJECTIONS.into_iter().zip(self.projections.parts_mut()).chain([
            (Term::AttentionOutput, &mut self.attention_output.dense),
            (Term::Intermediate, &mut self.intermediate),
            (Term::Output, &mut self.output.dense),
        ])
    }

    fn layer_norms(&mut self) -> [(Term, &mut LayerNorm); 2] {
        [
            (Term::AttentionLayerNorm, &mut self.attention_output.layer_norm),
            (Term::OutputLayerNorm, &mut self.output.layer_norm),
        ]
    }
}

/// The end of each half of a layer: dense, dropout, residual, LayerNorm.
#[derive(Debug)]
struct HalfEnd {
    dense: Linear,
    dropout: Dropout,
    layer_norm: LayerNorm,
    /// The adapter that follows the dropout.
    adapter: Option<Adapter>,
}

impl HalfEnd {
    fn forward(&self, x: &Tensor, residual: &Tensor, rows: &PackedRows<'_>) -> Result<Hidden> {
        let Some(adapter) = &self.adapter else {
            return self.dense.normalized(x, self.dropout, rows, residual, &self.layer_norm);
        };
        let x = self.dropout.forward(self.dense.forward(x, rows)?, rows.keys.as_ref())?;
        adapter.normalized(&x, residual, &self.layer_norm, rows)
    }
}
