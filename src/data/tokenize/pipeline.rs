//! The pipeline of a `tokenizer.json`, if it is BERT's or RoBERTa's. Any other is refused, with
//! what is different.

use super::files::{JsonObject, TokenizerClass, cut, short};
use super::form::TokenizerForm;
use super::settings::check_part;
use super::wordpiece::{BertOptions, LONGEST};
use crate::error::{Error, Result};
use crate::models::TokenAlgorithm;
use serde_json::Value;
use std::path::Path;

/// A `tokenizer.json` without its vocabulary and added tokens.
pub struct Pipeline {
    /// Options of BERT's kind.
    pub options: BertOptions,
    /// RoBERTa's option: whether a text that does not start with a space gets one.
    pub add_prefix_space: bool,
    /// The unknown token.
    pub unk: Option<String>,
    /// Id of the token before a text.
    pub cls: u32,
    /// Id of the token after a text.
    pub sep: u32,
    /// The padding token.
    pub pad: Option<String>,
    /// Whether the end of a text that is too long is kept, instead of its beginning.
    pub left: bool,
}

/// A part of a `tokenizer.json`.
struct Component<'a> {
    path: &'a Path,
    name: &'a str,
    value: &'a JsonObject,
}

impl<'a> Component<'a> {
    fn new(path: &'a Path, whole: &'a JsonObject, name: &'a str) -> Result<Option<Self>> {
        match whole.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(value)) => Ok(Some(Self { path, name, value })),
            Some(_) => Err(Error::file(path, format!("{name}: expected an object"))),
        }
    }

    fn bad(&self, key: &str, found: Option<&Value>, expected: &str) -> Error {
        let found = found.map_or("nothing".into(), short);
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
}

/// The parts of a `tokenizer.json` of BERT's or RoBERTa's kind.
struct Components<'a> {
    model: Component<'a>,
    pre: Option<Component<'a>>,
    normalizer: Option<Component<'a>>,
    post: Component<'a>,
    truncation: Option<Component<'a>>,
    padding: Option<Component<'a>>,
    form: &'static TokenizerForm,
}

impl<'a> Components<'a> {
    /// Finds the parts. Errs if one is of another kind than a tokenizer of `class` has.
    fn find(path: &'a Path, whole: &'a JsonObject, class: TokenizerClass) -> Result<Self> {
        let part = |name| Component::new(path, whole, name);
        let other_kind = |name: &str, found: &str, expected: &str| {
            let found = cut(found);
            let problem =
                format!("unsupported tokenizer: {name}: found {found}, expected {expected}");
            Error::file(path, problem)
        };
        let pieces = TokenizerForm::of(TokenAlgorithm::WordPiece);
        let pairs = TokenizerForm::of(TokenAlgorithm::ByteLevelBpe);
        let expected = match class {
            TokenizerClass::Bert | TokenizerClass::DistilBert => pieces.model,
            TokenizerClass::Roberta => pairs.model,
            TokenizerClass::Whole => "WordPiece or BPE",
        };
        let Some(model) = part("model")? else {
            return Err(other_kind("model", "none", expected));
        };
        // The first versions of `tokenizers` did not write the type.
        let guess = if model.value.contains_key("merges") { pairs.model } else { pieces.model };
        let model_type = model.value.get("type").map_or(Some(guess), Value::as_str);
        let model_type = model_type.unwrap_or("none");
        if expected != model_type
            && (class != TokenizerClass::Whole
                || ![pieces.model, pairs.model].contains(&model_type))
        {
            return Err(other_kind("model", model_type, expected));
        }
        let form = if model_type == pairs.model { pairs } else { pieces };
        let (pre, normalizer) = (part("pre_tokenizer")?, part("normalizer")?);
        let pre_type = pre.as_ref().map_or("none", Component::kind);
        if pre_type != form.pre_tokenizer {
            return Err(other_kind("pre_tokenizer", pre_type, form.pre_tokenizer));
        }
        let normalizer_type = normalizer.as_ref().map_or("none", Component::kind);
        if ![form.normalizer, "none"].contains(&normalizer_type) {
            return Err(other_kind("normalizer", normalizer_type, form.normalizer));
        }
        let Some(post) = part("post_processor")? else {
            return Err(other_kind("post_processor", "none", PROCESSORS));
        };
        let (truncation, padding) = (part("truncation")?, part("padding")?);
        Ok(Self { model, pre, normalizer, post, truncation, padding, form })
    }

    /// Errs if a part has a setting that is unknown or cannot be obeyed.
    fn check(&self, path: &Path) -> Result<()> {
        let post = &self.post;
        if !post.kind().contains("Processing") {
            return Err(post.bad("type", post.value.get("type"), PROCESSORS));
        }
        let parts = [&self.truncation, &self.padding, &self.normalizer, &self.pre];
        let mut parts = parts.into_iter().flatten().chain([post, &self.model]);
        parts.try_for_each(|part| check_part(path, part.name, part.value, self.form.settings))
    }
}

impl Pipeline {
    /// Reads the pipeline of `whole`, the contents of the file `path`, for a tokenizer of `class`.
    /// Errs if it is of another kind or has a setting that cannot be obeyed.
    pub fn read(path: &Path, whole: &JsonObject, class: TokenizerClass) -> Result<Self> {
        let parts = Components::find(path, whole, class)?;
        parts.check(path)?;
        let Components { model, pre, normalizer, post, truncation, padding, form } = parts;
        let unk = match model.value.get("unk_token") {
            Some(Value::String(unk)) => Some(unk.clone()),
            None | Some(Value::Null) if !form.needs_unk => None,
            found => return Err(model.bad("unk_token", found, "a token of the vocabulary")),
        };
        let (cls, sep) = ends(&post, form)?;
        let left = match truncation.as_ref().map(|part| (part, part.value.get("direction"))) {
            None | Some((_, None)) => false,
            Some((_, Some(Value::String(side)))) if side == "Left" => true,
            Some((_, Some(Value::String(side)))) if side == "Right" => false,
            Some((part, found)) => {
                return Err(part.bad("direction", found, "\"Left\" or \"Right\""));
            }
        };
        let pad = padding.as_ref().and_then(|part| part.value.get("pad_token")?.as_str());
        let add_prefix_space = pre.as_ref().map(|pre| pre.flag("add_prefix_space")).transpose()?;
        Ok(Self {
            options: options(&model, normalizer.as_ref(), class, form)?,
            add_prefix_space: add_prefix_space.flatten().unwrap_or(true),
            unk,
            cls,
            sep,
            pad: pad.map(str::to_owned),
            left,
        })
    }

    /// The error if the unknown token is not in the vocabulary of the file `path`.
    pub fn bad_unk(&self, path: &Path) -> Error {
        let unk = cut(self.unk.as_deref().unwrap_or_default());
        let problem = format!("model.unk_token: found {unk:?}, expected a token of the vocabulary");
        Error::file(path, problem)
    }
}

/// BERT's options; a tokenizer of RoBERTa's kind does not use them.
fn options(
    model: &Component<'_>,
    normalizer: Option<&Component<'_>>,
    class: TokenizerClass,
    form: &TokenizerForm,
) -> Result<BertOptions> {
    let flag = |key: &str| match normalizer {
        Some(part) => part.flag(key).map(|flag| flag.unwrap_or(true)),
        // BERT's classes build their own normalizer, so a missing one is not an empty one.
        None => Ok(class != TokenizerClass::Whole),
    };
    let key = "max_input_chars_per_word";
    let is_own = form.algorithm == TokenAlgorithm::WordPiece;
    let longest = match model.value.get(key).filter(|_| is_own) {
        None | Some(Value::Null) => LONGEST,
        Some(value) => {
            let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
            let most = if class == TokenizerClass::Whole { LONGEST } else { usize::MAX };
            let allowed = number.filter(|number| (1..=most).contains(number));
            allowed.ok_or_else(|| model.bad(key, Some(value), "1 to 100"))?
        }
    };
    Ok(BertOptions {
        clean_text: flag("clean_text")?,
        tokenize_chinese_chars: flag("handle_chinese_chars")?,
        strip_accents: match normalizer {
            Some(part) => part.flag("strip_accents")?,
            None => None,
        },
        do_lower_case: flag("lowercase")?,
        longest,
    })
}

/// Parses merges: pairs of tokens, each in a string or in an array.
pub fn merges(path: &Path, written: &Value) -> Result<Vec<(String, String)>> {
    let bad = |value: &Value, expected: &str| {
        let found = short(value);
        Error::file(path, format!("model.merges: found {found}, expected {expected}"))
    };
    let Value::Array(written) = written else {
        return Err(bad(written, "an array of pairs"));
    };
    let pair = |value: &Value| {
        let (a, b) = match value {
            Value::String(text) => text.split_once(' ').filter(|(_, b)| !b.contains(' '))?,
            Value::Array(pair) => match &pair[..] {
                [Value::String(a), Value::String(b)] => (a.as_str(), b.as_str()),
                _ => return None,
            },
            _ => return None,
        };
        Some((a.to_owned(), b.to_owned()))
    };
    written.iter().map(|value| pair(value).ok_or_else(|| bad(value, "two tokens"))).collect()
}

const PROCESSORS: &str = "TemplateProcessing, BertProcessing or RobertaProcessing";

/// The ids of the tokens before and after a text. Errs unless a pair is encoded as
/// `cls a sep b sep`, or for RoBERTa as `cls a sep sep b sep`.
fn ends(post: &Component<'_>, form: &TokenizerForm) -> Result<(u32, u32)> {
    match post.kind() {
        "BertProcessing" | "RobertaProcessing" => {
            let token = |key: &str| {
                let pair = post.value.get(key);
                let bad = || post.bad(key, pair, "a token and its id");
                as_id(pair.and_then(|pair| pair.get(1))).ok_or_else(bad)
            };
            if post.kind() != form.post_processor {
                return Err(post.bad("type", post.value.get("type"), form.post_processor));
            }
            Ok((token("cls")?, token("sep")?))
        }
        "TemplateProcessing" => ends_of_template(post, form),
        _ => Err(post.bad("type", post.value.get("type"), PROCESSORS)),
    }
}

fn as_id(value: Option<&Value>) -> Option<u32> {
    value.and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok())
}

/// [`ends`] of a `TemplateProcessing`.
fn ends_of_template(post: &Component<'_>, form: &TokenizerForm) -> Result<(u32, u32)> {
    let pieces = |key: &str| {
        let piece = |value: &Value| {
            let (kind, piece) = value.as_object()?.iter().next()?;
            let id = piece.get("id")?.as_str()?.to_owned();
            Some((kind.clone(), id, piece.get("type_id")?.as_u64()?))
        };
        let written = post.value.get(key).and_then(Value::as_array).into_iter().flatten();
        written.map(piece).collect::<Option<Vec<_>>>().unwrap_or_default()
    };
    let (single, pair) = (pieces("single"), pieces("pair"));
    let token = |i: usize| single.get(i).map_or("", |piece| piece.1.as_str());
    let (cls, sep) = (token(0), token(2));
    let (s, t, second) = ("SpecialToken", "Sequence", form.second_type);
    let one = vec![(s, cls, 0), (t, "A", 0), (s, sep, 0)];
    let mut two = one.clone();
    two.extend(vec![(s, sep, 0); form.separators - 1]);
    two.extend([(t, "B", second), (s, sep, second)]);
    for (key, found, expected) in [("single", &single, one), ("pair", &pair, two)] {
        if !found.iter().map(|p| (p.0.as_str(), p.1.as_str(), p.2)).eq(expected) {
            return Err(post.bad(key, post.value.get(key), form.texts));
        }
    }
    let all = post.value.get("special_tokens");
    let id = |token: &str| {
        let ids = all.and_then(|all| all.get(token)?.get("ids")).and_then(Value::as_array);
        let ids = ids.filter(|ids| ids.len() == 1);
        let bad = || post.bad("special_tokens", all, "one id for each special token");
        as_id(ids.and_then(|ids| ids.first())).ok_or_else(bad)
    };
    Ok((id(cls)?, id(sep)?))
}
