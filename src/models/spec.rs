//! The description of an architecture: its names in checkpoints, its keys in `config.json`, its
//! tokens, and details of the computation. Whatever differs between architectures comes from here.

use super::keys::{KeyVerdict, KeyVerdicts, SHARED};
use super::term::Term;

/// The description of a supported architecture.
pub type Architecture = &'static Spec;

/// What differs between architectures.
#[derive(Clone, Copy)]
pub struct Spec {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The Hugging Face class of the classifier.
    pub class: &'static str,
    /// The prefix of the encoder's tensor names.
    pub prefix: &'static str,
    /// The modules of the embeddings.
    pub embeddings: EmbeddingNames,
    /// The module that holds the layers, below the prefix.
    pub layers: &'static str,
    /// The modules of a layer.
    pub layer: LayerNames,
    /// The head, from the first tokens to the logits.
    pub head: HeadSpec,
    /// Modules and buffers of checkpoints that the classifier does not use, named without the
    /// prefix.
    pub unused: &'static [&'static str],
    /// Whether there is dropout between the attention's output and its residual.
    pub attention_output_dropout: bool,
    /// Whether positions start after the padding id.
    pub positions_after_padding: bool,
    /// LayerNorm's epsilon if it is a constant; `None` if it is a key of `config.json`.
    pub layer_norm_eps: Option<f64>,
    /// The default of the head's dropout. `None` selects the hidden dropout.
    pub classifier_dropout: Option<f64>,
    /// The names of the keys of `config.json` that differ between architectures.
    pub keys: ConfigKeys,
    /// The treatment of the keys that not every architecture has.
    pub own_keys: KeyVerdicts,
    /// The values of keys that `config.json` lacks.
    pub defaults: ConfigDefaults,
    /// How texts become tokens.
    pub tokens: TokenSpec,
}

/// The modules of the embeddings.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingNames {
    /// The module that holds the others, below the prefix.
    pub module: &'static str,
    /// The table of the vocabulary.
    pub word: &'static str,
    /// The table of positions.
    pub position: &'static str,
    /// The table of token types. `None` if the model has none.
    pub token_type: Option<&'static str>,
    /// The LayerNorm over the sum.
    pub layer_norm: &'static str,
}

/// The modules of a layer, below its number.
#[derive(Debug, Clone, Copy)]
pub struct LayerNames {
    /// [`Term::Query`].
    pub query: &'static str,
    /// [`Term::Key`].
    pub key: &'static str,
    /// [`Term::Value`].
    pub value: &'static str,
    /// [`Term::AttentionOutput`].
    pub attention_output: &'static str,
    /// [`Term::AttentionLayerNorm`].
    pub attention_norm: &'static str,
    /// [`Term::Intermediate`].
    pub intermediate: &'static str,
    /// [`Term::Output`].
    pub output: &'static str,
    /// [`Term::OutputLayerNorm`].
    pub output_norm: &'static str,
    /// The adapter after attention, as AdapterHub's package `adapters` names it.
    pub attention_adapter: &'static str,
    /// The adapter after the feedforward, as AdapterHub's package `adapters` names it.
    pub output_adapter: &'static str,
}

/// A head: dense, activation, dropout, output. Modules have their canonical names.
#[derive(Debug, Clone, Copy)]
pub struct HeadSpec {
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
#[derive(Debug, Clone, Copy)]
pub struct ConfigKeys {
    /// Hidden size.
    pub hidden_size: &'static str,
    /// Number of layers.
    pub num_hidden_layers: &'static str,
    /// Number of attention heads.
    pub num_attention_heads: &'static str,
    /// Intermediate size.
    pub intermediate_size: &'static str,
    /// The feedforward activation.
    pub hidden_act: &'static str,
    /// Dropout after the embeddings and before residuals.
    pub hidden_dropout: &'static str,
    /// Dropout of the attention probabilities.
    pub attention_dropout: &'static str,
    /// Dropout of the head.
    pub classifier_dropout: &'static str,
    /// Other names that transformers accepts for keys, each with its key. If both are present, the
    /// other name wins.
    pub aliases: &'static [(&'static str, &'static str)],
}

/// transformers' defaults that differ between architectures.
#[derive(Debug, Clone, Copy)]
pub struct ConfigDefaults {
    /// Number of entries of the vocabulary.
    pub vocab_size: i64,
    /// Number of layers.
    pub num_hidden_layers: i64,
    /// The padding id.
    pub pad_token_id: i64,
}

/// How the texts of a model become tokens.
#[derive(Debug, Clone, Copy)]
pub struct TokenSpec {
    /// The algorithm of the model's own tokenizer class.
    pub algorithm: TokenAlgorithm,
    /// Whether the second text of a pair has token type 1.
    pub segments: bool,
}

/// An algorithm that cuts words into tokens, with the special tokens that belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenAlgorithm {
    /// BERT's: the longest pieces of each word.
    WordPiece,
    /// RoBERTa's: bytes, merged by rank.
    ByteLevelBpe,
}

impl LayerNames {
    /// The module of a term. `None` for the embeddings' LayerNorm, which is in no layer.
    pub fn of(&self, term: Term) -> Option<&'static str> {
        Some(match term {
            Term::Query => self.query,
            Term::Key => self.key,
            Term::Value => self.value,
            Term::AttentionOutput => self.attention_output,
            Term::AttentionLayerNorm => self.attention_norm,
            Term::Intermediate => self.intermediate,
            Term::Output => self.output,
            Term::OutputLayerNorm => self.output_norm,
            Term::EmbeddingsLayerNorm => return None,
        })
    }

    /// The adapters, each with the dense layer that it follows.
    pub fn adapters(&self) -> [(Term, &'static str); 2] {
        [(Term::AttentionOutput, self.attention_adapter), (Term::Output, self.output_adapter)]
    }
}

impl Spec {
    /// The canonical name of the module that holds the layers.
    pub fn layers_path(&self) -> String {
        format!("{}.{}", self.prefix, self.layers)
    }

    /// The canonical name of a module of a layer, from its name in the layer.
    pub fn in_layer(&self, layer: usize, module: &str) -> String {
        format!("{}.{layer}.{module}", self.layers_path())
    }

    /// The canonical name of a term's module. `layer` does not matter for the embeddings'
    /// LayerNorm, which is in no layer.
    pub fn module(&self, term: Term, layer: usize) -> String {
        match self.layer.of(term) {
            Some(module) => self.in_layer(layer, module),
            None => self.embedding(self.embeddings.layer_norm),
        }
    }

    /// The layer of a tensor, by its canonical name. `None` if the tensor is in no layer.
    pub fn layer_of(&self, canonical: &str) -> Option<usize> {
        let rest = canonical.strip_prefix(&self.layers_path())?.strip_prefix('.')?;
        rest.split('.').next()?.parse().ok()
    }

    /// The canonical name of a module of the embeddings, from its name there.
    pub fn embedding(&self, module: &str) -> String {
        format!("{}.{}.{module}", self.prefix, self.embeddings.module)
    }

    /// The canonical names of the embedding tables.
    pub fn tables(&self) -> Vec<String> {
        let EmbeddingNames { word, position, token_type, .. } = self.embeddings;
        let tables = [Some(word), Some(position), token_type].into_iter().flatten();
        tables.map(|table| self.embedding(table)).collect()
    }

    /// The verdicts on the keys of `config.json`.
    pub fn verdicts(&self) -> impl Iterator<Item = &'static (&'static str, KeyVerdict)> {
        SHARED.iter().chain(self.own_keys)
    }

    /// The canonical names of the tensors of a new head, which no base has.
    pub fn new_head(&self) -> Vec<String> {
        let names = self.new_modules();
        names.flat_map(|m| ["weight", "bias"].map(|leaf| format!("{m}.{leaf}"))).collect()
    }

    /// The head's modules that no base has.
    pub fn new_modules(&self) -> impl Iterator<Item = &'static str> {
        let pooler = self.pooler();
        [self.head.dense, self.head.output].into_iter().filter(move |m| Some(*m) != pooler)
    }

    /// The canonical names of the output layer's weight, `[L, H]`, and bias, `[L]`.
    pub fn output_names(&self) -> [String; 2] {
        ["weight", "bias"].map(|leaf| format!("{}.{leaf}", self.head.output))
    }

    /// The canonical name of the output layer's weight, `[L, H]`.
    pub fn output_weight(&self) -> String {
        format!("{}.weight", self.head.output)
    }

    /// The last parts of the names of a layer's query and value: LoRA's default targets.
    pub fn query_and_value(&self) -> [&'static str; 2] {
        let LayerNames { query, value, .. } = self.layer;
        [query, value].map(|name| name.rsplit('.').next().unwrap_or(name))
    }

    /// Whether a tensor, by its canonical name, belongs to the new head, which no base contains.
    pub fn in_head(&self, name: &str) -> bool {
        // Another task's head has other layers below the same module.
        let first = |name: &str| name.split('.').next().map(str::to_owned);
        name.contains('.') && self.new_modules().any(|module| first(module) == first(name))
    }

    /// The pooler's module, which a base may lack. `None` if the architecture has no pooler.
    pub fn pooler(&self) -> Option<&'static str> {
        let inside = |module: &&str| self.below_prefix(module).is_some();
        Some(self.head.dense).filter(inside)
    }

    /// The name of a module or tensor of the encoder without the prefix. `None` if the name does
    /// not start with the prefix.
    pub fn below_prefix<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(self.prefix)?.strip_prefix('.')
    }

    /// Whether a name without the prefix may be of a tensor of the encoder, because it starts with
    /// one of the encoder's modules.
    pub fn starts_in_encoder(&self, bare: &str) -> bool {
        let pooler = self.pooler().and_then(|pooler| self.below_prefix(pooler)?.split('.').next());
        let modules = [Some(self.embeddings.module), Some(self.layers), pooler];
        let is_below =
            |module| str::strip_prefix(bare, module).is_some_and(|rest| rest.starts_with('.'));
        modules.into_iter().flatten().any(is_below)
    }
}

/// Specs of one `model_type` are one architecture.
impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        self.model_type == other.model_type
    }
}

impl Eq for Spec {}

impl std::fmt::Debug for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.model_type)
    }
}
