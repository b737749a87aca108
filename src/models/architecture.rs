//! The differences between the architectures, which share everything else.

use super::keys::Verdicts;
use super::{bert, distilbert, roberta};

/// The supported architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `model_type = "bert"`.
    Bert,
    /// `model_type = "distilbert"`.
    DistilBert,
    /// `model_type = "roberta"`.
    Roberta,
}

/// The differences of an architecture: names in checkpoints, keys in `config.json`, and details of
/// the computation.
pub(super) struct Spec {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The Hugging Face class of the classifier.
    pub class: &'static str,
    /// The prefix of the encoder's tensor names.
    pub prefix: &'static str,
    /// The module that holds the layers, below the prefix.
    pub layers: &'static str,
    /// The modules of a layer.
    pub layer: LayerNames,
    /// Whether the model has token type embeddings, which tell the two texts of a pair apart.
    pub token_types: bool,
    /// Whether there is dropout between the attention's output and its residual.
    pub attention_output_dropout: bool,
    /// Whether positions start after the padding id.
    pub positions_after_padding: bool,
    /// LayerNorm's epsilon if it is a constant; `None` if it is a key of `config.json`.
    pub layer_norm_eps: Option<f64>,
    /// The default of the head's dropout. `None` selects the hidden dropout.
    pub classifier_dropout: Option<f64>,
    /// The head, from the first tokens to the logits.
    pub head: HeadSpec,
    /// The names of the keys of `config.json` that differ between architectures.
    pub keys: Keys,
    /// The treatment of the keys that not every architecture has.
    pub own_keys: Verdicts,
    /// The defaults of `vocab_size` and of the number of layers.
    pub defaults: (i64, i64),
    /// Modules and buffers of checkpoints that the encoder does not use, named without the prefix.
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
    /// The modules of the adapters after attention and after the feedforward, as in AdapterHub's
    /// `adapters`.
    pub attention_adapter: &'static str,
    pub output_adapter: &'static str,
}

/// A head: dense, activation, dropout, output.
pub(super) struct HeadSpec {
    /// Whether there is dropout before the dense layer as well.
    pub dropout_first: bool,
    /// The dense layer. In BERT, the base's pooler.
    pub dense: &'static str,
    /// Whether the activation is tanh; otherwise ReLU.
    pub tanh: bool,
    /// The layer that makes the logits.
    pub output: &'static str,
}

/// The names of keys of `config.json` that differ between architectures.
pub(super) struct Keys {
    pub hidden_size: &'static str,
    pub num_hidden_layers: &'static str,
    pub num_attention_heads: &'static str,
    pub intermediate_size: &'static str,
    pub hidden_act: &'static str,
    pub hidden_dropout: &'static str,
    pub attention_dropout: &'static str,
    pub classifier_dropout: &'static str,
    /// Other names that transformers accepts for keys, each with its key. If both are present, the
    /// other name wins.
    pub aliases: &'static [(&'static str, &'static str)],
}

impl Architecture {
    /// All architectures.
    pub const ALL: [Self; 3] = [Self::Bert, Self::DistilBert, Self::Roberta];

    pub(super) fn spec(self) -> &'static Spec {
        match self {
            Self::Bert => &bert::SPEC,
            Self::DistilBert => &distilbert::SPEC,
            Self::Roberta => &roberta::SPEC,
        }
    }

    /// The prefix of the encoder's tensor names.
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

    /// The canonical names of the head's tensors that no base has.
    pub fn new_head(self) -> Vec<String> {
        let HeadSpec { dense, output, .. } = self.spec().head;
        let modules = [dense, output].into_iter();
        let names = modules.flat_map(|m| ["weight", "bias"].map(|leaf| format!("{m}.{leaf}")));
        names.filter(|name| self.in_head(name)).collect()
    }

    /// The canonical name of the output layer's weight, `[L, H]`.
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

    /// The last parts of the names of a layer's query and value: LoRA's default targets.
    pub fn query_and_value(self) -> [&'static str; 2] {
        let LayerNames { query, value, .. } = &self.spec().layer;
        [query, value].map(|name| name.rsplit('.').next().unwrap_or(name))
    }

    /// Whether a tensor, by its canonical name, belongs to the new head, which no base contains.
    pub fn in_head(self, name: &str) -> bool {
        name.starts_with("classifier.") || name.starts_with("pre_classifier.")
    }

    /// The pooler's module, which a base may lack. `None` if the architecture has no pooler.
    pub fn pooler(self) -> Option<&'static str> {
        Some(self.spec().head.dense).filter(|dense| !self.in_head(&format!("{dense}.")))
    }
}
