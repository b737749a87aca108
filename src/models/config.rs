//! `config.json` of a Hugging Face model directory.

use super::Architecture;
use super::architecture::{Keys, Spec};
use crate::error::{Error, Result};
use crate::nn::Activation;
use serde_json::{Map, Value};
use std::fmt::Display;
use std::path::Path;

/// Dropout probabilities, each in `[0, 1)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropouts {
    /// `hidden_dropout_prob`, or DistilBERT's `dropout`: after the embeddings and before residuals.
    pub hidden: f64,
    /// `attention_probs_dropout_prob`, or DistilBERT's `attention_dropout`.
    pub attention: f64,
    /// `classifier_dropout`, or DistilBERT's `seq_classif_dropout`; where there is none, the hidden one.
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
    /// Entries of the position table.
    pub max_position_embeddings: i64,
    /// The id of RoBERTa's padding, which its positions are counted from; `None`: they are counted from 0.
    pub padding: Option<i64>,
    /// The id whose word embedding never trains, as in transformers: the padding's, which a text may spell out.
    pub pad_token_id: Option<i64>,
    /// Number of segments; as many as asked for where the model knows none.
    pub type_vocab_size: i64,
    /// LayerNorm's epsilon.
    pub layer_norm_eps: f64,
    /// Dropout probabilities while training.
    pub dropouts: Dropouts,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
}

impl ModelConfig {
    /// Reads and checks `config.json` of the model directory `dir`.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = &dir.join("config.json");
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let what = if dir.is_dir() { "no config.json there" } else { "no such directory" };
                let problem = format!(
                    "{what}; expected a model directory in Hugging Face layout: config.json, weights and vocabulary"
                );
                return Err(Error::file(dir, problem));
            }
            other => other.map_err(Error::io("read", path))?,
        };
        let value: Map<String, Value> =
            serde_json::from_str(&text).map_err(|e| Error::file(path, e.to_string()))?;
        let fields = Fields { path, value };
        fields.model(fields.architecture()?)
    }

    /// The longest sequence, in tokens, special ones included.
    pub fn max_length(&self) -> i64 {
        self.max_position_embeddings - self.padding.map_or(0, |id| id + 1)
    }

    /// Tensors of the encoder with the shapes that they must have. A file with all of these is not much smaller than the model.
    pub fn landmarks(&self) -> Vec<(String, Vec<i64>)> {
        let spec = self.architecture.spec();
        let (prefix, hidden) = (spec.prefix, self.hidden_size);
        let table = |name| format!("{prefix}.embeddings.{name}.weight");
        let mut landmarks = vec![
            (table("word_embeddings"), vec![self.vocab_size, hidden]),
            (table("position_embeddings"), vec![self.max_position_embeddings, hidden]),
        ];
        if spec.token_types {
            landmarks.push((table("token_type_embeddings"), vec![self.type_vocab_size, hidden]));
        }
        for layer in 0..self.num_hidden_layers {
            let weight = |module| format!("{prefix}.{}.{layer}.{module}.weight", spec.layers);
            landmarks.push((weight(spec.layer.query), vec![hidden, hidden]));
            landmarks.push((weight(spec.layer.intermediate), vec![self.intermediate_size, hidden]));
        }
        landmarks
    }
}

/// The keys of a `config.json`.
struct Fields<'a> {
    path: &'a Path,
    value: Map<String, Value>,
}

impl Fields<'_> {
    fn bad<T>(&self, key: &str, found: &dyn Display, expected: &str) -> Result<T> {
        Err(Error::file(self.path, format!("{key}: found {found}, expected {expected}")))
    }

    /// The value of a key; `null` is as good as none.
    fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => self.bad(key, other, "a string"),
        }
    }

    /// A size from 1 to `most`: an absurd one must not become an allocation.
    fn size(&self, key: &str, default: Option<i64>, most: i64) -> Result<i64> {
        let expected = || format!("a whole number from 1 to {most}");
        match (self.get(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => self.bad(key, &"nothing", &expected()),
            (Some(value), _) => match value.as_i64() {
                Some(size) if (1..=most).contains(&size) => Ok(size),
                _ => self.bad(key, value, &expected()),
            },
        }
    }

    fn number(
        &self,
        key: &str,
        default: f64,
        good: impl Fn(f64) -> bool,
        expected: &str,
    ) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match value.as_f64() {
            Some(number) if good(number) => Ok(number),
            _ => self.bad(key, value, expected),
        }
    }

    fn probability(&self, key: &str, default: f64) -> Result<f64> {
        self.number(key, default, |p| (0.0..1.0).contains(&p), "a probability below 1")
    }

    fn small(&self, key: &str, default: f64) -> Result<f64> {
        self.number(key, default, |x| x > 0.0 && x < 10.0, "a positive number below 10")
    }

    /// Another model's file lacks the keys of those that are known: what it is, is said first.
    fn architecture(&self) -> Result<Architecture> {
        let supported = Architecture::ALL.map(|a| a.spec().model_type).join(", ");
        let found = self.text("model_type")?.unwrap_or("none");
        let of_type = |a: &Architecture| a.spec().model_type == found;
        let Some(architecture) = Architecture::ALL.into_iter().find(of_type) else {
            let why = match found {
                "xlm-roberta" | "xlm-roberta-xl" => {
                    " (XLM-R's SentencePiece tokenizer is not supported)"
                }
                _ => "",
            };
            return self.bad("model_type", &found, &format!("{supported}{why}"));
        };
        // A RoBERTa in its shapes alone: its texts must be cut into words by another program first.
        let tokenizer = self.text("tokenizer_class")?.unwrap_or_default();
        if ["Phobert", "Bertweet"].iter().any(|name| tokenizer.starts_with(name))
            || (architecture == Architecture::Roberta
                && self.path.with_file_name("bpe.codes").exists())
        {
            let found =
                if tokenizer.is_empty() { "none, and bpe.codes beside it" } else { tokenizer };
            let expected = "BERT's, DistilBERT's or RoBERTa's tokenizer (PhoBERT and BERTweet, with their own, are not supported)";
            return self.bad("tokenizer_class", &found, expected);
        }
        Ok(architecture)
    }

    fn model(&self, architecture: Architecture) -> Result<ModelConfig> {
        let spec: &Spec = architecture.spec();
        let keys: &Keys = &spec.keys;
        // Defaults are transformers'; sizes have none here, where a wrong one would only be noticed later.
        let vocab_size = self.size("vocab_size", None, 1 << 24)?;
        let hidden_size = self.size(keys.hidden_size, None, 1 << 16)?;
        let num_hidden_layers = self.size(keys.num_hidden_layers, None, 1 << 10)?;
        let num_attention_heads = self.size(keys.num_attention_heads, None, 1 << 10)?;
        if hidden_size % num_attention_heads != 0 {
            let expected = format!("a divisor of {}, {hidden_size}", keys.hidden_size);
            return self.bad(keys.num_attention_heads, &num_attention_heads, &expected);
        }
        let name = self.text(keys.hidden_act)?.unwrap_or("gelu");
        let Some(hidden_act) = Activation::from_name(name) else {
            return self.bad(keys.hidden_act, &name, Activation::NAMES);
        };
        if let Some(kind) = self.text("position_embedding_type")?.filter(|kind| *kind != "absolute")
        {
            return self.bad("position_embedding_type", &kind, "absolute");
        }
        if let Some(value) = self.get("is_decoder").filter(|value| **value != Value::Bool(false)) {
            return self.bad("is_decoder", value, "false: an encoder");
        }
        let max_position_embeddings = self.size("max_position_embeddings", None, 1 << 20)?;
        let pad_token_id = match self.value.get("pad_token_id") {
            None => Some(i64::from(spec.positions_after_padding)),
            Some(id) => id.as_i64(),
        };
        let padding = match self.get("pad_token_id").filter(|_| spec.positions_after_padding) {
            None => spec.positions_after_padding.then_some(1),
            Some(value) => match value.as_i64() {
                Some(id) if (0..vocab_size).contains(&id) => Some(id),
                _ => {
                    let expected = format!("an id from 0 to {}", vocab_size - 1);
                    return self.bad("pad_token_id", value, &expected);
                }
            },
        };
        let least = 4 + padding.map_or(0, |id| id + 1);
        if max_position_embeddings < least {
            let expected = format!("{least} or more");
            return self.bad("max_position_embeddings", &max_position_embeddings, &expected);
        }
        let type_vocab_size = if spec.token_types {
            self.size("type_vocab_size", Some(2), 1 << 10)?
        } else {
            i64::MAX
        };
        let classifier = match (self.get(keys.classifier_dropout), spec.classifier_dropout) {
            (None, default) => default,
            (Some(_), _) => Some(self.probability(keys.classifier_dropout, 0.0)?),
        };
        let layer_norm_eps = match spec.layer_norm_eps {
            Some(eps) => eps,
            None => self.small("layer_norm_eps", 1e-12)?,
        };
        Ok(ModelConfig {
            architecture,
            vocab_size,
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            intermediate_size: self.size(keys.intermediate_size, None, 1 << 18)?,
            hidden_act,
            max_position_embeddings,
            padding,
            pad_token_id: pad_token_id.filter(|id| (0..vocab_size).contains(id)),
            type_vocab_size,
            layer_norm_eps,
            dropouts: Dropouts {
                hidden: self.probability(keys.hidden_dropout, 0.1)?,
                attention: self.probability(keys.attention_dropout, 0.1)?,
                classifier,
            },
            initializer_range: self.small("initializer_range", 0.02)?,
        })
    }
}
