//! RoBERTa's byte-level BPE (Radford et al., 2019): a pattern cuts a text into words, whose bytes
//! are written as characters and merged by rank.
//!
//! Implemented here because `rust_tokenizers` takes time that grows with the square of a word's
//! length, keeps every word that it has seen, and differs from Hugging Face's tokenizers around
//! special tokens.

use super::files::cut;
use regex::Regex;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

pub struct Bpe {
    pattern: Regex,
    add_prefix_space: bool,
    /// Id of each byte's character. A character that the vocabulary lacks has the id of the unknown
    /// token; `None` if there is no unknown token.
    bytes: [Option<u32>; 256],
    /// Rank and merged id of each pair that merges.
    merges: HashMap<(u32, u32), (u32, u32)>,
}

impl Bpe {
    /// A tokenizer with `merges` in the order of their ranks. Errs with the problem if the
    /// vocabulary lacks a token of a merge.
    pub fn new(
        vocab: &HashMap<String, u32>,
        merges: &[(String, String)],
        unk: Option<&str>,
        add_prefix_space: bool,
    ) -> std::result::Result<Self, String> {
        let unknown = unk.and_then(|unk| vocab.get(unk).copied());
        let characters = byte_characters();
        let bytes =
            characters.map(|c| vocab.get(c.encode_utf8(&mut [0; 4]) as &str).copied().or(unknown));
        let id = |token: &str| {
            vocab
                .get(token)
                .copied()
                .ok_or_else(|| format!("merges: {:?} is not in the vocabulary", cut(token)))
        };
        let mut ranked = HashMap::with_capacity(merges.len());
        for ((a, b), rank) in merges.iter().zip(0u32..) {
            ranked.insert((id(a)?, id(b)?), (rank, id(&format!("{a}{b}"))?));
        }
        // GPT-2's pattern without `\s+(?!\S)`: `regex` has no look-ahead, and `words` makes up for
        // it.
        let pattern =
            Regex::new(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")
                .map_err(|e| e.to_string())?;
        Ok(Self { pattern, add_prefix_space, bytes, merges: ranked })
    }

    /// Calls `each` with the token ids of a text, in order, until `each` returns false. Returns
    /// true if it never does.
    pub fn pieces(&self, text: &str, each: &mut dyn FnMut(u32) -> bool) -> bool {
        if self.add_prefix_space && !text.is_empty() && !text.starts_with(' ') {
            return self.words(&format!(" {text}"), each);
        }
        self.words(text, each)
    }

    fn words(&self, text: &str, each: &mut dyn FnMut(u32) -> bool) -> bool {
        let mut start = 0;
        while let Some(found) = self.pattern.find_at(text, start) {
            let mut word = found.as_str();
            // The last character of white space before a word belongs to the word, or is a word of
            // its own.
            let mut rest = word.chars();
            if found.end() < text.len()
                && rest.next_back().is_some_and(char::is_whitespace)
                && !rest.as_str().is_empty()
            {
                word = rest.as_str();
            }
            start = found.start() + word.len();
            if !self.merge(word.as_bytes()).into_iter().all(&mut *each) {
                return false;
            }
        }
        true
    }

    /// The tokens of a word. Merges the best ranked pair until none is left; of equals, the first.
    fn merge(&self, word: &[u8]) -> Vec<u32> {
        let ids = word.iter().filter_map(|&byte| *self.bytes.get(usize::from(byte))?);
        let mut tokens: Vec<Token> = ids
            .enumerate()
            .map(|(i, id)| Token { id: Some(id), previous: i.wrapping_sub(1), next: i + 1 })
            .collect();
        let pair = |tokens: &[Token], a: usize, b: usize| {
            let ids = (tokens.get(a)?.id?, tokens.get(b)?.id?);
            self.merges.get(&ids).map(|&(rank, id)| Reverse((rank, a, id)))
        };
        let mut queue = BinaryHeap::new();
        queue.extend((1..tokens.len()).filter_map(|b| pair(&tokens, b - 1, b)));
        while let Some(best) = queue.pop() {
            let Reverse((_, a, id)) = best;
            let Some(&Token { previous, next: b, .. }) = tokens.get(a) else { continue };
            // Stale: one of the two has been merged with another since.
            if pair(&tokens, a, b) != Some(best) {
                continue;
            }
            let Ok([first, second]) = tokens.get_disjoint_mut([a, b]) else { continue };
            let next = second.next;
            (first.id, first.next, second.id) = (Some(id), next, None);
            if let Some(after) = tokens.get_mut(next) {
                after.previous = a;
            }
            queue.extend(pair(&tokens, a, next));
            queue.extend(pair(&tokens, previous, a));
        }
        tokens.into_iter().filter_map(|token| token.id).collect()
    }
}

/// A token of a word, as a node of a linked list: `previous` and `next` are indices of its
/// neighbours in the array of tokens, out of bounds at either end.
struct Token {
    /// `None` once the token was merged into the one before it.
    id: Option<u32>,
    previous: usize,
    next: usize,
}

/// Whether a vocabulary has a token for each byte.
pub fn has_bytes(vocab: &HashMap<String, u32>) -> bool {
    byte_characters().iter().all(|c| vocab.contains_key(c.encode_utf8(&mut [0; 4]) as &str))
}

/// The character that stands for each byte: itself where it is printable, else one from U+0100 on.
fn byte_characters() -> [char; 256] {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = (0x100..).filter_map(char::from_u32);
    std::array::from_fn(|i| {
        let byte = i as u8;
        if printable(byte) { char::from(byte) } else { others.next().unwrap_or(char::from(byte)) }
    })
}
