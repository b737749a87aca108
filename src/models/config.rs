//! `config.json` of a Hugging Face model directory.

use crate::error::{Error, Result};
use crate::nn::Activation;
use serde::Deserialize;
use std::path::Path;

/// The architectures that are supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `model_type = "bert"`.
    Bert,
}

impl Architecture {
    const SUPPORTED: &str = "bert";

    /// What the encoder's tensor names start with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert",
        }
    }

    /// The Hugging Face class of the classifier.
    pub fn class(self) -> &'static str {
        match self {
            Self::Bert => "BertForSequenceClassification",
        }
    }
}

/// Dropout probabilities, each in `[0, 1)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropouts {
    /// `hidden_dropout_prob`: after the embeddings and before each residual.
    pub hidden: f64,
    /// `attention_probs_dropout_prob`.
    pub attention: f64,
    /// `classifier_dropout`; where there is none, the hidden one.
    pub classifier: Option<f64>,
}

/// The shape of a model.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// Which model it is.
    pub architecture: Architecture,
    /// Entries of the vocabulary.
    pub vocab_size: i64,
    /// `H`.
    pub hidden_size: i64,
    /// Number of layers.
    pub num_hidden_layers: i64,
    /// `N`.
    pub num_attention_heads: i64,
    /// `I`.
    pub intermediate_size: i64,
    /// The feedforward activation.
    pub hidden_act: Activation,
    /// The longest sequence, special tokens included.
    pub max_position_embeddings: i64,
    /// Number of segments.
    pub type_vocab_size: i64,
    /// LayerNorm's epsilon.
    pub layer_norm_eps: f64,
    /// Dropout probabilities while training.
    pub dropouts: Dropouts,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
}

#[derive(Deserialize)]
struct Written {
    model_type: Option<String>,
    vocab_size: i64,
    hidden_size: i64,
    num_hidden_layers: i64,
    num_attention_heads: i64,
    intermediate_size: i64,
    #[serde(default = "gelu")]
    hidden_act: String,
    max_position_embeddings: i64,
    #[serde(default = "two")]
    type_vocab_size: i64,
    #[serde(default = "eps")]
    layer_norm_eps: f64,
    #[serde(default = "tenth")]
    hidden_dropout_prob: f64,
    #[serde(default = "tenth")]
    attention_probs_dropout_prob: f64,
    classifier_dropout: Option<f64>,
    #[serde(default = "range")]
    initializer_range: f64,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
}

// The defaults of transformers' BertConfig.
fn gelu() -> String {
    "gelu".into()
}
fn two() -> i64 {
    2
}
fn eps() -> f64 {
    1e-12
}
fn tenth() -> f64 {
    0.1
}
fn range() -> f64 {
    0.02
}

impl ModelConfig {
    /// Reads and checks `config.json` of the model directory `dir`.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = &dir.join("config.json");
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let what = if dir.is_dir() { "no config.json there" } else { "no such directory" };
                return Err(Error::file(
                    dir,
                    format!(
                        "{what}; expected a model directory in Hugging Face layout: config.json, weights and vocabulary"
                    ),
                ));
            }
            other => other.map_err(Error::io("read", path))?,
        };
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| Error::file(path, e.to_string()))?;
        // Another model's file lacks BERT's keys too: say what it is first.
        let found = value.get("model_type").and_then(|v| v.as_str()).map(str::to_owned);
        if found.as_deref() != Some("bert") {
            let found = found.unwrap_or_else(|| "none".into());
            let problem =
                format!("model_type: found {found}, supported: {}", Architecture::SUPPORTED);
            return Err(Error::file(path, problem));
        }
        let written: Written =
            serde_json::from_value(value).map_err(|e| Error::file(path, e.to_string()))?;
        written.check(path)
    }
}

impl Written {
    fn check(self, path: &Path) -> Result<ModelConfig> {
        let bad = |key: &str, found: &dyn std::fmt::Display, expected: &str| {
            Err(Error::file(path, format!("{key}: found {found}, expected {expected}")))
        };
        debug_assert_eq!(self.model_type.as_deref(), Some("bert"));
        // Far above any published model; an absurd size must not become an allocation.
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 16),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("intermediate_size", self.intermediate_size, 1 << 18),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 20),
            ("type_vocab_size", self.type_vocab_size, 1 << 10),
        ];
        for (key, found, most) in sizes {
            if !(1..=most).contains(&found) {
                return bad(key, &found, &format!("1 to {most}"));
            }
        }
        if self.hidden_size % self.num_attention_heads != 0 {
            let expected = format!("a divisor of hidden_size, {}", self.hidden_size);
            return bad("num_attention_heads", &self.num_attention_heads, &expected);
        }
        let probabilities = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ("classifier_dropout", self.classifier_dropout.unwrap_or(0.0)),
        ];
        for (key, found) in probabilities {
            if !(0.0..1.0).contains(&found) {
                return bad(key, &found, "a probability below 1");
            }
        }
        for (key, found) in
            [("layer_norm_eps", self.layer_norm_eps), ("initializer_range", self.initializer_range)]
        {
            if !(found > 0.0 && found < 10.0) {
                return bad(key, &found, "a small positive number");
            }
        }
        let Some(hidden_act) = Activation::from_name(&self.hidden_act) else {
            return bad("hidden_act", &self.hidden_act, Activation::NAMES);
        };
        if let Some(kind) = self.position_embedding_type.filter(|kind| kind != "absolute") {
            return bad("position_embedding_type", &kind, "absolute");
        }
        if self.is_decoder {
            return bad("is_decoder", &true, "false: an encoder");
        }
        Ok(ModelConfig {
            architecture: Architecture::Bert,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            hidden_act,
            max_position_embeddings: self.max_position_embeddings,
            type_vocab_size: self.type_vocab_size,
            layer_norm_eps: self.layer_norm_eps,
            dropouts: Dropouts {
                hidden: self.hidden_dropout_prob,
                attention: self.attention_probs_dropout_prob,
                classifier: self.classifier_dropout,
            },
            initializer_range: self.initializer_range,
        })
    }
}
