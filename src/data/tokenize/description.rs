//! The tokenizer that a directory's files describe, by the rules of transformers 5. A class of
//! BERT's or RoBERTa's builds its pipeline itself, and takes only vocabulary and added tokens from
//! tokenizer.json. The other classes take tokenizer.json whole.

use super::added::{Added, AddedToken};
use super::files::{JsonObject, TokenizerClass, TokenizerFiles, Vocabulary, cut, short};
use super::form::TokenizerForm;
use super::pipeline::{self, Pipeline};
use super::wordpiece::{BertOptions, LONGEST};
use super::{bpe, settings};
use crate::error::{Error, Result};
use crate::files::hex;
use crate::models::TokenAlgorithm;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// The description of a tokenizer.
pub struct Description {
    /// The file that holds the vocabulary, for messages.
    pub vocab_file: PathBuf,
    /// Ids by token, added tokens aside.
    pub vocab: HashMap<String, u32>,
    /// The algorithm that cuts words into tokens, and its options.
    pub kind: TokenizerModel,
    /// The unknown token; if `None`, what the vocabulary lacks is left out.
    pub unk: Option<String>,
    /// Id of the token before a text.
    pub cls: u32,
    /// Id of the token after a text.
    pub sep: u32,
    /// Added tokens, which are matched in a text before it is cut into words.
    pub added: Vec<AddedToken>,
    /// Whether the end of a text that is too long is kept, instead of its beginning.
    pub left: bool,
    /// Whether special tokens in a text are cut into words like other text.
    pub split_special: bool,
    /// Whether the second text of a pair is segment 1, instead of 0.
    pub segments: bool,
    /// Whether the files turn off the segments that the model, or a class of BERT's, has.
    pub unsegmented: bool,
    /// Differences from what transformers 4 reads in the same files.
    pub notes: Vec<String>,
}

/// The algorithm that cuts words into tokens, and its options.
pub enum TokenizerModel {
    /// BERT's WordPiece: a normalizer, then the longest pieces of each word.
    WordPiece(BertOptions),
    /// RoBERTa's byte-level BPE: bytes, merged by rank.
    Bpe {
        /// The pairs, best first.
        merges: Vec<(String, String)>,
        /// Whether a text that does not start with a space gets one.
        add_prefix_space: bool,
    },
}

/// Maximum size of a vocabulary, twice that of the largest BERT.
const MAX_TOKENS: usize = 1_000_000;

/// The special tokens that have a name, in the order in which transformers adds them, with their
/// defaults for BERT and for RoBERTa.
pub const NAMED: [(&str, Option<&str>, &str); 7] = [
    ("bos_token", None, "<s>"),
    ("eos_token", None, "</s>"),
    ("unk_token", Some("[UNK]"), "<unk>"),
    ("sep_token", Some("[SEP]"), "</s>"),
    ("pad_token", Some("[PAD]"), "<pad>"),
    ("cls_token", Some("[CLS]"), "<s>"),
    ("mask_token", Some("[MASK]"), "<mask>"),
];

impl Description {
    /// Reads the tokenizer files of `dir`. Errs if the tokenizer is not supported.
    pub fn read(dir: &Path) -> Result<Self> {
        let files = TokenizerFiles::read(dir)?;
        settings::check(dir, &files)?;
        let pipeline = match &files.vocabulary {
            Vocabulary::Json(path, json) => Some(Pipeline::read(path, json, files.class)?),
            _ => None,
        };
        let mut notes = vec![];
        let (vocab_file, vocab, merges) = vocabulary(&files.vocabulary, &mut notes)?;
        if vocab.len() > MAX_TOKENS {
            let problem = format!("{} tokens, expected at most {MAX_TOKENS}", vocab.len());
            return Err(Error::file(&vocab_file, problem));
        }
        let algorithm = match merges {
            Some(_) => TokenAlgorithm::ByteLevelBpe,
            None => TokenAlgorithm::WordPiece,
        };
        DescriptionBuilder { dir, files: &files, pipeline, vocab_file, vocab, algorithm, notes }
            .describe(merges)
    }

    /// The hash of the tokenizer, which is the same whichever files describe it.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let mut line = |text: String| hash.update(format!("{}:{text}\n", text.len()));
        match &self.kind {
            TokenizerModel::WordPiece(options) => {
                let strip = options.strip_accents.unwrap_or(options.do_lower_case);
                let (clean, chinese) = (options.clean_text, options.tokenize_chinese_chars);
                line(format!("WordPiece {clean} {chinese} {strip} {}", options.do_lower_case));
                if options.longest != LONGEST {
                    line(format!("longest {}", options.longest));
                }
            }
            TokenizerModel::Bpe { merges, add_prefix_space } => {
                line(format!("BPE {add_prefix_space}"));
                merges.iter().for_each(|(a, b)| line(format!("{a} {b}")));
            }
        }
        line(format!("{} {} {:?}", self.cls, self.sep, self.unk));
        if self.left {
            line("truncation_side left".into());
        }
        if self.split_special {
            line("split_special_tokens".into());
        }
        // Hashed only if the files turn off segments, so that other fingerprints do not depend on
        // it.
        if self.unsegmented {
            line("one segment".into());
        }
        let mut entries: Vec<_> = self.vocab.iter().map(|(token, id)| (id, token)).collect();
        entries.sort();
        entries.into_iter().for_each(|(id, token)| line(format!("{id} {token}")));
        let mut added: Vec<_> = self.added.iter().collect();
        added.sort_by_key(|token| token.id);
        for token in added {
            let (single, left, right) = (token.single_word, token.lstrip, token.rstrip);
            line(format!(
                "{} {} {single} {left} {right} {}",
                token.id, token.content, token.normalized
            ));
            // Without `split_special_tokens`, special tokens are matched like any other.
            if self.split_special && token.special {
                line("special".into());
            }
        }
        hex(&hash.finalize())
    }
}

/// The files of a directory, read, from which to make a [`Description`].
struct DescriptionBuilder<'a> {
    dir: &'a Path,
    files: &'a TokenizerFiles,
    /// The pipeline of `tokenizer.json`, if there is one.
    pipeline: Option<Pipeline>,
    vocab_file: PathBuf,
    vocab: HashMap<String, u32>,
    algorithm: TokenAlgorithm,
    notes: Vec<String>,
}

impl DescriptionBuilder<'_> {
    fn describe(mut self, merges: Option<Vec<(String, String)>>) -> Result<Description> {
        let said = Said { path: self.dir.join("tokenizer_config.json"), files: self.files };
        let specials = said.specials(self.dir, self.algorithm, self.pipeline.as_ref())?;
        let added = self.added(&said, &specials)?;
        // An empty line takes an id, but is not a token.
        if matches!(self.files.vocabulary, Vocabulary::Lines(..)) {
            self.vocab.remove("");
        }
        let (cls, sep, unk) = self.named(&said, &specials, &added)?;
        let kind = match merges {
            Some(merges) => {
                TokenizerModel::Bpe { merges, add_prefix_space: self.add_prefix_space(&said)? }
            }
            None => TokenizerModel::WordPiece(self.options(&said)?),
        };
        let left = match self.files.said("truncation_side") {
            None => self.pipeline.as_ref().is_some_and(|pipeline| pipeline.left),
            Some(Value::String(side)) if side == "left" => true,
            Some(Value::String(side)) if side == "right" => false,
            Some(other) => return Err(said.bad("truncation_side", other, "\"left\" or \"right\"")),
        };
        let segments = match self.files.said("model_input_names") {
            None => {
                if self.is_whole() && self.algorithm == TokenAlgorithm::WordPiece {
                    let note = "without token_type_ids, both texts of a pair are in segment 0";
                    self.notes.push(note.into());
                }
                self.files.class == TokenizerClass::Bert
            }
            Some(Value::Array(names)) => names.iter().any(|name| name == "token_type_ids"),
            Some(other) => return Err(said.bad("model_input_names", other, "a list of names")),
        };
        let has_segments = match self.files.class {
            TokenizerClass::Bert => true,
            // DistilBERT has no segments. A BERT model whose files name DistilBERT's class has
            // segments.
            TokenizerClass::DistilBert => self.files.segments,
            TokenizerClass::Roberta | TokenizerClass::Whole => false,
        };
        let may_have_segments = TokenizerForm::of(self.algorithm).second_type == 1;
        Ok(Description {
            kind,
            unk,
            cls,
            sep,
            added: added.into_tokens(),
            left,
            split_special: said.flag("split_special_tokens", false)?,
            unsegmented: has_segments && !segments && may_have_segments,
            segments: segments && may_have_segments,
            vocab_file: self.vocab_file,
            vocab: self.vocab,
            notes: self.notes,
        })
    }

    /// Whether the class takes tokenizer.json whole.
    fn is_whole(&self) -> bool {
        self.files.class == TokenizerClass::Whole
    }

    /// The added tokens: those that the files list, and the special tokens that these lists lack.
    fn added(&mut self, said: &Said<'_>, specials: &Specials) -> Result<Added> {
        let (path, vocab, mut added) = (&self.vocab_file, &self.vocab, Added::default());
        let saved = match &self.files.vocabulary {
            Vocabulary::Json(path, json) => saved_tokens(path, json)?,
            _ => vec![],
        };
        if self.is_whole() {
            added.add(path, vocab, saved.iter().map(|(_, token)| token.clone()))?;
        }
        let by_id = said.added_tokens(self.dir, &saved, specials)?;
        let listed: HashSet<&str> = by_id.values().map(|token| token.content.as_str()).collect();
        let is_new = |token: &&AddedToken| {
            !listed.contains(token.content.as_str()) && added.get(&token.content).is_none()
        };
        let implied = specials.tokens.iter().filter(is_new).cloned();
        let implied: Vec<_> = implied.map(|token| AddedToken { implied: true, ..token }).collect();
        // A token that has a name is special, whatever the list says.
        let in_files = by_id.values().cloned().map(|token| {
            let special = token.special || specials.named.contains(&token.content);
            AddedToken { special, ..token }
        });
        added.add(path, vocab, in_files.chain(implied))?;
        let has_other_looks = |token: &&AddedToken| match added.get(&token.content) {
            Some(here) => !here.looks_like(token),
            None => !token.content.is_empty(),
        };
        if let Some(other) = saved.iter().map(|(_, token)| token).find(has_other_looks) {
            let content = cut(&other.content);
            let note = format!("the added token {content:?} differs from tokenizer.json");
            self.notes.push(note);
        }
        if !self.is_whole() && !saved.iter().map(|(id, _)| id).is_sorted() {
            self.notes.push("added tokens are added in the order of their ids".into());
        }
        self.notes.extend(specials.notes.iter().cloned());
        let mask = specials.names.get("mask_token").and_then(Option::as_deref);
        let mask = mask.and_then(|mask| added.get(mask)).filter(|mask| !mask.lstrip);
        let said_whole = self.files.said("mask_token").is_some_and(Value::is_object);
        let is_bpe = self.algorithm == TokenAlgorithm::ByteLevelBpe;
        if let Some(mask) = mask.filter(|_| is_bpe && !self.is_whole() && !said_whole) {
            let mask = cut(&mask.content);
            self.notes.push(format!("{mask} does not include the space before it"));
        }
        Ok(added)
    }

    /// Ids of the tokens before and after a text, and the unknown token.
    fn named(
        &mut self,
        said: &Said<'_>,
        specials: &Specials,
        added: &Added,
    ) -> Result<(u32, u32, Option<String>)> {
        let missing = |token: &str| {
            Error::file(
                &self.vocab_file,
                format!("the token {} is not in the vocabulary", cut(token)),
            )
        };
        let saved_unk = self.pipeline.as_ref().and_then(|pipeline| pipeline.unk.clone());
        if let Some(pipeline) = self.pipeline.as_ref().filter(|_| self.is_whole()) {
            if saved_unk.as_ref().is_some_and(|unk| !self.vocab.contains_key(unk)) {
                return Err(pipeline.bad_unk(&self.vocab_file));
            }
            return Ok((pipeline.cls, pipeline.sep, saved_unk));
        }
        let end = |key| {
            let token = specials.named(&said.path, key)?;
            let added = added.get(token).filter(|token| !token.implied).map(|token| token.id);
            let id = added.or_else(|| self.vocab.get(token).copied());
            id.ok_or_else(|| missing(token))
        };
        let (cls, sep) = (end("cls_token")?, end("sep_token")?);
        let saved_ends = self.pipeline.as_ref().map(|pipeline| (pipeline.cls, pipeline.sep));
        if saved_ends.is_some_and(|saved| saved != (cls, sep)) {
            self.notes
                .push("cls_token and sep_token replace tokenizer.json's post_processor".into());
        }
        if self.algorithm == TokenAlgorithm::ByteLevelBpe {
            // A byte-level vocabulary has every byte, and needs no unknown token. In one that does
            // not, bytes that it lacks are left out.
            let known = |unk: &String| self.vocab.contains_key(unk) && bpe::has_bytes(&self.vocab);
            return Ok((cls, sep, saved_unk.filter(known)));
        }
        let unk = specials.named(&said.path, "unk_token")?;
        if !self.vocab.contains_key(unk) {
            return Err(missing(unk));
        }
        if saved_unk.is_some_and(|saved| saved != unk) {
            self.notes.push("unk_token replaces tokenizer.json's model.unk_token".into());
        }
        Ok((cls, sep, Some(unk.to_owned())))
    }

    fn add_prefix_space(&mut self, said: &Said<'_>) -> Result<bool> {
        let said = said.flag("add_prefix_space", false)?;
        let saved = self.pipeline.as_ref().map(|pipeline| pipeline.add_prefix_space);
        let saved = saved.filter(|_| self.is_whole()).unwrap_or(said);
        if saved != said {
            self.notes.push("add_prefix_space is read from tokenizer.json".into());
        }
        Ok(saved)
    }

    fn options(&mut self, said: &Said<'_>) -> Result<BertOptions> {
        let saved = self.pipeline.as_ref().map(|pipeline| pipeline.options);
        if let Some(saved) = saved {
            if self.is_whole() {
                return Ok(saved);
            }
            if !saved.clean_text {
                self.notes.push("tokenizer.json's clean_text = false has no effect".into());
            }
            if saved.longest != LONGEST {
                let note = "tokenizer.json's max_input_chars_per_word has no effect";
                self.notes.push(note.into());
            }
        }
        Ok(BertOptions {
            clean_text: true,
            tokenize_chinese_chars: said.flag("tokenize_chinese_chars", true)?,
            strip_accents: match self.files.said("strip_accents") {
                None | Some(Value::Null) => None,
                _ => Some(said.flag("strip_accents", false)?),
            },
            do_lower_case: said.flag("do_lower_case", true)?,
            longest: LONGEST,
        })
    }
}

/// The file of the vocabulary, its ids by token, and for RoBERTa's kind the merges.
type Vocab = (PathBuf, HashMap<String, u32>, Option<Vec<(String, String)>>);

fn vocabulary(files: &Vocabulary, notes: &mut Vec<String>) -> Result<Vocab> {
    match files {
        Vocabulary::Json(path, whole) => {
            let model = whole.get("model").and_then(Value::as_object);
            let vocab = match model.and_then(|model| model.get("vocab")) {
                Some(Value::Object(vocab)) => ids(path, "model.vocab", vocab)?,
                other => {
                    let found = other.map_or("nothing".into(), short);
                    let problem =
                        format!("model.vocab: found {found}, expected an object of ids by token");
                    return Err(Error::file(path, problem));
                }
            };
            let merges = model.and_then(|model| model.get("merges"));
            let merges = merges.map(|merges| pipeline::merges(path, merges)).transpose()?;
            Ok((path.clone(), vocab, merges))
        }
        Vocabulary::Lines(path, text) => {
            // White space at a line's end is not part of the token. Of equal lines, the last gives
            // the id.
            let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
            let trimmed = |line: &str| line.strip_suffix('\r').unwrap_or(line) != line.trim_end();
            if lines.clone().any(trimmed) {
                notes.push(
                    "white space at the end of a line in vocab.txt is not part of the token".into(),
                );
            }
            let vocab = lines.zip(0..).map(|(line, id)| (line.trim_end().to_owned(), id));
            let vocab = if text.is_empty() { HashMap::new() } else { vocab.collect() };
            Ok((path.clone(), vocab, None))
        }
        Vocabulary::Pairs { path, ids: vocab, merges_path, merges } => {
            let vocab = ids(path, "the vocabulary", vocab)?;
            if !merges.starts_with("#version") {
                notes.push(
                    "the first line of merges.txt is a merge, because it is not a version".into(),
                );
            }
            let merges = pairs(merges_path, merges, &vocab)?;
            Ok((path.clone(), vocab, Some(merges)))
        }
    }
}

fn ids(path: &Path, name: &str, vocab: &JsonObject) -> Result<HashMap<String, u32>> {
    let id = |(token, id): (&String, &Value)| {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let bad = || {
            let problem = format!("{name}[{:?}]: found {}, expected an id", cut(token), short(id));
            Error::file(path, problem)
        };
        number.map(|id| (token.clone(), id)).ok_or_else(bad)
    };
    vocab.iter().map(id).collect()
}

/// The pairs of a merges.txt. Skips blank lines and those that start with `#version`.
fn pairs(path: &Path, text: &str, vocab: &HashMap<String, u32>) -> Result<Vec<(String, String)>> {
    let is_pair =
        |(_, line): &(usize, &str)| !line.starts_with("#version") && !line.trim().is_empty();
    let pair = |(i, line): (usize, &str)| {
        let pair = line.split_once(' ').filter(|(_, b)| !b.contains(' '));
        let known = |(a, b): &(&str, &str)| {
            vocab.contains_key(*a)
                && vocab.contains_key(*b)
                && vocab.contains_key(&format!("{a}{b}"))
        };
        let bad = || {
            let line = cut(line);
            let problem = format!(
                "found {line:?}, expected two tokens that are in the vocabulary, also joined to one"
            );
            Error::data(path, i + 1, problem)
        };
        pair.filter(known).map(|(a, b)| (a.to_owned(), b.to_owned())).ok_or_else(bad)
    };
    text.lines().enumerate().filter(is_pair).map(pair).collect()
}

/// The added tokens of a tokenizer.json, with their ids.
fn saved_tokens(path: &Path, whole: &JsonObject) -> Result<Vec<(u32, AddedToken)>> {
    let bad = |problem: String| Error::file(path, format!("added_tokens: {problem}"));
    let saved = match whole.get("added_tokens") {
        None | Some(Value::Null) => return Ok(vec![]),
        Some(Value::Array(saved)) => saved,
        Some(other) => return Err(bad(format!("found {}, expected a list", short(other)))),
    };
    let token = |value: &Value| {
        let Value::Object(object) = value else {
            return Err(bad(format!("found {}, expected an object", short(value))));
        };
        let id = object.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| {
            bad(format!(
                "id: found {}, expected an id",
                object.get("id").map_or("nothing".into(), short)
            ))
        })?;
        Ok((id, AddedToken::from_object(object, None).map_err(bad)?))
    };
    saved.iter().map(token).collect()
}

/// The special tokens of a directory.
#[derive(Default)]
struct Specials {
    /// All special tokens, first those with a name.
    tokens: Vec<AddedToken>,
    /// Content of each token with a name, by key, defaults included; `None` if it is null or has no
    /// default.
    names: HashMap<&'static str, Option<String>>,
    /// Contents of the tokens with a name, including names that only the model's own class defines.
    named: HashSet<String>,
    /// Contents of the tokens that a file gives.
    said: HashSet<String>,
    /// Differences from what transformers 4 reads in the same files.
    notes: Vec<String>,
}

impl Specials {
    /// The content of the token `key`, which the class needs. Errs if there is none.
    fn named(&self, path: &Path, key: &'static str) -> Result<&str> {
        let name = self.names.get(key).and_then(Option::as_deref);
        name.ok_or_else(|| Error::file(path, format!("{key}: found null, expected a token")))
    }
}

/// The two keys of special tokens without a name.
const EXTRA: &str = "extra_special_tokens";
const ADDITIONAL: &str = "additional_special_tokens";

/// The special tokens without a name in tokenizer_config.json that are still to be read.
struct Unnamed<'a> {
    extra: Option<&'a Value>,
    additional: Option<&'a Value>,
}

/// The settings of tokenizer_config.json, with the special tokens of special_tokens_map.json over
/// them. `path` is the file that errors name.
struct Said<'a> {
    path: PathBuf,
    files: &'a TokenizerFiles,
}

impl Said<'_> {
    fn bad(&self, key: &str, found: &Value, expected: &str) -> Error {
        let problem = format!("{}: found {}, expected {expected}", cut(key), short(found));
        Error::file(&self.path, problem)
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.files.said(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.bad(key, other, "true or false")),
        }
    }

    /// The contents of an older file; `None` if tokenizer_config.json lists all added tokens
    /// itself, because then transformers does not read the older files.
    fn older<'a>(&self, file: &'a Option<JsonObject>) -> Option<&'a JsonObject> {
        file.as_ref().filter(|_| self.files.said("added_tokens_decoder").is_none())
    }

    fn token(&self, key: &str, value: &Value, special: Option<bool>) -> Result<AddedToken> {
        match value {
            Value::String(content) => Ok(AddedToken::new(content.clone(), true)),
            Value::Object(object) => AddedToken::from_object(object, special)
                .map_err(|problem| Error::file(&self.path, format!("{}: {problem}", cut(key)))),
            other => Err(self.bad(key, other, "a token, as a text or an object")),
        }
    }

    /// All special tokens, in the order in which transformers adds them.
    fn specials(
        &self,
        dir: &Path,
        algorithm: TokenAlgorithm,
        pipeline: Option<&Pipeline>,
    ) -> Result<Specials> {
        let map = self.older(&self.files.specials);
        let of_map = Said { path: dir.join("special_tokens_map.json"), files: self.files };
        let value = |key: &str| match map.and_then(|map| map.get(key)) {
            Some(value) => (&of_map, Some(value)),
            None => (self, self.files.said(key)),
        };
        let mut specials = Specials::default();
        for (key, bert, default) in NAMED {
            let default = match self.files.class {
                TokenizerClass::Whole if key == "pad_token" => {
                    pipeline.and_then(|p| p.pad.as_deref())
                }
                TokenizerClass::Whole => None,
                _ if algorithm == TokenAlgorithm::ByteLevelBpe => Some(default),
                _ => bert,
            };
            let token = match value(key) {
                (_, None) => default.map(|default| AddedToken::new(default.to_owned(), true)),
                (_, Some(Value::Null)) => None,
                (said, Some(value)) => {
                    let token = said.token(key, value, Some(true))?;
                    specials.said.insert(token.content.clone());
                    Some(token)
                }
            };
            specials.names.insert(key, token.as_ref().map(|token| token.content.clone()));
            specials.tokens.extend(token);
        }
        let unnamed = self.own_tokens(&of_map, map, &mut specials)?;
        specials.named = specials.tokens.iter().map(|token| token.content.clone()).collect();
        self.unnamed_tokens(&of_map, map, unnamed, &mut specials)?;
        Ok(specials)
    }

    /// Adds the special tokens with other names, which the model's own class would define. Returns
    /// the tokens without a name in tokenizer_config.json.
    fn own_tokens(
        &self,
        of_map: &Said<'_>,
        map: Option<&JsonObject>,
        specials: &mut Specials,
    ) -> Result<Unnamed<'_>> {
        let is_own = |(key, value): &(&String, &Value)| {
            let named = NAMED.iter().any(|(named, ..)| named == key);
            key.ends_with("_token") && !named && (value.is_string() || value.is_object())
        };
        let (mut own, mut places) = (vec![], HashMap::new());
        let mut put = |said: &Said<'_>, key: &str, value: &Value| {
            let token = said.token(key, value, None)?;
            let place = *places.entry(key.to_owned()).or_insert(own.len());
            match own.get_mut(place) {
                Some(old) => *old = token,
                None => own.push(token),
            }
            Ok::<_, Error>(())
        };
        let config = self.files.config.iter().flatten().filter(is_own);
        // special_tokens_map.json overrides an object of tokenizer_config.json, but not a string.
        for (key, value) in config.clone().filter(|(_, value)| value.is_object()) {
            put(self, key, value)?;
        }
        for (key, value) in map.into_iter().flatten().filter(is_own) {
            put(of_map, key, value)?;
        }
        let mut unnamed =
            Unnamed { extra: self.files.said(EXTRA), additional: self.files.said(ADDITIONAL) };
        // If `extra` is empty, `additional` takes its place. An object holds tokens with names.
        if unnamed.extra.is_none_or(settings::is_empty) && unnamed.additional.is_some() {
            unnamed.extra = unnamed.additional.take();
        }
        let objects = unnamed.extra.and_then(Value::as_object);
        if objects.is_some() {
            unnamed.extra = None;
        }
        let texts = config.filter(|(_, value)| value.is_string());
        let mut texts = texts.chain(objects.into_iter().flatten()).peekable();
        if texts.peek().is_none() {
            let key = "model_specific_special_tokens";
            match self.files.said(key) {
                None | Some(Value::Null) => {}
                Some(Value::Object(all)) => {
                    all.iter().try_for_each(|(key, value)| put(self, key, value))?;
                }
                Some(other) => return Err(self.bad(key, other, "an object of tokens by name")),
            }
        }
        for (key, value) in texts {
            put(self, key, value)?;
        }
        let of_map_extra = map.and_then(|map| map.get(EXTRA)).and_then(Value::as_object);
        for (key, value) in of_map_extra.into_iter().flatten() {
            put(of_map, key, value)?;
        }
        if let Some(token) = own.first() {
            let content = cut(&token.content);
            specials.notes.push(format!("{content:?} is a special token"));
        }
        specials.tokens.extend(own);
        Ok(unnamed)
    }

    /// Adds the special tokens without a name.
    fn unnamed_tokens(
        &self,
        of_map: &Said<'_>,
        map: Option<&JsonObject>,
        unnamed: Unnamed<'_>,
        specials: &mut Specials,
    ) -> Result<()> {
        let listed = |said: &Said<'_>, key: &str, value: Option<&Value>| match value {
            None | Some(Value::Null) => Ok(vec![]),
            Some(Value::Array(all)) => {
                // Tokens of special_tokens_map.json are special, whatever they say.
                let special = (said.path == of_map.path).then_some(true);
                all.iter().map(|value| said.token(key, value, special)).collect()
            }
            Some(Value::Object(all)) => {
                all.values().map(|value| said.token(key, value, None)).collect()
            }
            Some(other) => Err(said.bad(key, other, "a list of tokens")),
        };
        let Unnamed { mut extra, additional } = unnamed;
        let of_map_extra = map.and_then(|map| map.get(EXTRA));
        let is_object = of_map_extra.is_some_and(Value::is_object);
        let mut more = vec![];
        if is_object {
            extra = None;
        } else {
            more = listed(self, EXTRA, extra)?;
            more.extend(listed(of_map, EXTRA, of_map_extra)?);
        }
        specials.said.extend(more.iter().map(|token| token.content.clone()));
        if extra.is_none() && (is_object || of_map_extra.is_none()) {
            let (said, value) = match map.and_then(|map| map.get(ADDITIONAL)) {
                Some(value) => (of_map, Some(value)),
                None => (self, additional),
            };
            let late = listed(said, ADDITIONAL, value)?;
            let added = self.older(&self.files.added);
            let is_added =
                |token: &&AddedToken| added.is_some_and(|a| a.contains_key(&token.content));
            if let Some(token) = late.iter().find(is_added) {
                let content = cut(&token.content);
                specials.notes.push(format!(
                    "{content:?} of added_tokens.json is matched after normalization"
                ));
            }
            if value.is_some_and(Value::is_object) {
                specials.named.extend(late.iter().map(|token| token.content.clone()));
            }
            more.extend(late);
        }
        specials.tokens.extend(more);
        Ok(())
    }

    /// The added tokens by id: those of tokenizer_config.json, or else those of added_tokens.json
    /// and tokenizer.json.
    fn added_tokens(
        &self,
        dir: &Path,
        saved: &[(u32, AddedToken)],
        specials: &Specials,
    ) -> Result<BTreeMap<u32, AddedToken>> {
        let key = "added_tokens_decoder";
        if let Some(decoder) = self.files.said(key) {
            let Value::Object(decoder) = decoder else {
                return Err(self.bad(key, decoder, "an object of tokens by id"));
            };
            let token = |(id, value): (&String, &Value)| {
                let bad =
                    |problem| Error::file(&self.path, format!("{key}.{}: {problem}", cut(id)));
                let Value::Object(object) = value else {
                    return Err(bad(format!("found {}, expected an object", short(value))));
                };
                let number = id.parse().map_err(|_| bad("expected an id as key".into()))?;
                Ok((number, AddedToken::from_object(object, None).map_err(bad)?))
            };
            return decoder.iter().map(token).collect();
        }
        let mut by_id = BTreeMap::new();
        for (content, id) in self.older(&self.files.added).into_iter().flatten() {
            let number = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                let problem = format!("{:?}: found {}, expected an id", cut(content), short(id));
                Error::file(&dir.join("added_tokens.json"), problem)
            })?;
            let special = specials.said.contains(content);
            by_id.insert(number, AddedToken::new(content.clone(), special));
        }
        by_id.extend(saved.iter().map(|(id, token)| (*id, token.clone())));
        Ok(by_id)
    }
}
