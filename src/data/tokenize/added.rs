//! Tokens that are found in a text as they are, before it is cut into words: special ones, and those that people added.

use crate::error::{Error, Result};
use aho_corasick::{AhoCorasick, MatchKind};
use regex::Regex;
use serde::Deserialize;

/// An added token, as in `tokenizer.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct AddedToken {
    /// Its id; in `tokenizer_config.json` that is the key.
    #[serde(default)]
    pub id: u32,
    /// What it looks like.
    pub content: String,
    /// Whether it is no token inside a word.
    #[serde(default)]
    pub single_word: bool,
    /// Whether it takes the white space before it along.
    #[serde(default)]
    pub lstrip: bool,
    /// Whether it takes the white space after it along.
    #[serde(default)]
    pub rstrip: bool,
    /// Whether it is looked for after normalizing.
    #[serde(default)]
    pub normalized: bool,
}

impl AddedToken {
    /// A token without frills; its id is still to be set.
    pub fn new(content: String, normalized: bool) -> Self {
        Self { id: 0, content, single_word: false, lstrip: false, rstrip: false, normalized }
    }
}

/// A piece of a text.
pub enum Piece<'a> {
    /// An added token's id.
    Token(u32),
    /// What is between them.
    Text(&'a str),
}

/// A set of added tokens, ready to be looked for.
pub struct Finder {
    automaton: AhoCorasick,
    tokens: Vec<AddedToken>,
    /// Whether a token has white space in it.
    pub reaches_over_spaces: bool,
    word_end: Regex,
    word_start: Regex,
}

impl Finder {
    /// For `tokens`, each looked for as `looks` says; one that looks like nothing is never found.
    pub fn new(
        tokens: Vec<AddedToken>,
        looks: impl Fn(&AddedToken) -> String,
    ) -> Result<Option<Self>> {
        let looks =
            |token: AddedToken| Some((looks(&token), token)).filter(|(look, _)| !look.is_empty());
        let (patterns, tokens): (Vec<_>, Vec<_>) = tokens.into_iter().filter_map(looks).unzip();
        if tokens.is_empty() {
            return Ok(None);
        }
        let bug = |e: &dyn std::fmt::Display| Error::Bug(format!("added tokens: {e}"));
        let reaches_over_spaces =
            patterns.iter().any(|look: &String| look.contains(char::is_whitespace));
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(patterns)
            .map_err(|e| bug(&e))?;
        let regex = |pattern| Regex::new(pattern).map_err(|e| bug(&e));
        let (word_end, word_start) = (regex(r"\w$")?, regex(r"^\w")?);
        Ok(Some(Self { automaton, tokens, reaches_over_spaces, word_end, word_start }))
    }

    /// Calls `each` with the pieces of `text`, in order, until it says that it has enough.
    pub fn split<'a>(&self, text: &'a str, each: &mut dyn FnMut(Piece<'a>) -> bool) -> bool {
        // Empty where it would end before it starts: there the token before took white space along.
        let part = |start, end| text.get(start..end).unwrap_or_default();
        let mut done = 0;
        for found in self.automaton.find_iter(text) {
            let Some(token) = self.tokens.get(found.pattern().as_usize()) else { continue };
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
