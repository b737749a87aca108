//! `config.json` of a Hugging Face model directory.

use super::architectures::ARCHITECTURES;
use super::keys::KeyVerdict;
use super::spec::{Architecture, TokenAlgorithm};
use super::term::Term;
use crate::error::{Error, Result};
use crate::nn::Activation;
use crate::{escape, files};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

/// Dropout probabilities, each in `[0, 1)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropouts {
    /// `hidden_dropout_prob`, or DistilBERT's `dropout`: after the embeddings and before residuals.
    pub hidden: f64,
    /// `attention_probs_dropout_prob`, or DistilBERT's `attention_dropout`.
    pub attention: f64,
    /// `classifier_dropout`, or DistilBERT's `seq_classif_dropout`. `None` selects the hidden
    /// dropout.
    pub classifier: Option<f64>,
}

/// The shape of a model.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// The architecture of the model.
    pub architecture: Architecture,
    /// Number of entries of the vocabulary.
    pub vocab_size: i64,
    /// Hidden size, `H`.
    pub hidden_size: i64,
    /// Number of layers.
    pub num_hidden_layers: i64,
    /// Number of attention heads, `N`.
    pub num_attention_heads: i64,
    /// Intermediate size, `I`.
    pub intermediate_size: i64,
    /// The feedforward activation.
    pub hidden_act: Activation,
    /// Number of entries of the position table.
    pub max_position_embeddings: i64,
    /// RoBERTa's padding id, after which positions start. `None` if positions start at 0.
    pub padding: Option<i64>,
    /// The padding id, which a text may contain. The word embedding of this id never trains, as in
    /// transformers.
    pub pad_token_id: Option<i64>,
    /// Number of token types; `i64::MAX` for a model without token type embeddings.
    pub type_vocab_size: i64,
    /// LayerNorm's epsilon.
    pub layer_norm_eps: f64,
    /// Dropout probabilities while training.
    pub dropouts: Dropouts,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// Warnings about how `config.json` was read.
    pub remarks: Vec<String>,
}

/// Maximum size of a `config.json` in bytes. With 10,000 labels, the size is a few hundred
/// thousand.
const MOST_BYTES: u64 = 16 << 20;

/// Reads the `config.json` at `path`.
pub(super) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let text = files::read_small_text(path, MOST_BYTES)?;
    serde_json::from_str(&text).map_err(|e| Error::file(path, shown(&e)))
}

/// The error for a key of the `config.json` at `path` with a value that is not allowed.
pub(super) fn bad(path: &Path, key: &str, found: &dyn Display, expected: &str) -> Error {
    Error::file(path, format!("{key}: found {}, expected {expected}", shown(found)))
}

/// The text of a value in a file, shortened.
fn shown(found: &dyn Display) -> String {
    escape::short(&found.to_string(), 100)
}

impl ModelConfig {
    /// Reads and checks `config.json` of the model directory `dir`. If the file has no
    /// `model_type`, the architecture is inferred with the tensor names that `names` returns.
    pub fn read(dir: &Path, names: impl FnOnce() -> Result<Vec<String>>) -> Result<Self> {
        Self::read_among(&ARCHITECTURES, dir, names)
    }

    /// Like [`ModelConfig::read`], where the supported architectures are `architectures`.
    pub fn read_among(
        architectures: &[Architecture],
        dir: &Path,
        names: impl FnOnce() -> Result<Vec<String>>,
    ) -> Result<Self> {
        let path = &dir.join("config.json");
        if !files::is_there(path)? {
            let what = if dir.is_dir() { "no config.json" } else { "no such directory" };
            let problem = format!(
                "{what}; expected a model directory in Hugging Face layout: config.json, weights and vocabulary"
            );
            return Err(Error::file(dir, problem));
        }
        let mut file = ConfigFile {
            path,
            architectures,
            value: read_object(path)?,
            defaults: vec![],
            remarks: vec![],
        };
        let architecture = file.architecture(names)?;
        file.check_refused(architecture)?;
        for (alias, key) in architecture.keys.aliases {
            if let Some(value) = file.value.get(*alias).cloned() {
                file.value.insert((*key).to_owned(), value);
            }
        }
        file.model(architecture)
    }

    /// The number of inputs of a term's dense layer; the size of a LayerNorm.
    pub fn inputs_of(&self, term: Term) -> i64 {
        if term == Term::Output { self.intermediate_size } else { self.hidden_size }
    }

    /// The number of outputs of a term's dense layer; the size of a LayerNorm.
    pub fn outputs_of(&self, term: Term) -> i64 {
        if term == Term::Intermediate { self.intermediate_size } else { self.hidden_size }
    }

    /// Maximum length of a sequence in tokens, special tokens included.
    pub fn max_length(&self) -> i64 {
        self.max_position_embeddings - self.padding.map_or(0, |id| id + 1)
    }

    /// The names of large tensors of the encoder, with the shapes that they must have. A file with
    /// all of these tensors is not much smaller than the model.
    pub fn landmarks(&self) -> Vec<(String, Vec<i64>)> {
        let architecture = self.architecture;
        let sizes = [self.vocab_size, self.max_position_embeddings, self.type_vocab_size];
        let tables = architecture.tables().into_iter().zip(sizes);
        let tables = tables.map(|(table, entries)| (table, vec![entries, self.hidden_size]));
        let layers = 0..usize::try_from(self.num_hidden_layers).unwrap_or(0);
        let dense = layers.flat_map(|layer| {
            [Term::Query, Term::Intermediate].map(|term| {
                let shape = vec![self.outputs_of(term), self.inputs_of(term)];
                (architecture.module(term, layer), shape)
            })
        });
        let weight = |(module, shape)| (format!("{module}.weight"), shape);
        tables.chain(dense).map(weight).collect()
    }

    /// The settings that scores depend on but tensor shapes do not show, by their keys in
    /// `config.json`.
    pub fn beside_tensors(&self) -> BTreeMap<String, Value> {
        let keys = &self.architecture.keys;
        let mut settings = BTreeMap::from([
            (keys.num_attention_heads.to_owned(), Value::from(self.num_attention_heads)),
            (keys.hidden_act.to_owned(), Value::from(self.hidden_act.name())),
        ]);
        if self.architecture.layer_norm_eps.is_none() {
            settings.insert("layer_norm_eps".to_owned(), Value::from(self.layer_norm_eps));
        }
        settings.extend(self.padding.map(|id| ("pad_token_id".to_owned(), Value::from(id))));
        settings
    }

    /// A message with the number of layers in `config.json`, if the tensor `canonical` is in a
    /// layer above them.
    pub fn no_layer(&self, canonical: &str) -> Option<String> {
        let layer = self.architecture.layer_of(canonical)?;
        let layers = usize::try_from(self.num_hidden_layers).unwrap_or(0);
        (layer >= layers).then(|| {
            let key = self.architecture.keys.num_hidden_layers;
            format!("config.json says {key} = {layers}")
        })
    }
}

/// The keys of a `config.json`.
struct ConfigFile<'a> {
    path: &'a Path,
    /// The supported architectures.
    architectures: &'a [Architecture],
    value: Map<String, Value>,
    /// Sizes that the file lacks, with the defaults that are used.
    defaults: Vec<(&'static str, i64)>,
    remarks: Vec<String>,
}

impl ConfigFile<'_> {
    fn bad<T>(&self, key: &str, found: &dyn Display, expected: &str) -> Result<T> {
        Err(bad(self.path, key, found, expected))
    }

    /// The string of a key; `None` if the key is missing or `null`.
    fn text(&self, key: &str) -> Result<Option<String>> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => self.bad(key, other, "a string"),
        }
    }

    /// The size at a key, from 1 to `most`, because an absurd size must not become an allocation.
    /// If the key is missing, returns transformers' default, which is compared with the weights
    /// later.
    fn size(&mut self, key: &'static str, default: i64, most: i64) -> Result<i64> {
        let Some(value) = self.value.get(key) else {
            self.defaults.push((key, default));
            return Ok(default);
        };
        match value.as_i64() {
            Some(size) if (1..=most).contains(&size) => Ok(size),
            _ => self.bad(key, value, &format!("a whole number from 1 to {most}")),
        }
    }

    fn number(
        &self,
        key: &str,
        default: f64,
        good: impl Fn(f64) -> bool,
        expected: &str,
    ) -> Result<f64> {
        let Some(value) = self.value.get(key) else { return Ok(default) };
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

    /// Determines the architecture. This check comes first, because the file of an unsupported
    /// model lacks the keys that the other checks expect.
    fn architecture(
        &mut self,
        names: impl FnOnce() -> Result<Vec<String>>,
    ) -> Result<Architecture> {
        let architecture = match self.text("model_type")? {
            Some(found) => self.named(&found)?,
            None => self.inferred(&names()?)?,
        };
        // PhoBERT and BERTweet have RoBERTa's shapes, but another program must split their texts
        // into words first.
        let tokenizer = self.text("tokenizer_class")?.unwrap_or_default();
        if ["Phobert", "Bertweet"].iter().any(|name| tokenizer.starts_with(name))
            || (architecture.tokens.algorithm == TokenAlgorithm::ByteLevelBpe
                && self.path.with_file_name("bpe.codes").exists())
        {
            let found =
                if tokenizer.is_empty() { "none, but there is a bpe.codes" } else { &tokenizer };
            let expected = "the tokenizer of BERT, DistilBERT or RoBERTa (those of PhoBERT and BERTweet are not supported)";
            return self.bad("tokenizer_class", &found, expected);
        }
        Ok(architecture)
    }

    fn named(&self, found: &str) -> Result<Architecture> {
        if let Some(named) = self.architectures.iter().find(|a| a.model_type == found) {
            return Ok(named);
        }
        let why = match found {
            "xlm-roberta" | "xlm-roberta-xl" => {
                " (XLM-R's SentencePiece tokenizer is not supported)"
            }
            _ => "",
        };
        self.bad("model_type", &found, &format!("{}{why}", self.supported()))
    }

    /// Infers the architecture of a `config.json` without `model_type`, which files from 2019 lack,
    /// from its keys, its classes and the tensor `names`. Returns an error unless exactly one
    /// architecture fits.
    fn inferred(&mut self, names: &[String]) -> Result<Architecture> {
        let has = |module: &str| {
            names.iter().any(|n| n.strip_prefix(module).is_some_and(|rest| rest.starts_with('.')))
        };
        let mut fit = self.architectures.to_vec();
        // If any name has a prefix, only prefixes count: BERT and RoBERTa have the same names
        // without one.
        let prefixed = self.architectures.iter().any(|a| has(a.prefix));
        fit.retain(|a| if prefixed { has(a.prefix) } else { has(a.layers) });
        fit.retain(|a| self.value.contains_key(a.keys.hidden_size));
        let classes: Vec<&str> = self
            .value
            .get("architectures")
            .and_then(Value::as_array)
            .map(|classes| classes.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let of_class = |a: &Architecture| {
            let family = a.class.trim_end_matches("ForSequenceClassification");
            let rest = |class: &&str| class.strip_prefix(family).map(str::to_owned);
            let mut rests = classes.iter().filter_map(rest);
            rests.any(|rest| rest.starts_with("For") || rest == "Model")
        };
        if self.architectures.iter().any(of_class) {
            fit.retain(of_class);
        }
        let [architecture] = fit[..] else {
            let expected = format!(
                "{}; the keys and the weights' names do not tell which: add, for example, \"model_type\": \"bert\" to config.json",
                self.supported()
            );
            return self.bad("model_type", &"nothing", &expected);
        };
        let name = architecture.model_type;
        self.remarks.push(format!(
            "no model_type; read as \"{name}\", according to the keys and the weights' names"
        ));
        Ok(architecture)
    }

    /// Returns an error if the verdicts refuse the value of a key.
    fn check_refused(&self, architecture: Architecture) -> Result<()> {
        for (key, verdict) in architecture.verdicts() {
            if let (Some(value), KeyVerdict::Refused { harmless, expected }) =
                (self.value.get(*key), verdict)
                && !harmless(value)
            {
                return self.bad(key, value, expected);
            }
        }
        Ok(())
    }

    fn model(mut self, architecture: Architecture) -> Result<ModelConfig> {
        let (keys, defaults) = (&architecture.keys, &architecture.defaults);
        let vocab_size = self.size("vocab_size", defaults.vocab_size, 1 << 24)?;
        let hidden_size = self.size(keys.hidden_size, 768, 1 << 16)?;
        let num_hidden_layers =
            self.size(keys.num_hidden_layers, defaults.num_hidden_layers, 1 << 10)?;
        let num_attention_heads = self.heads(architecture, hidden_size)?;
        let intermediate_size = self.size(keys.intermediate_size, 3072, 1 << 18)?;
        let hidden_act = self.activation(keys.hidden_act)?;
        self.check_positions(architecture)?;
        let max_position_embeddings = self.size("max_position_embeddings", 512, 1 << 20)?;
        let pad_token_id = self.pad_token_id(architecture, vocab_size)?;
        let padding = pad_token_id.filter(|_| architecture.positions_after_padding);
        let least = 4 + padding.map_or(0, |id| id + 1);
        if max_position_embeddings < least {
            let expected = format!("{least} or more");
            return self.bad("max_position_embeddings", &max_position_embeddings, &expected);
        }
        let type_vocab_size = match architecture.embeddings.token_type {
            Some(_) => self.size("type_vocab_size", 2, 1 << 10)?,
            None => i64::MAX,
        };
        let layer_norm_eps = match architecture.layer_norm_eps {
            Some(eps) => eps,
            None => self.small("layer_norm_eps", 1e-12)?,
        };
        let dropouts = self.dropouts(architecture)?;
        let initializer_range = self.small("initializer_range", 0.02)?;
        if !self.defaults.is_empty() {
            let defaults = self.defaults.iter().map(|(key, value)| format!("{key} = {value}"));
            let defaults = defaults.collect::<Vec<_>>().join(", ");
            self.remarks.push(format!("transformers' defaults for missing keys: {defaults}"));
        }
        Ok(ModelConfig {
            architecture,
            vocab_size,
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            intermediate_size,
            hidden_act,
            max_position_embeddings,
            padding,
            pad_token_id,
            type_vocab_size,
            layer_norm_eps,
            dropouts,
            initializer_range,
            remarks: self.remarks,
        })
    }

    /// The number of attention heads, which divides the hidden size.
    fn heads(&mut self, architecture: Architecture, hidden_size: i64) -> Result<i64> {
        let keys = &architecture.keys;
        let heads = self.size(keys.num_attention_heads, 12, 1 << 10)?;
        if hidden_size % heads == 0 {
            return Ok(heads);
        }
        let mut expected = format!("a divisor of {}, {hidden_size}", keys.hidden_size);
        if !self.value.contains_key(keys.num_attention_heads) {
            expected += ", in config.json; 12 is transformers' default";
        }
        self.bad(keys.num_attention_heads, &heads, &expected)
    }

    /// The padding id. `None` if the vocabulary has no such id, which only an architecture whose
    /// positions start at 0 allows.
    fn pad_token_id(&self, architecture: Architecture, vocab_size: i64) -> Result<Option<i64>> {
        const KEY: &str = "pad_token_id";
        let id = match self.value.get(KEY) {
            None => Some(architecture.defaults.pad_token_id),
            Some(Value::Null) => None,
            Some(value) => match value.as_i64() {
                Some(id) => Some(id),
                None => return self.bad(KEY, value, "an id, or null"),
            },
        };
        let id = id.filter(|id| (0..vocab_size).contains(id));
        if architecture.positions_after_padding && id.is_none() {
            let found = self.value.get(KEY).unwrap_or(&Value::Null);
            return self.bad(KEY, found, &format!("an id from 0 to {}", vocab_size - 1));
        }
        Ok(id)
    }

    fn dropouts(&self, architecture: Architecture) -> Result<Dropouts> {
        let keys = &architecture.keys;
        let default = architecture.classifier_dropout;
        let classifier = match (self.value.get(keys.classifier_dropout), default) {
            (None, default) => default,
            (Some(Value::Null), None) => None,
            (Some(_), _) => Some(self.probability(keys.classifier_dropout, 0.0)?),
        };
        Ok(Dropouts {
            hidden: self.probability(keys.hidden_dropout, 0.1)?,
            attention: self.probability(keys.attention_dropout, 0.1)?,
            classifier,
        })
    }

    fn activation(&self, key: &str) -> Result<Activation> {
        let name = match self.value.get(key) {
            None => "gelu",
            Some(value) => value.as_str().unwrap_or_default(),
        };
        match Activation::from_name(name) {
            Some(activation) => Ok(activation),
            None => {
                let names = Activation::NAMES.map(|(name, _)| name).join(", ");
                self.bad(key, self.value.get(key).unwrap_or(&Value::Null), &names)
            }
        }
    }

    /// Checks that positions are absolute, that is, added to the embeddings. transformers 5 adds
    /// them whatever `position_embedding_type` says.
    fn check_positions(&mut self, architecture: Architecture) -> Result<()> {
        const KEY: &str = "position_embedding_type";
        if !architecture.own_keys.iter().any(|(key, _)| *key == KEY) {
            return Ok(());
        }
        match self.value.get(KEY) {
            None => {}
            Some(Value::Null) => self.remarks.push(format!(
                "{KEY} is null: absolute positions are used, as in transformers 5; version 4 uses none"
            )),
            Some(Value::String(kind)) if kind == "absolute" => {}
            Some(other) => {
                let expected = "absolute; other positions are not supported (transformers 5 uses absolute ones anyway)";
                return self.bad(KEY, other, expected);
            }
        }
        Ok(())
    }

    /// The supported values of `model_type`.
    fn supported(&self) -> String {
        let names: Vec<&str> = self.architectures.iter().map(|a| a.model_type).collect();
        names.join(", ")
    }
}
