//! The encoder that all architectures share: embeddings, then layers of attention and feedforward,
//! each half ending in a residual and LayerNorm.

mod sparing;

pub use sparing::Kept;

use super::architecture::{LayerNames, Spec};
use super::config::ModelConfig;
use crate::error::{Error, Result};
use crate::nn::{
    Activation, Adapter, AdapterShape, Attention, Dropout, Embedding, Joined, LayerNorm, Linear,
    Packed, Projected, Rows, below,
};
use tch::{Kind, Tensor, nn};

/// An encoder.
#[derive(Debug)]
pub struct Encoder {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    last: Layer,
    /// The dtype of the layers' inputs and outputs.
    kind: Kind,
}

impl Encoder {
    /// Places the tensors in the store below the architecture's prefix.
    pub fn new(root: &nn::Path<'_>, config: &ModelConfig) -> Result<Self> {
        let spec = config.architecture.spec();
        let path = root / spec.prefix;
        let embeddings = Embeddings::new(&path / "embeddings", spec, config)?;
        let layer = |index| Layer::new(below(&path, spec.layers) / index, spec, config, index);
        let last = config.num_hidden_layers - 1;
        let layers = (0..last).map(layer).collect::<Result<_>>()?;
        Ok(Self { embeddings, layers, last: layer(last)?, kind: Kind::Float })
    }

    /// Joins the query, key and value weights of each layer, so that they are one product.
    pub fn join(&mut self) -> Result<()> {
        let mut layers = self.layers.iter_mut().chain([&mut self.last]);
        layers.try_for_each(|layer| layer.projections.join())
    }

    /// Converts the layers' dense weights to `weights`, except those that train, and the layers'
    /// inputs and outputs to `kind`.
    pub fn set_kinds(&mut self, weights: Kind, kind: Kind) -> Result<()> {
        self.kind = kind;
        let mut layers = self.layers.iter_mut().chain([&mut self.last]);
        layers.try_for_each(|layer| layer.keep_in(weights))
    }

    /// The dtype of the layers' inputs and outputs.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The dense layers with their full names, in the order of the computation.
    pub fn dense_layers(&mut self, spec: &Spec) -> Vec<(String, &mut Linear)> {
        let named = |(index, layer): (usize, _)| {
            let path = format!("{}.{}.{index}", spec.prefix, spec.layers);
            Layer::dense_layers(layer, &spec.layer)
                .map(move |(name, layer)| (format!("{path}.{name}"), layer))
        };
        self.layers.iter_mut().chain([&mut self.last]).enumerate().flat_map(named).collect()
    }

    /// The LayerNorms with their full names.
    fn layer_norms(&mut self, spec: &Spec) -> Vec<(String, &mut LayerNorm)> {
        let embeddings = format!("{}.embeddings.LayerNorm", spec.prefix);
        let mut norms = vec![(embeddings, &mut self.embeddings.layer_norm)];
        for (index, layer) in self.layers.iter_mut().chain([&mut self.last]).enumerate() {
            let name = |norm| format!("{}.{}.{index}.{norm}", spec.prefix, spec.layers);
            norms.push((name(spec.layer.attention_norm), &mut layer.attention_output.layer_norm));
            norms.push((name(spec.layer.output_norm), &mut layer.output.layer_norm));
        }
        norms
    }

    /// Takes biases and LayerNorm weights from the values of each sequence's task. `offset` says
    /// where the vector of a canonical name begins there.
    pub fn route(
        &mut self,
        spec: &Spec,
        size: usize,
        offset: &dyn Fn(&str) -> Option<usize>,
    ) -> Result<()> {
        let offset = |name: String| {
            offset(&name).ok_or_else(|| Error::Bug(format!("{name} is no vector of the base")))
        };
        for (name, linear) in self.dense_layers(spec) {
            linear.route(offset(format!("{name}.bias"))?);
        }
        for (name, norm) in self.layer_norms(spec) {
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
        let spec = config.architecture.spec();
        let path = below(&(root / spec.prefix), spec.layers);
        let layers = self.layers.iter_mut().chain([&mut self.last]);
        for (index, layer) in layers.enumerate() {
            let adapter = |name| {
                Adapter::new(&below(&(&path / index), name), config.hidden_size, shape).map(Some)
            };
            if shape.after_attention {
                layer.attention_output.adapter = adapter(spec.layer.attention_adapter)?;
            }
            layer.output.adapter = adapter(spec.layer.output_adapter)?;
        }
        Ok(())
    }

    /// The last layer's output for each sequence's first token, `[B, H]`. `first` holds these
    /// tokens as rows.
    pub fn forward(&self, batch: &Packed, first: &Rows<'_>) -> Result<Tensor> {
        self.upper(self.lower(batch, 0)?, 0, batch, first)
    }

    /// The input of layer `count`, `[T, H]`: the output of the embeddings and `count` layers.
    /// `count` is less than the number of layers.
    pub fn lower(&self, batch: &Packed, count: usize) -> Result<Tensor> {
        let mut x = self.embeddings.forward(batch)?.f_to_kind(self.kind)?;
        let all = batch.all_rows();
        for layer in self.layers.iter().take(count) {
            x = layer.whole(&x, batch, &all)?;
        }
        Ok(x)
    }

    /// The rest of [`Encoder::forward`], from the output of [`Encoder::lower`].
    pub fn upper(
        &self,
        mut x: Tensor,
        count: usize,
        batch: &Packed,
        first: &Rows<'_>,
    ) -> Result<Tensor> {
        let all = batch.all_rows();
        for layer in self.layers.iter().skip(count) {
            x = layer.whole(&x, batch, &all)?;
        }
        self.last(&x, batch, first)
    }

    /// Runs the last layer. The head reads only first tokens, so keys and values are computed for
    /// all tokens, and everything else for the first tokens alone.
    fn last(&self, x: &Tensor, batch: &Packed, first: &Rows<'_>) -> Result<Tensor> {
        let all = batch.all_rows();
        let first_tokens = x.f_index_select(0, &batch.first)?;
        let projections = &self.last.projections;
        let query = projections.part(QUERY).ok_or_else(|| Error::Bug("no query".into()))?;
        let projected = Projected::Some {
            queries: query.forward(&first_tokens, first)?,
            rest: projections.forward(x, QUERY + 1, &all)?,
        };
        let x = self.last.forward(&projected, &first_tokens, first, &batch.cu_seqlens)?;
        Ok(x.f_to_kind(Kind::Float)?)
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
    fn new(path: nn::Path<'_>, spec: &Spec, config: &ModelConfig) -> Result<Self> {
        let table = |name, entries, padding| {
            Embedding::new(&path / name, entries, config.hidden_size, padding)
        };
        Ok(Self {
            word_embeddings: table("word_embeddings", config.vocab_size, config.pad_token_id)?,
            position_embeddings: table(
                "position_embeddings",
                config.max_position_embeddings,
                config.padding,
            )?,
            padding: config.padding,
            token_type_embeddings: spec
                .token_types
                .then(|| table("token_type_embeddings", config.type_vocab_size, None))
                .transpose()?,
            layer_norm: LayerNorm::new(
                &path / "LayerNorm",
                config.hidden_size,
                config.layer_norm_eps,
            )?,
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

/// The index of the query among a layer's projections. Key and value follow.
const QUERY: usize = 0;

#[derive(Debug)]
struct Layer {
    /// Query, key, value.
    projections: Joined,
    attention: Attention,
    attention_output: Output,
    intermediate: Linear,
    activation: Activation,
    output: Output,
}

impl Layer {
    fn new(path: nn::Path<'_>, spec: &Spec, config: &ModelConfig, index: i64) -> Result<Self> {
        let (hidden, inner, names) = (config.hidden_size, config.intermediate_size, &spec.layer);
        let site = 3 * index + 1;
        let linear = |name, inputs, outputs| Linear::new(below(&path, name), inputs, outputs);
        let output = |dense, norm, inputs, probability, site| -> Result<Output> {
            Ok(Output {
                dense: linear(dense, inputs, hidden)?,
                dropout: Dropout { probability, site },
                layer_norm: LayerNorm::new(below(&path, norm), hidden, config.layer_norm_eps)?,
                adapter: None,
            })
        };
        let attention_dropout =
            if spec.attention_output_dropout { config.dropouts.hidden } else { 0.0 };
        Ok(Self {
            projections: Joined::new(vec![
                linear(names.query, hidden, hidden)?,
                linear(names.key, hidden, hidden)?,
                linear(names.value, hidden, hidden)?,
            ]),
            attention: Attention {
                heads: config.num_attention_heads,
                dropout: Dropout { probability: config.dropouts.attention, site },
            },
            attention_output: output(
                names.attention_output,
                names.attention_norm,
                hidden,
                attention_dropout,
                site + 1,
            )?,
            intermediate: linear(names.intermediate, hidden, inner)?,
            activation: config.hidden_act,
            output: output(
                names.output,
                names.output_norm,
                inner,
                config.dropouts.hidden,
                site + 2,
            )?,
        })
    }

    fn keep_in(&mut self, kind: Kind) -> Result<()> {
        self.projections.keep_in(kind)?;
        let dense =
            [&mut self.attention_output.dense, &mut self.intermediate, &mut self.output.dense];
        dense.into_iter().try_for_each(|linear| linear.keep_in(kind))
    }

    /// Runs the layer on all tokens: `x_TH` -> `[T, H]`.
    fn whole(&self, x: &Tensor, batch: &Packed, all: &Rows<'_>) -> Result<Tensor> {
        let projected = Projected::All(self.projections.forward(x, QUERY, all)?);
        self.forward(&projected, x, all, &batch.cu_seqlens)
    }

    /// Runs the layer on the given rows: `x_RH` -> `[R, H]`.
    fn forward(
        &self,
        projected: &Projected,
        x: &Tensor,
        rows: &Rows<'_>,
        cu_seqlens: &[i64],
    ) -> Result<Tensor> {
        let context = self.attention.forward(projected, rows, cu_seqlens)?;
        let x = self.attention_output.forward(&context, x, rows)?;
        let inner = self.intermediate.activated(&x, self.activation, rows)?;
        self.output.forward(&inner, &x, rows)
    }

    fn dense_layers(
        &mut self,
        names: &LayerNames,
    ) -> impl Iterator<Item = (&'static str, &mut Linear)> {
        let projections = self.projections.parts_mut().iter_mut();
        let named = [names.query, names.key, names.value].into_iter().zip(projections);
        named.chain([
            (names.attention_output, &mut self.attention_output.dense),
            (names.intermediate, &mut self.intermediate),
            (names.output, &mut self.output.dense),
        ])
    }
}

/// The end of each half of a layer: dense, dropout, residual, LayerNorm.
#[derive(Debug)]
struct Output {
    dense: Linear,
    dropout: Dropout,
    layer_norm: LayerNorm,
    /// The adapter that follows the dropout.
    adapter: Option<Adapter>,
}

impl Output {
    fn forward(&self, x: &Tensor, residual: &Tensor, rows: &Rows<'_>) -> Result<Tensor> {
        let Some(adapter) = &self.adapter else {
            return self.dense.normalized(x, self.dropout, rows, residual, &self.layer_norm);
        };
        let x = self.dropout.forward(self.dense.forward(x, rows)?, rows.keys.as_ref())?;
        adapter.normalized(&x, residual, &self.layer_norm, rows)
    }
}
