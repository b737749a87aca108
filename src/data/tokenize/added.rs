//! Added tokens, which are matched in a text before it is cut into words: special tokens, and those
//! that users added.

use super::files::{JsonObject, cut, short};
use crate::error::{Error, Result};
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex::Regex;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Maximum number of characters of an added token.
const LONGEST: usize = 512;
/// Maximum number of added tokens, and maximum bytes of all of them.
const MOST: usize = 100_000;
const MOST_BYTES: usize = 4 << 20;

/// An added token, as in `tokenizer.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedToken {
    /// Id of the token, which [`Added::add`] assigns.
    pub id: u32,
    /// Text of the token.
    pub content: String,
    /// Whether the token is matched only as a whole word.
    pub single_word: bool,
    /// Whether a match includes the white space before it.
    pub lstrip: bool,
    /// Whether a match includes the white space after it.
    pub rstrip: bool,
    /// Whether the token is matched in the normalized text, instead of the text as it is.
    pub normalized: bool,
    /// Whether the token is special.
    pub special: bool,
    /// Whether the token got a new id because no file gives it one. The base need not have an
    /// embedding for such a token.
    pub implied: bool,
}

impl AddedToken {
    /// A token with default options: a special one is matched in the text as it is, any other in
    /// the normalized text.
    pub fn new(content: String, special: bool) -> Self {
        Self {
            id: 0,
            content,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: !special,
            special,
            implied: false,
        }
    }

    /// Whether the token matches wherever `other` does.
    pub fn looks_like(&self, other: &Self) -> bool {
        let flags =
            |token: &Self| (token.single_word, token.lstrip, token.rstrip, token.normalized);
        self.content == other.content && flags(self) == flags(other)
    }

    /// Parses a token from an object. `special` overrides the object's value; `None` keeps it. Errs
    /// with the problem.
    pub fn from_object(
        object: &JsonObject,
        special: Option<bool>,
    ) -> std::result::Result<Self, String> {
        let flag = |key: &str| match object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(format!("{key}: found {}, expected true or false", short(other))),
        };
        let content = match object.get("content") {
            Some(Value::String(content)) => content.clone(),
            Some(other) => return Err(format!("content: found {}, expected a text", short(other))),
            None => return Err("content: found nothing, expected a text".into()),
        };
        let special = special.map_or_else(|| flag("special"), |special| Ok(Some(special)))?;
        let plain = Self::new(content, special.unwrap_or(false));
        Ok(Self {
            single_word: flag("single_word")?.unwrap_or(false),
            lstrip: flag("lstrip")?.unwrap_or(false),
            rstrip: flag("rstrip")?.unwrap_or(false),
            normalized: flag("normalized")?.unwrap_or(plain.normalized),
            ..plain
        })
    }
}

/// Added tokens as Hugging Face's `AddedVocabulary` keeps them: each once, with the vocabulary's id
/// or the next free one.
#[derive(Default)]
pub struct Added {
    /// Tokens in the order in which they were added.
    tokens: Vec<AddedToken>,
    /// Indices of tokens by content.
    places: HashMap<String, usize>,
    /// Indices of tokens by id; if several have the same id, the last.
    by_id: HashMap<u32, usize>,
    bytes: usize,
}

impl Added {
    /// Adds `tokens` to those of the vocabulary of the file `path`. A token that was added before
    /// keeps its id and takes the new options. Errs if a token is too long, or if there are too
    /// many.
    pub fn add(
        &mut self,
        path: &Path,
        vocab: &HashMap<String, u32>,
        tokens: impl IntoIterator<Item = AddedToken>,
    ) -> Result<()> {
        let size = u32::try_from(vocab.len()).unwrap_or(u32::MAX);
        let highest = self.by_id.keys().copied().max();
        let mut next = highest.filter(|id| *id >= size).map_or(size, |id| id.saturating_add(1));
        for token in tokens {
            if token.content.is_empty() {
                continue;
            }
            let length = token.content.chars().count();
            if length > LONGEST {
                let content = cut(&token.content);
                let problem = format!(
                    "the added token {content:?} has {length} characters, expected at most {LONGEST}"
                );
                return Err(Error::file(path, problem));
            }
            let place = self.places.get(&token.content).copied();
            if let Some((place, old)) = place.and_then(|i| Some((i, self.tokens.get_mut(i)?))) {
                let special = old.special || token.special;
                *old = AddedToken { id: old.id, implied: old.implied, special, ..token };
                self.by_id.insert(old.id, place);
                continue;
            }
            self.bytes += token.content.len();
            if self.tokens.len() >= MOST || self.bytes > MOST_BYTES {
                let problem = format!(
                    "too many added tokens; expected at most {MOST} tokens and {MOST_BYTES} bytes in total"
                );
                return Err(Error::file(path, problem));
            }
            let known = vocab.get(&token.content).copied();
            let id = known.unwrap_or(next);
            if known.is_none() {
                next = next.saturating_add(1);
            }
            self.places.insert(token.content.clone(), self.tokens.len());
            self.by_id.insert(id, self.tokens.len());
            self.tokens.push(AddedToken { id, implied: token.implied && known.is_none(), ..token });
        }
        Ok(())
    }

    /// The tokens to match in texts. If several have the same id, which happens if the vocabulary
    /// has holes, only the last.
    pub fn into_tokens(self) -> Vec<AddedToken> {
        let Self { tokens, by_id, .. } = self;
        let is_last = |(i, token): &(usize, AddedToken)| by_id.get(&token.id) == Some(i);
        tokens.into_iter().enumerate().filter(is_last).map(|(_, token)| token).collect()
    }

    /// The token with this content.
    pub fn get(&self, content: &str) -> Option<&AddedToken> {
        self.places.get(content).and_then(|&place| self.tokens.get(place))
    }
}

/// A piece of a text.
pub enum Piece<'a> {
    /// An added token's id.
    Token(u32),
    /// Text between added tokens.
    Text(&'a str),
}

/// A matcher of added tokens.
pub struct Finder {
    automaton: AhoCorasick,
    tokens: Vec<AddedToken>,
    /// Whether special tokens are cut into words like other text.
    split_special: bool,
    /// Whether a pattern contains white space.
    pub reaches_over_spaces: bool,
    word_end: Regex,
    word_start: Regex,
}

impl Finder {
    /// A matcher of `tokens` of the file `path`, with `looks` as the pattern of each. Leaves out
    /// tokens with an empty pattern, and returns `None` if no others are left. Errs if two tokens
    /// have the same pattern.
    pub fn new(
        path: &Path,
        tokens: Vec<AddedToken>,
        split_special: bool,
        looks: impl Fn(&AddedToken) -> String,
    ) -> Result<Option<Self>> {
        let looks =
            |token: AddedToken| Some((looks(&token), token)).filter(|(look, _)| !look.is_empty());
        let (patterns, tokens): (Vec<_>, Vec<_>) = tokens.into_iter().filter_map(looks).unzip();
        if tokens.is_empty() {
            return Ok(None);
        }
        let mut seen = HashSet::new();
        if let Some(twice) = patterns.iter().find(|look: &&String| !seen.insert(*look)) {
            let problem = format!("two added tokens both match {:?}", cut(twice));
            return Err(Error::file(path, problem));
        }
        let reaches_over_spaces =
            patterns.iter().any(|look: &String| look.contains(char::is_whitespace));
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            // The time to build a DFA is quadratic in a token's length.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(patterns)
            .map_err(Error::bug)?;
        let regex = |pattern| Regex::new(pattern).map_err(Error::bug);
        let (word_end, word_start) = (regex(r"\w$")?, regex(r"^\w")?);
        Ok(Some(Self {
            automaton,
            tokens,
            split_special,
            reaches_over_spaces,
            word_end,
            word_start,
        }))
    }

    /// Calls `each` with the pieces of `text`, in order, until `each` returns false. Returns true
    /// if it never does.
    pub fn split<'a>(&self, text: &'a str, each: &mut dyn FnMut(Piece<'a>) -> bool) -> bool {
        // Empty if `start` is after `end`: the token before has taken the white space.
        let part = |start, end| text.get(start..end).unwrap_or_default();
        let mut done = 0;
        for found in self.automaton.find_iter(text) {
            let Some(token) = self.tokens.get(found.pattern().as_usize()) else { continue };
            if self.split_special && token.special {
                continue;
            }
            let (before, after) = (part(0, found.start()), part(found.end(), text.len()));
            if token.single_word
                && (self.word_end.is_match(before) || self.word_start.is_match(after))
            {
                continue;
            }
            let (mut start, mut end) = (found.start(), found.end());
            if token.lstrip {
                start = before.trim_end().len().max(done);
            }
            if token.rstrip {
                end += after.len() - after.trim_start().len();
            }
            let between = part(done, start);
            if !between.is_empty() && !each(Piece::Text(between)) {
                return false;
            }
            if !each(Piece::Token(token.id)) {
                return false;
            }
            done = end;
        }
        let rest = part(done, text.len());
        rest.is_empty() || each(Piece::Text(rest))
    }
}
