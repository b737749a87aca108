//! Texts to token ids: BERT's WordPiece by `rust_tokenizers`, special tokens and truncation by us.

use crate::error::{Error, Result};
use crate::weights::hex;
use rayon::prelude::*;
use rust_tokenizers::tokenizer::{BertTokenizer, Tokenizer as _};
use rust_tokenizers::vocab::{BertVocab, Vocab};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// A text or a pair as the encoder reads it: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Vocabulary ids, special tokens included.
    pub ids: Vec<u32>,
    /// Number of ids that belong to the first text, with its special tokens; the rest is segment 1.
    pub first: usize,
}

/// The tokenizer of a base.
pub struct Tokenizer {
    inner: BertTokenizer,
    cls: u32,
    sep: u32,
    /// The files it was read from.
    pub files: Vec<PathBuf>,
    /// SHA-256, in hex, of the vocabulary and the options: what decides the ids.
    pub fingerprint: String,
}

/// What is read of `tokenizer_config.json`.
#[derive(Deserialize)]
struct Options {
    #[serde(default = "yes")]
    do_lower_case: bool,
    strip_accents: Option<bool>,
    #[serde(default = "yes")]
    tokenize_chinese_chars: bool,
}

fn yes() -> bool {
    true
}

/// Special tokens of a single text and of a pair.
const SPECIAL: (usize, usize) = (2, 3);

impl Tokenizer {
    /// Reads `vocab.txt` and, where it is there, `tokenizer_config.json` of `dir`.
    pub fn read(dir: &Path) -> Result<Self> {
        let vocab_path = dir.join("vocab.txt");
        if !vocab_path.exists() && dir.join("tokenizer.json").exists() {
            let problem = "no vocab.txt there; a tokenizer.json alone is not read yet";
            return Err(Error::file(dir, problem));
        }
        let vocab_bytes = std::fs::read(&vocab_path).map_err(Error::io("read", &vocab_path))?;
        let vocab = BertVocab::from_file(&vocab_path)
            .map_err(|e| Error::file(&vocab_path, format!("not a BERT vocabulary: {e}")))?;
        let special = |token: &str| match vocab.values.get(token) {
            Some(&id) => {
                u32::try_from(id).map_err(|_| Error::file(&vocab_path, format!("{token}: id {id}")))
            }
            None => Err(Error::file(&vocab_path, format!("no {token} in the vocabulary"))),
        };
        let (cls, sep) = (special("[CLS]")?, special("[SEP]")?);
        let config_path = dir.join("tokenizer_config.json");
        let mut files = vec![vocab_path.clone()];
        let text = if config_path.exists() {
            files.push(config_path.clone());
            crate::files::read_text(&config_path)?
        } else {
            "{}".into()
        };
        let options: Options =
            serde_json::from_str(&text).map_err(|e| Error::file(&config_path, e.to_string()))?;
        if !options.tokenize_chinese_chars {
            return Err(Error::file(
                &config_path,
                "tokenize_chinese_chars: found false, supported: true",
            ));
        }
        let strip_accents = options.strip_accents.unwrap_or(options.do_lower_case);
        let mut hash = Sha256::new();
        hash.update(&vocab_bytes);
        hash.update([u8::from(options.do_lower_case), u8::from(strip_accents)]);
        let inner = BertTokenizer::from_existing_vocab(vocab, options.do_lower_case, strip_accents);
        Ok(Self { inner, cls, sep, files, fingerprint: hex(&hash.finalize()) })
    }

    /// Number of vocabulary entries, the highest id plus one.
    pub fn vocab_size(&self) -> i64 {
        1 + self.inner.vocab().values.values().max().copied().unwrap_or(-1)
    }

    /// Encodes a text, or a pair, cut to `max_length` ids as Hugging Face's `longest_first` does.
    pub fn encode(&self, text: &str, pair: Option<&str>, max_length: usize) -> Encoded {
        let Some(pair) = pair else {
            let first = self.pieces(text, max_length.saturating_sub(SPECIAL.0));
            let ids: Vec<u32> = [self.cls].into_iter().chain(first).chain([self.sep]).collect();
            return Encoded { first: ids.len(), ids };
        };
        let most = max_length.saturating_sub(SPECIAL.1);
        let (mut first, mut second) = (self.pieces(text, most), self.pieces(pair, most));
        // Lengths beyond `most` change what is kept only where both are: an odd token goes to the longer one.
        let (a, b) = if first.len() == most && second.len() == most {
            longest_first(self.all_pieces(text).len(), self.all_pieces(pair).len(), most)
        } else {
            longest_first(first.len(), second.len(), most)
        };
        first.truncate(a);
        second.truncate(b);
        let ids = [self.cls]
            .into_iter()
            .chain(first)
            .chain([self.sep])
            .chain(second)
            .chain([self.sep])
            .collect();
        Encoded { ids, first: a + 2 }
    }

    /// Encodes many texts on all cores, in order.
    pub fn encode_all<'a, T>(
        &self,
        texts: &'a [T],
        of: impl Fn(&'a T) -> (&'a str, Option<&'a str>) + Sync,
        max_length: usize,
    ) -> Vec<Encoded>
    where
        T: Sync,
    {
        texts
            .par_iter()
            .map(|item| {
                let (text, pair) = of(item);
                self.encode(text, pair, max_length)
            })
            .collect()
    }

    /// The first `most` ids of a text.
    ///
    /// No token reaches over a space, so a long text is read up to a space that is likely far enough, and further where it
    /// was not: the time and memory that a text takes go by what is kept of it.
    fn pieces(&self, text: &str, most: usize) -> Vec<u32> {
        let mut reach = most.saturating_mul(12).saturating_add(64);
        loop {
            let end = text
                .as_bytes()
                .iter()
                .skip(reach)
                .position(|&b| b == b' ')
                .map_or(text.len(), |i| reach + i);
            let mut ids = self.all_pieces(&text[..end]);
            if ids.len() >= most || end == text.len() {
                ids.truncate(most);
                return ids;
            }
            reach = end.saturating_mul(2);
        }
    }

    fn all_pieces(&self, text: &str) -> Vec<u32> {
        // Word boundaries to Hugging Face's tokenizer, and nothing to this one.
        let mended;
        let text = if text.contains(['\u{2028}', '\u{2029}']) {
            mended = text.replace(['\u{2028}', '\u{2029}'], " ");
            &mended
        } else {
            text
        };
        let tokens = self.inner.tokenize(text);
        let ids = self.inner.convert_tokens_to_ids(&tokens);
        ids.into_iter().map(|id| u32::try_from(id).unwrap_or(0)).collect()
    }
}

/// How many tokens of a pair are kept, of `a` and `b`, when `most` may be: Hugging Face `tokenizers`' `LongestFirst`.
fn longest_first(a: usize, b: usize, most: usize) -> (usize, usize) {
    if a + b <= most {
        return (a, b);
    }
    let (short, long) = (a.min(b), a.max(b));
    let (mut keep_short, mut keep_long) =
        (short, if short > most { short } else { short.max(most - short) });
    if keep_short + keep_long > most {
        keep_short = most / 2;
        keep_long = keep_short + most % 2;
    }
    let (keep_short, keep_long) = (keep_short.min(short), keep_long.min(long));
    if a <= b { (keep_short, keep_long) } else { (keep_long, keep_short) }
}
