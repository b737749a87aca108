//! The files of a model directory that describe its tokenizer, read but not interpreted:
//! `tokenizer.json`, `vocab.txt`, or `vocab.json` with `merges.txt`; and `tokenizer_config.json`,
//! `special_tokens_map.json` and `added_tokens.json`.

use crate::error::{Error, Result};
use crate::escape;
use crate::files::{is_there, read_small_text};
use crate::models::{TokenAlgorithm, by_model_type};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Files that can affect token ids. A run directory has copies with these names.
pub const FILES: [&str; 7] = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// Maximum bytes of a file, and of all JSON files together, whose values may take 40 times as much
/// memory. A tokenizer.json of half a million tokens has 10 MB.
pub const MAX_BYTES: u64 = 32 << 20;

/// A JSON object, its keys in the file's order.
pub type JsonObject = Map<String, Value>;

/// A tokenizer class of transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerClass {
    /// `BertTokenizer`, which builds its pipeline itself, and takes only vocabulary and added
    /// tokens from a tokenizer.json.
    Bert,
    /// `DistilBertTokenizer`, like `BertTokenizer` without segments.
    DistilBert,
    /// `RobertaTokenizer`, which also builds its pipeline itself.
    Roberta,
    /// `PreTrainedTokenizer`, `PreTrainedTokenizerFast` and `TokenizersBackend`, which take
    /// tokenizer.json whole.
    Whole,
}

/// Names of the classes; each may have the suffix `Fast`.
const CLASSES: [(&str, TokenizerClass); 5] = [
    ("BertTokenizer", TokenizerClass::Bert),
    ("DistilBertTokenizer", TokenizerClass::DistilBert),
    ("RobertaTokenizer", TokenizerClass::Roberta),
    ("PreTrainedTokenizer", TokenizerClass::Whole),
    ("TokenizersBackend", TokenizerClass::Whole),
];

/// The vocabulary as read from its file.
pub enum Vocabulary {
    /// `tokenizer.json`.
    Json(PathBuf, JsonObject),
    /// `vocab.txt`.
    Lines(PathBuf, String),
    /// `vocab.json` and `merges.txt`.
    Pairs {
        /// Path of `vocab.json`.
        path: PathBuf,
        /// Ids by token.
        ids: JsonObject,
        /// Path of `merges.txt`.
        merges_path: PathBuf,
        /// Text of `merges.txt`, a pair per line.
        merges: String,
    },
}

/// The tokenizer files of a directory.
pub struct TokenizerFiles {
    /// `tokenizer_config.json`.
    pub config: Option<JsonObject>,
    /// `special_tokens_map.json`.
    pub specials: Option<JsonObject>,
    /// `added_tokens.json`.
    pub added: Option<JsonObject>,
    /// The vocabulary; of `tokenizer.json`, the whole file.
    pub vocabulary: Vocabulary,
    /// The class that transformers loads.
    pub class: TokenizerClass,
    /// The name of the class, if only config.json has it.
    pub class_of_model: Option<String>,
    /// Whether config.json names an architecture with segments.
    pub segments: bool,
}

impl TokenizerFiles {
    /// Reads the tokenizer files of `dir`. Errs if there is no vocabulary, or if the class is not
    /// supported.
    pub fn read(dir: &Path) -> Result<Self> {
        let json = FILES.iter().filter(|name| name.ends_with(".json"));
        let size = |name: &&str| std::fs::metadata(dir.join(name)).map_or(0, |about| about.len());
        let sizes: Vec<u64> = json.map(size).filter(|size| *size <= MAX_BYTES).collect();
        let size: u64 = sizes.iter().sum();
        if size > MAX_BYTES {
            let problem = format!(
                "the tokenizer's JSON files have {size} bytes in total, expected at most {MAX_BYTES}"
            );
            return Err(Error::file(dir, problem));
        }
        let config_path = dir.join("tokenizer_config.json");
        let config = read_json(&config_path)?;
        let model_path = dir.join("config.json");
        let model = read_json(&model_path)?.unwrap_or_default();
        let said = named_class(&config_path, config.as_ref())?;
        // Some models name the class only in config.json.
        let in_model = if said.is_none() { named_class(&model_path, Some(&model))? } else { None };
        let class_of_model = in_model.as_ref().map(|(name, _)| name.clone());
        let said = said.or(in_model).map(|(_, class)| class);
        let tokens = model.get("model_type").and_then(Value::as_str).and_then(by_model_type);
        let tokens = tokens.map(|architecture| architecture.tokens);
        let usual = tokens.map(|tokens| match tokens.algorithm {
            TokenAlgorithm::WordPiece => TokenizerClass::Bert,
            TokenAlgorithm::ByteLevelBpe => TokenizerClass::Roberta,
        });
        let (vocabulary, found) = read_vocabulary(dir, said.or(usual))?;
        Ok(Self {
            specials: read_json(&dir.join("special_tokens_map.json"))?,
            added: read_json(&dir.join("added_tokens.json"))?,
            config,
            vocabulary,
            class: said.or(usual).unwrap_or(found),
            class_of_model,
            segments: tokens.is_some_and(|tokens| tokens.segments),
        })
    }

    /// The value of `key` in tokenizer_config.json.
    pub fn said(&self, key: &str) -> Option<&Value> {
        self.config.as_ref()?.get(key)
    }
}

/// The tokenizer class that a file names, and its name there; `None` if it names none. Errs if the
/// class is not supported.
fn named_class(
    path: &Path,
    object: Option<&JsonObject>,
) -> Result<Option<(String, TokenizerClass)>> {
    let name = match object.and_then(|object| object.get("tokenizer_class")) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(name)) => name,
        Some(other) => {
            let problem = format!("tokenizer_class: found {}, expected a name", short(other));
            return Err(Error::file(path, problem));
        }
    };
    let bare = name.strip_suffix("Fast").unwrap_or(name);
    if let Some((_, class)) = CLASSES.iter().find(|(known, _)| *known == bare) {
        return Ok(Some((name.clone(), *class)));
    }
    let supported = CLASSES.map(|(name, _)| name).join(", ");
    let problem = format!(
        "tokenizer_class: found {}, expected one of {supported} (with or without Fast at the end)",
        cut(name)
    );
    Err(Error::file(path, problem))
}

/// Reads the vocabulary for a tokenizer of `class`; if that is `None`, whichever vocabulary there
/// is. Also returns the class that usually has such files.
fn read_vocabulary(
    dir: &Path,
    class: Option<TokenizerClass>,
) -> Result<(Vocabulary, TokenizerClass)> {
    let may_be = |other: TokenizerClass| class.is_none_or(|class| class == other);
    let lines = may_be(TokenizerClass::Bert) || may_be(TokenizerClass::DistilBert);
    if let Some(whole) = read_json(&dir.join("tokenizer.json"))? {
        let pairs = whole.get("model").is_some_and(|model| model.get("merges").is_some());
        let found = if pairs { TokenizerClass::Roberta } else { TokenizerClass::Bert };
        return Ok((Vocabulary::Json(dir.join("tokenizer.json"), whole), found));
    }
    let path = dir.join("vocab.txt");
    if lines && is_there(&path)? {
        let text = read_small_text(&path, MAX_BYTES)?;
        return Ok((Vocabulary::Lines(path, text), TokenizerClass::Bert));
    }
    let (path, merges_path) = (dir.join("vocab.json"), dir.join("merges.txt"));
    if may_be(TokenizerClass::Roberta)
        && is_there(&merges_path)?
        && let Some(ids) = read_json(&path)?
    {
        let merges = read_small_text(&merges_path, MAX_BYTES)?;
        let pairs = Vocabulary::Pairs { path, ids, merges_path, merges };
        return Ok((pairs, TokenizerClass::Roberta));
    }
    let expected = match class {
        None => {
            "tokenizer.json, or vocab.txt (BERT, DistilBERT), or vocab.json and merges.txt (RoBERTa)"
        }
        Some(TokenizerClass::Bert | TokenizerClass::DistilBert) => "tokenizer.json or vocab.txt",
        Some(TokenizerClass::Roberta) => "tokenizer.json, or vocab.json and merges.txt",
        Some(TokenizerClass::Whole) => "tokenizer.json, which this tokenizer_class is read from",
    };
    Err(Error::file(dir, format!("no tokenizer found; expected {expected}")))
}

/// Reads a JSON object; `None` if the file does not exist.
fn read_json(path: &Path) -> Result<Option<JsonObject>> {
    if !is_there(path)? {
        return Ok(None);
    }
    let text = read_small_text(path, MAX_BYTES)?;
    match serde_json::from_str(&text).map_err(|e| Error::file(path, e.to_string()))? {
        Value::Object(object) => Ok(Some(object)),
        other => Err(Error::file(path, format!("found {}, expected an object", short(&other)))),
    }
}

/// The beginning of a value, for messages.
pub fn short(value: &Value) -> String {
    match value {
        // A large value is not formatted whole only to be cut.
        Value::Array(all) if all.len() > 8 => format!("a list of {}", all.len()),
        Value::Object(all) if all.len() > 8 => format!("an object of {} keys", all.len()),
        Value::String(text) => format!("{:?}", cut(text)),
        other => cut(&other.to_string()),
    }
}

/// The beginning of a text, for messages.
pub fn cut(text: &str) -> String {
    escape::short(text, 60)
}
