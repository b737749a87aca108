//! What tells one architecture from another; everything else they share.

use super::keys::Verdicts;
use super::{bert, distilbert, roberta};

/// The architectures that are supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `model_type = "bert"`.
    Bert,
    /// `model_type = "distilbert"`.
    DistilBert,
    /// `model_type = "roberta"`.
    Roberta,
}

/// An architecture's differences: names in checkpoints, keys in `config.json`, and what is computed where.
pub(super) struct Spec {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The Hugging Face class of the classifier.
    pub class: &'static str,
    /// What the encoder's tensor names start with.
    pub prefix: &'static str,
    /// The layers' module, below the prefix.
    pub layers: &'static str,
    /// The modules of a layer.
    pub layer: LayerNames,
    /// Whether the two texts of a pair have embeddings of their own.
    pub token_types: bool,
    /// Whether there is dropout between the attention's output and its residual.
    pub attention_output_dropout: bool,
    /// Whether positions are counted from the padding's id on.
    pub positions_after_padding: bool,
    /// LayerNorm's epsilon where it is a constant and no key of `config.json`.
    pub layer_norm_eps: Option<f64>,
    /// The head's dropout where `config.json` is silent; `None`: the hidden one.
    pub classifier_dropout: Option<f64>,
    /// From the first tokens to the logits.
    pub head: HeadSpec,
    /// The keys of `config.json` that say what others do elsewhere.
    pub keys: Keys,
    /// What is done about the keys that not every architecture has.
    pub own_keys: Verdicts,
    /// `vocab_size` and the number of layers where `config.json` is silent.
    pub defaults: (i64, i64),
    /// Modules and buffers of checkpoints, below the prefix or without one, that a classifier does not use.
    pub unused: &'static [&'static str],
}

/// The modules of a layer, below its number.
pub(super) struct LayerNames {
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_output: &'static str,
    pub attention_norm: &'static str,
    pub intermediate: &'static str,
    pub output: &'static str,
    pub output_norm: &'static str,
    /// Where AdapterHub's `adapters` keeps the adapter after attention, and the one after the feedforward.
    pub attention_adapter: &'static str,
    pub output_adapter: &'static str,
}

/// A head: dense, activation, dropout, output.
pub(super) struct HeadSpec {
    /// Whether there is dropout before the dense layer as well.
    pub dropout_first: bool,
    /// The dense layer. BERT's is the base's pooler.
    pub dense: &'static str,
    /// tanh, else ReLU.
    pub tanh: bool,
    /// The layer that makes the logits.
    pub output: &'static str,
}

/// Keys of `config.json` that are not called the same everywhere.
pub(super) struct Keys {
    pub hidden_size: &'static str,
    pub num_hidden_layers: &'static str,
    pub num_attention_heads: &'static str,
    pub intermediate_size: &'static str,
    pub hidden_act: &'static str,
    pub hidden_dropout: &'static str,
    pub attention_dropout: &'static str,
    pub classifier_dropout: &'static str,
    /// Other names that transformers takes for keys, each with the key; the other name wins.
    pub aliases: &'static [(&'static str, &'static str)],
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bert, Self::DistilBert, Self::Roberta];

    pub(super) fn spec(self) -> &'static Spec {
        match self {
            Self::Bert => &bert::SPEC,
            Self::DistilBert => &distilbert::SPEC,
            Self::Roberta => &roberta::SPEC,
        }
    }

    /// What the encoder's tensor names start with.
    pub fn prefix(self) -> &'static str {
        self.spec().prefix
    }

    /// `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        self.spec().model_type
    }

    /// The Hugging Face class of the classifier.
    pub fn class(self) -> &'static str {
        self.spec().class
    }

    /// The tensors of a head that are in no base, by canonical name.
    pub fn new_head(self) -> Vec<String> {
        let HeadSpec { dense, output, .. } = self.spec().head;
        let modules = [dense, output].into_iter();
        let names = modules.flat_map(|m| ["weight", "bias"].map(|leaf| format!("{m}.{leaf}")));
        names.filter(|name| self.in_head(name)).collect()
    }

    /// The weight that makes the logits, `[L, H]`, by canonical name.
    pub fn output_weight(self) -> String {
        format!("{}.weight", self.spec().head.output)
    }

    /// The dense layer before the output layer, by canonical name.
    pub fn dense(self) -> &'static str {
        self.spec().head.dense
    }

    /// The layer that makes the logits, by canonical name.
    pub fn output(self) -> &'static str {
        self.spec().head.output
    }

    /// A layer's query and value, by their last names: what LoRA adds to where nobody says more.
    pub fn query_and_value(self) -> [&'static str; 2] {
        let LayerNames { query, value, .. } = &self.spec().layer;
        [query, value].map(|name| name.rsplit('.').next().unwrap_or(name))
    }

    /// Whether a tensor, by its canonical name, belongs to the new head, which no base contains.
    pub fn in_head(self, name: &str) -> bool {
        name.starts_with("classifier.") || name.starts_with("pre_classifier.")
    }

    /// The module between encoder and head that a base has, or may have lost: BERT's pooler.
    pub fn pooler(self) -> Option<&'static str> {
        Some(self.spec().head.dense).filter(|dense| !self.in_head(&format!("{dense}.")))
    }
}
