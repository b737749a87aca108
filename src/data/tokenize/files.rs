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
    /// The file that holds the vocabulary, for messages.
    pub vocab_file: PathBuf,
    /// Ids by token, added tokens aside.
    pub vocab: HashMap<String, u32>,
    /// How words become tokens.
    pub kind: Kind,
    /// What stands for the unknown; where there is none, the unknown is left out.
    pub unk: Option<String>,
    /// The token before a text.
    pub cls: u32,
    /// The token after it.
    pub sep: u32,
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

/// `tokenizer_config.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    tokenizer_class: Option<String>,
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    add_prefix_space: Option<bool>,
    #[serde(flatten)]
    specials: Specials,
    added_tokens_decoder: BTreeMap<u32, AddedToken>,
}

/// Special tokens, in `tokenizer_config.json` or `special_tokens_map.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Specials {
    cls_token: Option<Special>,
    sep_token: Option<Special>,
    unk_token: Option<Special>,
    pad_token: Option<Special>,
    mask_token: Option<Special>,
    bos_token: Option<Special>,
    eos_token: Option<Special>,
    additional_special_tokens: Option<Vec<Special>>,
}

/// A special token, as a string or as an object.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Special {
    Text(String),
    Token(AddedToken),
}

impl Special {
    fn token(&self) -> AddedToken {
        match self {
            Self::Text(content) => AddedToken::new(content.clone(), false),
            Self::Token(token) => token.clone(),
        }
    }
}

impl Specials {
    /// What `other` has, over what is here.
    fn overlaid(self, other: Self) -> Self {
        Self {
            cls_token: other.cls_token.or(self.cls_token),
            sep_token: other.sep_token.or(self.sep_token),
            unk_token: other.unk_token.or(self.unk_token),
            pad_token: other.pad_token.or(self.pad_token),
            mask_token: other.mask_token.or(self.mask_token),
            bos_token: other.bos_token.or(self.bos_token),
            eos_token: other.eos_token.or(self.eos_token),
            additional_special_tokens: other
                .additional_special_tokens
                .or(self.additional_special_tokens),
        }
    }

    /// With the defaults of BERT's or RoBERTa's class in transformers: cls, sep, unk, and then all of them.
    fn named(&self, roberta: bool) -> ([String; 3], Vec<AddedToken>) {
        let [cls, sep, unk, pad] = if roberta {
            ["<s>", "</s>", "<unk>", "<pad>"]
        } else {
            ["[CLS]", "[SEP]", "[UNK]", "[PAD]"]
        };
        let token = |given: &Option<Special>, default: &str| match given {
            Some(special) => special.token(),
            None => AddedToken::new(default.to_owned(), false),
        };
        let (cls, sep) = (token(&self.cls_token, cls), token(&self.sep_token, sep));
        let (unk, pad) = (token(&self.unk_token, unk), token(&self.pad_token, pad));
        let mask = match &self.mask_token {
            Some(Special::Token(token)) => token.clone(),
            given => {
                let content = match given {
                    Some(Special::Text(content)) => content.as_str(),
                    _ if roberta => "<mask>",
                    _ => "[MASK]",
                };
                // RoBERTa's takes the space before it along.
                AddedToken { lstrip: roberta, ..AddedToken::new(content.to_owned(), false) }
            }
        };
        let names = [&cls, &sep, &unk].map(|token| token.content.clone());
        let more = self.additional_special_tokens.iter().flatten();
        let more = [&self.bos_token, &self.eos_token].into_iter().flatten().chain(more);
        let all = [cls, sep, unk, pad, mask].into_iter().chain(more.map(Special::token)).collect();
        (names, all)
    }
}

/// Classes of tokenizers, each with `Fast` or without; the last two are whatever their tokenizer.json says.
const CLASSES: [&str; 5] = [
    "BertTokenizer",
    "DistilBertTokenizer",
    "RobertaTokenizer",
    "PreTrainedTokenizer",
    "TokenizersBackend",
];

/// Everything beside the vocabulary that has a say.
struct Settings {
    /// `None` where there is no tokenizer_config.json.
    config: Option<Config>,
    /// Whether the class has no defaults of its own.
    generic: bool,
    specials: Specials,
    /// Tokens with their ids, from tokenizer_config.json, or else added_tokens.json.
    added: Vec<AddedToken>,
}

impl Settings {
    fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer_config.json");
        let mut config: Option<Config> = read_json(&path)?;
        // The class may be named beside the model's shape instead.
        let model: Option<Value> = read_json(&dir.join("config.json"))?;
        let mut named =
            config.as_ref().and_then(|config| config.tokenizer_class.clone()).map(|c| (c, path));
        if named.is_none() {
            let class = model.as_ref().and_then(|model| model.get("tokenizer_class")?.as_str());
            let class = class.map(str::to_owned);
            named = class.map(|class| (class, dir.join("config.json")));
        }
        let class = named.as_ref().map(|(class, _)| class.strip_suffix("Fast").unwrap_or(class));
        if let (Some(found), Some((_, path))) = (class.filter(|c| !CLASSES.contains(c)), &named) {
            let supported = CLASSES.join(", ");
            let problem = format!(
                "tokenizer_class: found {found}, supported: {supported} (each with Fast or without)"
            );
            return Err(Error::file(path, problem));
        }
        let generic = class.is_some_and(|class| CLASSES.iter().skip(3).any(|c| *c == class));
        let mut specials = Specials::default();
        let mut added = vec![];
        if let Some(config) = &mut config {
            specials = std::mem::take(&mut config.specials);
            let decoder = std::mem::take(&mut config.added_tokens_decoder);
            added = decoder.into_iter().map(|(id, token)| AddedToken { id, ..token }).collect();
        }
        // The files of older versions of transformers, which newer ones leave unread.
        if added.is_empty() {
            let map: Option<Specials> = read_json(&dir.join("special_tokens_map.json"))?;
            specials = specials.overlaid(map.unwrap_or_default());
            let ids: Option<BTreeMap<String, u32>> = read_json(&dir.join("added_tokens.json"))?;
            let (_, known) = specials.named(false);
            for (content, id) in ids.unwrap_or_default() {
                let special = known.iter().find(|token| token.content == content).cloned();
                let token = special.unwrap_or_else(|| AddedToken::new(content, true));
                added.push(AddedToken { id, ..token });
            }
        }
        Ok(Self { config, generic, specials, added })
    }

    /// An option of the tokenizer: tokenizer_config.json's, which has its class's default where it is silent; where there is no
    /// such file, or the class has no defaults, what was `saved` in tokenizer.json.
    fn option<T>(&self, said: impl Fn(&Config) -> Option<T>, default: T, saved: T) -> T {
        match &self.config {
            Some(config) if !self.generic => said(config).unwrap_or(default),
            _ => saved,
        }
    }
}

impl Description {
    /// Reads the directory `dir`.
    pub fn read(dir: &Path) -> Result<Self> {
        let there = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
        let settings = Settings::read(dir)?;
        if let Some(path) = there("tokenizer.json") {
            from_json(path, &settings)
        } else if let Some(path) = there("vocab.txt") {
            from_vocab_txt(path, &settings)
        } else if let (Some(vocab), Some(merges)) = (there("vocab.json"), there("merges.txt")) {
            from_merges(vocab, &merges, &settings)
        } else {
            let expected = "tokenizer.json, or vocab.txt (BERT, DistilBERT), or vocab.json and merges.txt (RoBERTa)";
            Err(Error::file(dir, format!("no tokenizer there; expected {expected}")))
        }
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = read_text(path)?;
    serde_json::from_str(&text).map(Some).map_err(|e| Error::file(path, e.to_string()))
}

/// Added tokens, each once: those of tokenizer.json, over them those that are added with an id, and special ones that are in the
/// vocabulary.
fn all_added(
    saved: Vec<AddedToken>,
    settings: &Settings,
    specials: Vec<AddedToken>,
    vocab: &HashMap<String, u32>,
) -> Vec<AddedToken> {
    let mut all: Vec<AddedToken> = vec![];
    let mut places: HashMap<String, usize> = HashMap::new();
    for token in saved.into_iter().chain(settings.added.iter().cloned()) {
        match places.get(&token.content).and_then(|&place| all.get_mut(place)) {
            Some(saved) => *saved = AddedToken { id: saved.id, ..token },
            None => {
                places.insert(token.content.clone(), all.len());
                all.push(token);
            }
        }
    }
    for token in specials {
        if let Some(&id) = vocab.get(&token.content)
            && !places.contains_key(&token.content)
        {
            places.insert(token.content.clone(), all.len());
            all.push(AddedToken { id, ..token });
        }
    }
    all.retain(|token| !token.content.is_empty());
    all
}

/// From a vocabulary without a tokenizer.json.
fn plain(
    path: PathBuf,
    vocab: HashMap<String, u32>,
    kind: Kind,
    settings: &Settings,
) -> Result<Description> {
    let roberta = matches!(kind, Kind::Bpe { .. });
    let ([cls, sep, unk], specials) = settings.specials.named(roberta);
    let added = all_added(vec![], settings, specials, &vocab);
    let id = |token: &str| {
        let added = added.iter().find(|added| added.content == token).map(|added| added.id);
        let missing = || Error::file(&path, format!("no {token} in the vocabulary"));
        added.or_else(|| vocab.get(token).copied()).ok_or_else(missing)
    };
    let (cls, sep) = (id(&cls)?, id(&sep)?);
    // Byte-level vocabularies know every byte.
    let unk = if roberta {
        None
    } else {
        id(&unk)?;
        Some(unk)
    };
    Ok(Description { vocab_file: path, vocab, kind, unk, cls, sep, added })
}

/// A token a line, its id the line's number.
fn from_vocab_txt(path: PathBuf, settings: &Settings) -> Result<Description> {
    let text = read_text(&path)?;
    let vocab: HashMap<String, u32> = text
        .lines()
        .zip(0..)
        .filter(|(token, _)| !token.is_empty())
        .map(|(token, id)| (token.to_owned(), id))
        .collect();
    let config = settings.config.as_ref();
    let said = |option: fn(&Config) -> Option<bool>| config.and_then(option);
    let kind = Kind::WordPiece(BertOptions {
        clean_text: true,
        tokenize_chinese_chars: said(|c| c.tokenize_chinese_chars).unwrap_or(true),
        strip_accents: said(|c| c.strip_accents),
        do_lower_case: said(|c| c.do_lower_case).unwrap_or(true),
    });
    plain(path, vocab, kind, settings)
}

fn from_merges(path: PathBuf, merges_path: &Path, settings: &Settings) -> Result<Description> {
    let vocab: HashMap<String, u32> =
        serde_json::from_str(&read_text(&path)?).map_err(|e| Error::file(&path, e.to_string()))?;
    let text = read_text(merges_path)?;
    let mut merges = vec![];
    // The first line is the version.
    for (i, line) in text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty()) {
        let pair = line.split_once(' ').filter(|(_, b)| !b.contains(' '));
        let known = |(a, b): &(&str, &str)| {
            vocab.contains_key(*a)
                && vocab.contains_key(*b)
                && vocab.contains_key(&format!("{a}{b}"))
        };
        let Some((a, b)) = pair.filter(known) else {
            let problem =
                format!("found {line:?}, expected two tokens of the vocabulary, and both as one");
            return Err(Error::data(merges_path, i + 1, problem));
        };
        merges.push((a.to_owned(), b.to_owned()));
    }
    let add_prefix_space =
        settings.config.as_ref().and_then(|c| c.add_prefix_space).unwrap_or(false);
    plain(path, vocab, Kind::Bpe { merges, add_prefix_space }, settings)
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

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            found => Err(self.bad(key, found, "true or false")),
        }
    }

    /// A key that must be absent, null, or `allowed`.
    fn only(&self, key: &str, allowed: impl Into<Value>) -> Result<()> {
        let allowed = allowed.into();
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if *value == allowed => Ok(()),
            found => Err(self.bad(key, found, &format!("{allowed}, or null"))),
        }
    }
}

fn from_json(path: PathBuf, settings: &Settings) -> Result<Description> {
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
            model.only("continuing_subword_prefix", "##")?;
            model.only("max_input_chars_per_word", 100)?;
            if pre_type != "BertPreTokenizer" {
                return Err(other_kind("pre_tokenizer", pre_type, "BertPreTokenizer"));
            }
            if !["BertNormalizer", "none"].contains(&normalizer_type) {
                return Err(other_kind("normalizer", normalizer_type, "BertNormalizer"));
            }
            let flag = |key: &str| match &normalizer {
                Some(part) => part.flag(key),
                None => Ok(Some(false)),
            };
            let saved = |key: &str| Ok::<_, Error>(flag(key)?.unwrap_or(true));
            Kind::WordPiece(BertOptions {
                clean_text: saved("clean_text")?,
                tokenize_chinese_chars: settings.option(
                    |c| c.tokenize_chinese_chars,
                    true,
                    saved("handle_chinese_chars")?,
                ),
                strip_accents: settings.option(
                    |c| Some(c.strip_accents),
                    None,
                    flag("strip_accents")?,
                ),
                do_lower_case: settings.option(|c| c.do_lower_case, true, saved("lowercase")?),
            })
        }
        "BPE" => {
            model.only("dropout", 0.0)?;
            for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
                model.only(key, "")?;
            }
            for key in ["byte_fallback", "ignore_merges", "fuse_unk"] {
                model.only(key, false)?;
            }
            let Some(pre) = pre.as_ref().filter(|part| part.kind() == "ByteLevel") else {
                return Err(other_kind("pre_tokenizer", pre_type, "ByteLevel"));
            };
            pre.only("use_regex", true)?;
            if normalizer.is_some() {
                return Err(other_kind("normalizer", normalizer_type, "none"));
            }
            let saved = pre.flag("add_prefix_space")?.unwrap_or(true);
            // A class without defaults has this one.
            let add_prefix_space = match &settings.config {
                Some(config) => config.add_prefix_space.unwrap_or(false),
                None => saved,
            };
            Kind::Bpe { merges: merges(&model)?, add_prefix_space }
        }
        _ => return Err(other_kind("model", model_type, "WordPiece or BPE")),
    };
    let vocab = match model.value.get("vocab") {
        Some(Value::Object(vocab)) => vocab,
        found => return Err(model.bad("vocab", found, "an object of ids by token")),
    };
    let id = |(token, id): (&String, &Value)| {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let bad = || model.bad(&format!("vocab[{token:?}]"), Some(id), "an id");
        number.map(|id| (token.clone(), id)).ok_or_else(bad)
    };
    let vocab = vocab.iter().map(id).collect::<Result<HashMap<_, _>>>()?;
    let roberta = matches!(kind, Kind::Bpe { .. });
    let unk = match model.value.get("unk_token") {
        Some(Value::String(unk)) if vocab.contains_key(unk) => Some(unk.clone()),
        None | Some(Value::Null) if roberta => None,
        found => return Err(model.bad("unk_token", found, "a token of the vocabulary")),
    };
    let Some(post) = part("post_processor")? else {
        return Err(other_kind("post_processor", "none", PROCESSORS));
    };
    let (cls, sep) = ends(&post, roberta)?;
    let saved = whole.get("added_tokens").cloned().unwrap_or(Value::Array(vec![]));
    let saved: Vec<AddedToken> = serde_json::from_value(saved)
        .map_err(|e| Error::file(&path, format!("added_tokens: {e}")))?;
    let (_, specials) = settings.specials.named(roberta);
    let added = all_added(saved, settings, specials, &vocab);
    Ok(Description { vocab_file: path, vocab, kind, unk, cls, sep, added })
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

const PROCESSORS: &str = "TemplateProcessing, BertProcessing or RobertaProcessing";

/// The ids of the tokens before and after a text. A pair is `cls a sep b sep`, or RoBERTa's `cls a sep sep b sep`.
fn ends(post: &Part<'_>, roberta: bool) -> Result<(u32, u32)> {
    let of =
        |value: Option<&Value>| value.and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    match post.kind() {
        "BertProcessing" | "RobertaProcessing" => {
            let token = |key: &str| {
                let pair = post.value.get(key);
                let bad = || post.bad(key, pair, "a token and its id");
                of(pair.and_then(|pair| pair.get(1))).ok_or_else(bad)
            };
            let expected = if roberta { "RobertaProcessing" } else { "BertProcessing" };
            if post.kind() != expected {
                return Err(post.bad("type", post.value.get("type"), expected));
            }
            Ok((token("cls")?, token("sep")?))
        }
        "TemplateProcessing" => {
            let pieces = |key: &str| {
                let piece = |value: &Value| {
                    let (kind, piece) = value.as_object()?.iter().next()?;
                    let id = piece.get("id")?.as_str()?.to_owned();
                    Some((kind.clone(), id, piece.get("type_id")?.as_u64()?))
                };
                let written = post.value.get(key).and_then(Value::as_array);
                written
                    .into_iter()
                    .flatten()
                    .map(piece)
                    .collect::<Option<Vec<_>>>()
                    .unwrap_or_default()
            };
            let (single, pair) = (pieces("single"), pieces("pair"));
            let token = |i: usize| single.get(i).map_or("", |piece| piece.1.as_str());
            let (cls, sep) = (token(0), token(2));
            let (s, t, second) = ("SpecialToken", "Sequence", u64::from(!roberta));
            let one = vec![(s, cls, 0), (t, "A", 0), (s, sep, 0)];
            let mut two = one.clone();
            if roberta {
                two.push((s, sep, 0));
            }
            two.extend([(t, "B", second), (s, sep, second)]);
            for (key, found, expected) in [("single", &single, one), ("pair", &pair, two)] {
                if !found.iter().map(|p| (p.0.as_str(), p.1.as_str(), p.2)).eq(expected) {
                    let shape = if roberta {
                        "<s> A </s>, and <s> A </s> </s> B </s> of type 0"
                    } else {
                        "[CLS] A [SEP], and [CLS] A [SEP] of type 0, B [SEP] of type 1"
                    };
                    return Err(post.bad(key, post.value.get(key), shape));
                }
            }
            let id = |token: &str| {
                let ids =
                    post.value.get("special_tokens").and_then(|all| all.get(token)?.get("ids"));
                let ids = ids.and_then(Value::as_array).filter(|ids| ids.len() == 1);
                let bad = || {
                    post.bad(
                        "special_tokens",
                        post.value.get("special_tokens"),
                        "one id for each special token",
                    )
                };
                of(ids.and_then(|ids| ids.first())).ok_or_else(bad)
            };
            Ok((id(cls)?, id(sep)?))
        }
        _ => Err(post.bad("type", post.value.get("type"), PROCESSORS)),
    }
}
