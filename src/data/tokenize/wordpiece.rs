//! BERT's WordPiece: Hugging Face's `BertNormalizer` and `BertPreTokenizer`, implemented here, with
//! `rust_tokenizers` cutting each word into pieces.
//!
//! The normalizer of `rust_tokenizers` cannot leave Chinese characters alone, and its tables of
//! accents, punctuation, spaces and controls differ from Hugging Face's in hundreds of code points.
//! `rust_tokenizers` therefore gets single words, in characters for which it has no rules
//! ([`veil`]).

use rust_tokenizers::tokenizer::{BertTokenizer, Tokenizer as _};
use rust_tokenizers::vocab::BertVocab;
use rust_tokenizers::{OffsetSize, TokenRef};
use std::collections::HashMap;
// Hugging Face's tokenizers use these tables; newer ones order and strip newer accents differently.
use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::UnicodeNormalization;

/// Options of BERT's normalizer and of WordPiece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BertOptions {
    /// Whether control characters are removed, and all white space becomes spaces.
    pub clean_text: bool,
    /// Whether each Chinese character gets spaces around it.
    pub tokenize_chinese_chars: bool,
    /// Whether accents are removed; `None` means the same as `do_lower_case`.
    pub strip_accents: Option<bool>,
    /// Whether letters become lower case.
    pub do_lower_case: bool,
    /// Maximum number of characters of a word; a longer word becomes one unknown token.
    pub longest: usize,
}

/// Maximum number of characters of a word in BERT's classes.
pub const LONGEST: usize = 100;

pub struct WordPiece {
    vocab: HashMap<String, u32>,
    /// The same vocabulary, each token through [`veil`].
    inner: BertTokenizer,
    options: BertOptions,
    /// Offsets of a word's characters, which `TokenRef` requires and nothing reads.
    offsets: Vec<OffsetSize>,
    unknown: u32,
}

impl WordPiece {
    pub fn new(vocab: HashMap<String, u32>, unk: &str, options: BertOptions) -> Self {
        let unknown = vocab.get(unk).copied().unwrap_or(0);
        let veiled = vocab.iter().map(|(token, &id)| (veil(token), i64::from(id)));
        let mut inner = BertVocab {
            values: veiled.collect(),
            indices: HashMap::new(),
            special_token_map: Default::default(),
            special_values: HashMap::new(),
            special_indices: HashMap::new(),
        };
        inner.special_token_map.unk_token = veil(unk);
        let inner = BertTokenizer::from_existing_vocab(inner, false, false);
        Self { vocab, inner, options, offsets: vec![0; options.longest], unknown }
    }

    /// Normalizes a text as `BertNormalizer` does.
    pub fn normalize(&self, text: &str) -> String {
        let options = &self.options;
        let strip = options.strip_accents.unwrap_or(options.do_lower_case);
        if text.is_ascii() {
            // The common case: neither accents nor Chinese.
            let clean = |c: char| {
                if !options.clean_text || !c.is_ascii_control() {
                    Some(c)
                } else {
                    matches!(c, '\t' | '\n' | '\r').then_some(' ')
                }
            };
            let mut clean: String = text.chars().filter_map(clean).collect();
            if options.do_lower_case {
                clean.make_ascii_lowercase();
            }
            return clean;
        }
        let mut spaced = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            let c = match c {
                '\0' | '\u{fffd}' if options.clean_text => continue,
                c if options.clean_text && is_control(c) => continue,
                c if options.clean_text && c.is_whitespace() => ' ',
                c => c,
            };
            if options.tokenize_chinese_chars && is_chinese(c) {
                spaced.extend([' ', c, ' ']);
            } else {
                spaced.push(c);
            }
        }
        match (strip, options.do_lower_case) {
            (false, false) => spaced,
            (false, true) => spaced.chars().flat_map(char::to_lowercase).collect(),
            (true, lower) => {
                let bare = spaced.nfd().map(|(c, _)| c).filter(|c| !c.is_mark_nonspacing());
                if lower { bare.flat_map(char::to_lowercase).collect() } else { bare.collect() }
            }
        }
    }

    /// Calls `each` with the token ids of a normalized text, in order, until `each` returns false.
    /// Returns true if it never does.
    pub fn pieces(&self, normalized: &str, each: &mut dyn FnMut(u32) -> bool) -> bool {
        for chunk in normalized.split(char::is_whitespace) {
            let mut rest = chunk;
            while let Some(first) = rest.chars().next() {
                let end = if is_punctuation(first) {
                    first.len_utf8()
                } else {
                    rest.find(is_punctuation).unwrap_or(rest.len())
                };
                let (word, after) = rest.split_at(end);
                rest = after;
                if !self.word(word, each) {
                    return false;
                }
            }
        }
        true
    }

    fn word(&self, word: &str, each: &mut dyn FnMut(u32) -> bool) -> bool {
        // A word has no more characters than bytes, and bytes are quicker to count.
        let longest = self.options.longest;
        let count = if word.len() <= longest { word.len() } else { word.chars().count() };
        if count > longest {
            return each(self.unknown);
        }
        if let Some(&id) = self.vocab.get(word) {
            return each(id);
        }
        let offsets = self.offsets.get(..word.chars().count()).unwrap_or(&self.offsets);
        let word = veil(word);
        let pieces = self.inner.tokenize_to_tokens(TokenRef::new(&word, offsets));
        let texts: Vec<&str> = pieces.iter().map(|piece| piece.text.as_str()).collect();
        let ids = self.inner.convert_tokens_to_ids(&texts);
        ids.into_iter().all(|id| each(u32::try_from(id).unwrap_or(self.unknown)))
    }
}

/// Moves controls, spaces and everything that is not ASCII to Unicode planes without characters.
/// `rust_tokenizers` has no rules for these planes, and takes each code point for a letter. Code
/// points that are already on these planes are unassigned, and all become the same letter.
fn veil(text: &str) -> String {
    let moved = |c: char| match u32::from(c) {
        code @ ..0x40000 => char::from_u32(code + 0x40000).unwrap_or(char::MAX),
        code @ 0xE0000.. => char::from_u32(code - 0x60000).unwrap_or(char::MAX),
        _ => '\u{D0000}',
    };
    text.chars().map(|c| if c.is_ascii_graphic() { c } else { moved(c) }).collect()
}

fn is_control(c: char) -> bool {
    !matches!(c, '\t' | '\n' | '\r') && c.is_other()
}

/// Whether `c` is in Hugging Face's blocks of Chinese characters, which leave out U+2B820 to
/// U+2B91F.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F
        | 0x2B740..=0x2B81F | 0x2B920..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || (!c.is_ascii() && c.is_punctuation())
}
