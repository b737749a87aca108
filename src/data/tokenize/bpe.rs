//! RoBERTa's byte-level BPE (Radford et al., 2019): words by a pattern, their bytes as characters, merged by rank.
//!
//! Written here: `rust_tokenizers`' takes time that grows with the square of a word's length, keeps every word that it has seen,
//! and differs from Hugging Face's around special tokens.

use regex::Regex;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

pub struct Bpe {
    pattern: Regex,
    add_prefix_space: bool,
    /// The id of each byte's character; what a vocabulary lacks is the unknown token, or nothing where there is none.
    bytes: [Option<u32>; 256],
    /// Rank and result of the pairs that merge.
    merges: HashMap<(u32, u32), (u32, u32)>,
}

impl Bpe {
    /// An error is a problem of the merges.
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
                .ok_or_else(|| format!("merges: {token:?} is not in the vocabulary"))
        };
        let mut ranked = HashMap::with_capacity(merges.len());
        for ((a, b), rank) in merges.iter().zip(0u32..) {
            ranked.insert((id(a)?, id(b)?), (rank, id(&format!("{a}{b}"))?));
        }
        // GPT-2's, but for `\s+(?!\S)`, which `words` makes up for.
        let pattern =
            Regex::new(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")
                .map_err(|e| e.to_string())?;
        Ok(Self { pattern, add_prefix_space, bytes, merges: ranked })
    }

    /// The ids of a text, in order, until `each` says that it has enough.
    pub fn pieces(&self, text: &str, each: &mut dyn FnMut(u32) -> bool) -> bool {
        if self.add_prefix_space && !text.is_empty() && !text.starts_with(' ') {
            return self.words(&format!(" {text}"), each);
        }
        self.words(text, each)
    }

    fn words(&self, text: &str, each: &mut dyn FnMut(u32) -> bool) -> bool {
        let mut start = 0;
        while let Some(found) = self.pattern.find_at(text, start) {
            let mut end = found.end();
            // Of white space before a word the last character is the word's, or stands alone.
            if end < text.len()
                && let Some(last) = found.as_str().chars().next_back()
                && last.is_whitespace()
                && last.len_utf8() < found.len()
            {
                end -= last.len_utf8();
            }
            start = end;
            if !self.merge(&text.as_bytes()[found.start()..end]).into_iter().all(&mut *each) {
                return false;
            }
        }
        true
    }

    /// The tokens of a word: always the best ranked pair is merged, the first of equals.
    fn merge(&self, word: &[u8]) -> Vec<u32> {
        let mut ids: Vec<u32> =
            word.iter().filter_map(|&byte| self.bytes[usize::from(byte)]).collect();
        let count = ids.len();
        // A list in an array: `next[i]` is where the token after the one at `i` begins, and `count` the end.
        let mut next: Vec<usize> = (1..=count).collect();
        let mut previous: Vec<usize> = (0..count).map(|i| i.wrapping_sub(1)).collect();
        let mut gone = vec![false; count];
        let mut queue = BinaryHeap::new();
        let pair = |ids: &[u32], a: usize, b: usize| {
            self.merges.get(&(ids[a], ids[b])).map(|&(rank, id)| Reverse((rank, a, id)))
        };
        queue.extend((1..count).filter_map(|b| pair(&ids, b - 1, b)));
        while let Some(Reverse((rank, a, id))) = queue.pop() {
            let b = next[a];
            // Stale: one of the two has been merged with another since.
            if gone[a] || b >= count || self.merges.get(&(ids[a], ids[b])) != Some(&(rank, id)) {
                continue;
            }
            ids[a] = id;
            gone[b] = true;
            next[a] = next[b];
            if next[a] < count {
                previous[next[a]] = a;
                queue.extend(pair(&ids, a, next[a]));
            }
            if previous[a] < count {
                queue.extend(pair(&ids, previous[a], a));
            }
        }
        (0..count).filter(|&i| !gone[i]).map(|i| ids[i]).collect()
    }
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
