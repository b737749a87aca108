//! What a model directory says of its tokenizer: `tokenizer.json`, or `vocab.txt`, or `vocab.json` with `merges.txt`, and
//! `tokenizer_config.json` with its relatives.

use super::added::AddedToken;
use crate::error::{Error, Result};
use crate::files::read_text;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Every file that may have a say; the copies of a run directory are of these names.
pub const FILES: [&str; 7] = [
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// A tokenizer as it is described.
pub struct Description {
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// The file that holds the vocabulary, for messages.
    pub vocab_file: PathBuf,
    /// Ids by token, added tokens aside.
    pub vocab: HashMap<String, u32>,
    /// How words become tokens.
    pub kind: Kind,
    /// What stands for the unknown.
    pub unk: String,
    /// The token before a text.
    pub cls: String,
    /// The token after it.
    pub sep: String,
    /// Tokens that are found in a text as they are.
    pub added: Vec<AddedToken>,
}

/// How words become tokens.
pub enum Kind {
    /// BERT's: a normalizer, then the longest pieces of each word.
    WordPiece(BertOptions),
    /// RoBERTa's: bytes, merged by rank.
    Bpe {
        /// The pairs, best first.
        merges: Vec<(String, String)>,
        /// Whether a text without a space before it gets one.
        add_prefix_space: bool,
    },
}

/// The options of BERT's normalizer.
#[derive(Debug, Clone, Copy)]
pub struct BertOptions {
    /// Control characters go, and every white space becomes a space.
    pub clean_text: bool,
    /// Spaces around each Chinese character.
    pub tokenize_chinese_chars: bool,
    /// By default as `do_lower_case`.
    pub strip_accents: Option<bool>,
    /// Everything in small letters.
    pub do_lower_case: bool,
}

/// `tokenizer_config.json`, and `special_tokens_map.json` where that is silent.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    tokenizer_class: Option<String>,
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    add_prefix_space: Option<bool>,
    cls_token: Option<Special>,
    sep_token: Option<Special>,
    unk_token: Option<Special>,
    pad_token: Option<Special>,
    mask_token: Option<Special>,
    added_tokens_decoder: BTreeMap<u32, AddedToken>,
}

/// A special token, as a string or as an object.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Special {
    Text(String),
    Token { content: String },
}

impl Special {
    fn content(&self) -> &str {
        match self {
            Self::Text(content) | Self::Token { content } => content,
        }
    }
}

/// Classes of `tokenizer_config.json`, with and without `Fast`; what a `PreTrainedTokenizerFast` is, its tokenizer.json says.
const CLASSES: [&str; 5] = [
    "BertTokenizer",
    "DistilBertTokenizer",
    "RobertaTokenizer",
    "PreTrainedTokenizer",
    "TokenizersBackend",
];

impl Description {
    /// Reads the directory `dir`.
    pub fn read(dir: &Path) -> Result<Self> {
        let there = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
        let files: Vec<PathBuf> = FILES.iter().filter_map(|name| there(name)).collect();
        let config_path = dir.join("tokenizer_config.json");
        let mut config: Config = read_json(&config_path)?.unwrap_or_default();
        let map: Config = read_json(&dir.join("special_tokens_map.json"))?.unwrap_or_default();
        config.cls_token = config.cls_token.or(map.cls_token);
        config.sep_token = config.sep_token.or(map.sep_token);
        config.unk_token = config.unk_token.or(map.unk_token);
        config.pad_token = config.pad_token.or(map.pad_token);
        config.mask_token = config.mask_token.or(map.mask_token);
        if let Some(class) = &config.tokenizer_class
            && !CLASSES.contains(&class.strip_suffix("Fast").unwrap_or(class))
        {
            let problem = format!(
                "tokenizer_class: found {class}, supported: {} (each with Fast or without)",
                CLASSES[..3].join(", ")
            );
            return Err(Error::file(&config_path, problem));
        }
        let mut description = if let Some(path) = there("tokenizer.json") {
            from_json(path, &config)?
        } else if let Some(path) = there("vocab.txt") {
            from_vocab_txt(path, &config)?
        } else if let (Some(vocab), Some(merges)) = (there("vocab.json"), there("merges.txt")) {
            from_merges(vocab, &merges, &config)?
        } else {
            let expected = "tokenizer.json, or vocab.txt (BERT, DistilBERT), or vocab.json and merges.txt (RoBERTa)";
            return Err(Error::file(dir, format!("no tokenizer there; expected {expected}")));
        };
        if !description.vocab_file.ends_with("tokenizer.json") {
            let added: Option<BTreeMap<String, u32>> = read_json(&dir.join("added_tokens.json"))?;
            description.add(config.added_tokens_decoder);
            let plain = |(content, id)| (id, AddedToken::new(content, true));
            description.add(added.unwrap_or_default().into_iter().map(plain));
        }
        description.files = files;
        Ok(description)
    }

    /// Adds tokens, each under its id, unless they are there.
    fn add(&mut self, tokens: impl IntoIterator<Item = (u32, AddedToken)>) {
        for (id, token) in tokens {
            let there = |other: &AddedToken| other.content == token.content;
            if !token.content.is_empty() && !self.added.iter().any(there) {
                self.added.push(AddedToken { id, ..token });
            }
        }
    }

    /// The id of a token, added ones included.
    pub fn id(&self, token: &str) -> Option<u32> {
        let added = self.added.iter().find(|added| added.content == token).map(|added| added.id);
        added.or_else(|| self.vocab.get(token).copied())
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = read_text(path)?;
    serde_json::from_str(&text).map(Some).map_err(|e| Error::file(path, e.to_string()))
}

/// Special tokens as the slow tokenizers of transformers add them: cls, sep, unk, pad, mask.
fn specials(
    config: &Config,
    vocab: &HashMap<String, u32>,
    defaults: [&str; 5],
) -> ([String; 5], Vec<AddedToken>) {
    let Config { cls_token, sep_token, unk_token, pad_token, mask_token, .. } = config;
    let given = [cls_token, sep_token, unk_token, pad_token, mask_token];
    let name = |i: usize| given[i].as_ref().map_or(defaults[i], Special::content).to_owned();
    let names: [String; 5] = std::array::from_fn(name);
    let mut added: Vec<AddedToken> = vec![];
    for name in &names {
        if let Some(&id) = vocab.get(name)
            && !added.iter().any(|token| token.content == *name)
        {
            added.push(AddedToken { id, ..AddedToken::new(name.clone(), false) });
        }
    }
    (names, added)
}

/// A token a line, its id the line's number.
fn from_vocab_txt(path: PathBuf, config: &Config) -> Result<Description> {
    let text = read_text(&path)?;
    let vocab: HashMap<String, u32> =
        text.lines().zip(0..).map(|(token, id)| (token.trim_end().to_owned(), id)).collect();
    let defaults = ["[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]"];
    let ([cls, sep, unk, ..], added) = specials(config, &vocab, defaults);
    let options = BertOptions {
        clean_text: true,
        tokenize_chinese_chars: config.tokenize_chinese_chars.unwrap_or(true),
        strip_accents: config.strip_accents,
        do_lower_case: config.do_lower_case.unwrap_or(true),
    };
    let kind = Kind::WordPiece(options);
    Ok(Description { files: vec![], vocab_file: path, vocab, kind, unk, cls, sep, added })
}

fn from_merges(path: PathBuf, merges_path: &Path, config: &Config) -> Result<Description> {
    let vocab: HashMap<String, u32> =
        serde_json::from_str(&read_text(&path)?).map_err(|e| Error::file(&path, e.to_string()))?;
    let text = read_text(merges_path)?;
    let mut merges = vec![];
    for (i, line) in text.lines().enumerate() {
        if line.trim().is_empty() || (i == 0 && line.starts_with("#version")) {
            continue;
        }
        let pair = line.trim_end().split_once(' ').filter(|(_, b)| !b.contains(' '));
        let Some((a, b)) = pair else {
            return Err(Error::data(
                merges_path,
                i + 1,
                format!("found {line:?}, expected two tokens"),
            ));
        };
        merges.push((a.to_owned(), b.to_owned()));
    }
    let defaults = ["<s>", "</s>", "<unk>", "<pad>", "<mask>"];
    let ([cls, sep, unk, _, mask], mut added) = specials(config, &vocab, defaults);
    for token in &mut added {
        // RobertaTokenizer's mask takes the space before it along.
        token.lstrip = token.content == mask;
    }
    let kind = Kind::Bpe { merges, add_prefix_space: config.add_prefix_space.unwrap_or(false) };
    Ok(Description { files: vec![], vocab_file: path, vocab, kind, unk, cls, sep, added })
}

/// A part of a `tokenizer.json`.
struct Part<'a> {
    path: &'a Path,
    name: &'a str,
    value: &'a Map<String, Value>,
}

impl<'a> Part<'a> {
    fn new(path: &'a Path, whole: &'a Map<String, Value>, name: &'a str) -> Result<Option<Self>> {
        match whole.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(value)) => Ok(Some(Self { path, name, value })),
            Some(_) => Err(Error::file(path, format!("{name}: expected an object"))),
        }
    }

    fn bad(&self, key: &str, found: Option<&Value>, expected: &str) -> Error {
        let found = found.map_or("nothing".into(), |value| {
            let text = value.to_string();
            text.chars().take(60).collect::<String>()
        });
        Error::file(self.path, format!("{}.{key}: found {found}, expected {expected}", self.name))
    }

    fn kind(&self) -> &str {
        self.value.get("type").and_then(Value::as_str).unwrap_or("none")
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            found => Err(self.bad(key, found, "true or false")),
        }
    }

    /// A key that must be absent, null, or one of these values.
    fn only(&self, key: &str, allowed: &[Value]) -> Result<()> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if allowed.contains(value) => Ok(()),
            found => {
                Err(self.bad(key, found, &allowed.first().map_or("null".into(), Value::to_string)))
            }
        }
    }
}

fn from_json(path: PathBuf, config: &Config) -> Result<Description> {
    let text = read_text(&path)?;
    let whole: Map<String, Value> =
        serde_json::from_str(&text).map_err(|e| Error::file(&path, e.to_string()))?;
    let part = |name| Part::new(&path, &whole, name);
    let other_kind = |name: &str, found: &str, expected: &str| {
        let problem = format!("a tokenizer of another kind: {name} {found}, expected {expected}");
        Error::file(&path, problem)
    };
    let Some(model) = part("model")? else {
        return Err(other_kind("model", "none", "WordPiece or BPE"));
    };
    // Files of the first versions do not say the type.
    let guess = if model.value.contains_key("merges") { "BPE" } else { "WordPiece" };
    let model_type = model.value.get("type").map_or(Some(guess), Value::as_str).unwrap_or("none");
    let pre = part("pre_tokenizer")?;
    let pre_type = pre.as_ref().map_or("none", Part::kind);
    let normalizer = part("normalizer")?;
    let normalizer_type = normalizer.as_ref().map_or("none", Part::kind);
    let kind = match model_type {
        "WordPiece" => {
            model.only("continuing_subword_prefix", &["##".into()])?;
            model.only("max_input_chars_per_word", &[100.into()])?;
            if pre_type != "BertPreTokenizer" {
                return Err(other_kind("pre_tokenizer", pre_type, "BertPreTokenizer"));
            }
            let flag = |key: &str| match &normalizer {
                Some(part) => part.flag(key, true),
                None => Ok(false),
            };
            if !["BertNormalizer", "none"].contains(&normalizer_type) {
                return Err(other_kind("normalizer", normalizer_type, "BertNormalizer"));
            }
            let strip = normalizer.as_ref().and_then(|part| part.value.get("strip_accents"));
            let strip = match strip {
                None | Some(Value::Null) => None,
                Some(Value::Bool(strip)) => Some(*strip),
                Some(_) => {
                    return Err(other_kind("normalizer.strip_accents", "no flag", "true or false"));
                }
            };
            // What tokenizer_config.json says aloud is later than what was saved here.
            Kind::WordPiece(BertOptions {
                clean_text: flag("clean_text")?,
                tokenize_chinese_chars: config
                    .tokenize_chinese_chars
                    .map_or_else(|| flag("handle_chinese_chars"), Ok)?,
                strip_accents: config.strip_accents.or(strip),
                do_lower_case: config.do_lower_case.map_or_else(|| flag("lowercase"), Ok)?,
            })
        }
        "BPE" => {
            for key in ["dropout", "continuing_subword_prefix", "end_of_word_suffix"] {
                model.only(key, &["".into()])?;
            }
            for key in ["byte_fallback", "ignore_merges", "fuse_unk"] {
                model.only(key, &[false.into()])?;
            }
            let Some(pre) = pre.as_ref().filter(|part| part.kind() == "ByteLevel") else {
                return Err(other_kind("pre_tokenizer", pre_type, "ByteLevel"));
            };
            pre.only("use_regex", &[true.into()])?;
            if normalizer.is_some() {
                return Err(other_kind("normalizer", normalizer_type, "none"));
            }
            let add_prefix_space =
                config.add_prefix_space.map_or_else(|| pre.flag("add_prefix_space", true), Ok)?;
            Kind::Bpe { merges: merges(&model)?, add_prefix_space }
        }
        _ => return Err(other_kind("model", model_type, "WordPiece or BPE")),
    };
    let vocab = match model.value.get("vocab") {
        Some(Value::Object(vocab)) => vocab,
        found => return Err(model.bad("vocab", found, "an object of ids by token")),
    };
    let id = |(token, id): (&String, &Value)| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        id.map(|id| (token.clone(), id)).ok_or_else(|| model.bad("vocab", None, "ids by token"))
    };
    let vocab = vocab.iter().map(id).collect::<Result<HashMap<_, _>>>()?;
    let unk = match model.value.get("unk_token") {
        Some(Value::String(unk)) => unk.clone(),
        _ => config.unk_token.as_ref().map_or("<unk>", Special::content).to_owned(),
    };
    let (cls, sep) = match part("post_processor")? {
        Some(post) => ends(&post, matches!(kind, Kind::Bpe { .. }))?,
        None => {
            return Err(other_kind(
                "post_processor",
                "none",
                "TemplateProcessing, BertProcessing or RobertaProcessing",
            ));
        }
    };
    let mut description = Description {
        files: vec![],
        vocab_file: path.clone(),
        vocab,
        kind,
        unk,
        cls,
        sep,
        added: vec![],
    };
    let added = whole.get("added_tokens").cloned().unwrap_or(Value::Array(vec![]));
    let added: Vec<AddedToken> = serde_json::from_value(added)
        .map_err(|e| Error::file(&path, format!("added_tokens: {e}")))?;
    description.add(added.into_iter().map(|token| (token.id, token)));
    Ok(description)
}

/// Pairs, as two tokens in a string or in an array.
fn merges(model: &Part<'_>) -> Result<Vec<(String, String)>> {
    let Some(Value::Array(written)) = model.value.get("merges") else {
        return Err(model.bad("merges", model.value.get("merges"), "an array of pairs"));
    };
    let pair = |value: &Value| {
        let (a, b) = match value {
            Value::String(text) => text.split_once(' ')?,
            Value::Array(pair) => match &pair[..] {
                [Value::String(a), Value::String(b)] => (a.as_str(), b.as_str()),
                _ => return None,
            },
            _ => return None,
        };
        Some((a.to_owned(), b.to_owned()))
    };
    let check = |value| pair(value).ok_or_else(|| model.bad("merges", Some(value), "two tokens"));
    written.iter().map(check).collect()
}

/// The tokens before and after a text. A pair is `cls a sep b sep`, or RoBERTa's `cls a sep sep b sep`.
fn ends(post: &Part<'_>, roberta: bool) -> Result<(String, String)> {
    let shape = if roberta { "<s> A </s> </s> B </s>" } else { "[CLS] A [SEP] B [SEP]" };
    match post.kind() {
        "BertProcessing" | "RobertaProcessing" => {
            let token = |key: &str| match post.value.get(key).and_then(|value| value.get(0)) {
                Some(Value::String(token)) => Ok(token.clone()),
                found => Err(post.bad(key, found, "a token and its id")),
            };
            if (post.kind() == "RobertaProcessing") != roberta {
                return Err(post.bad("type", post.value.get("type"), shape));
            }
            Ok((token("cls")?, token("sep")?))
        }
        "TemplateProcessing" => {
            let pair = post.value.get("pair").and_then(Value::as_array);
            let piece = |value: &Value| {
                let (kind, piece) = value.as_object()?.iter().next()?;
                Some((
                    kind.clone(),
                    piece.get("id")?.as_str()?.to_owned(),
                    piece.get("type_id")?.as_u64()?,
                ))
            };
            let pieces: Vec<_> = pair.into_iter().flatten().filter_map(piece).collect();
            let special =
                |i: usize| pieces.get(i).filter(|p| p.0 == "SpecialToken").map(|p| p.1.clone());
            if let (Some(cls), Some(sep)) = (special(0), special(2)) {
                let (s, t) = ("SpecialToken", "Sequence");
                let second = u64::from(!roberta);
                let mut expected = vec![(s, cls.as_str(), 0), (t, "A", 0), (s, sep.as_str(), 0)];
                if roberta {
                    expected.push((s, &sep, 0));
                }
                expected.extend([(t, "B", second), (s, &sep, second)]);
                if pieces.iter().map(|p| (p.0.as_str(), p.1.as_str(), p.2)).eq(expected) {
                    return Ok((cls, sep));
                }
            }
            Err(post.bad("pair", post.value.get("pair"), shape))
        }
        _ => Err(post.bad(
            "type",
            post.value.get("type"),
            "TemplateProcessing, BertProcessing or RobertaProcessing",
        )),
    }
}
