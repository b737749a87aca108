//! Texts to token ids, as Hugging Face's tokenizers make them. Special tokens and truncation are
//! here, words in `wordpiece.rs` and `bpe.rs`. `files.rs` reads a directory's files, `settings.rs`
//! judges each setting, `form.rs` says what BERT's and RoBERTa's tokenizers have, `description.rs`
//! derives the tokenizer, and `long.rs` reads texts that are too long.
//!
//! The files in reading order; each imports only from those before it: `files`, `settings`,
//! `form`, `added`, `wordpiece`, `bpe`, `pipeline`, `description`, `before`, `long`.

mod added;
mod before;
mod bpe;
mod description;
mod files;
mod form;
mod long;
mod pipeline;
pub mod settings;
mod wordpiece;

pub use files::FILES as TOKENIZER_FILES;
pub use long::{TextSize, Windows};

use crate::error::{Error, Result};
use crate::files::{is_there, read_small};
use crate::models::TokenAlgorithm;
use added::{Finder, Piece};
use bpe::Bpe;
use description::{Description, TokenizerModel};
use files::{FILES, MAX_BYTES, TokenizerClass, TokenizerFiles};
use form::TokenizerForm;
use std::path::{Path, PathBuf};
use wordpiece::WordPiece;

/// A text or a pair as the encoder reads it: BERT's `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`,
/// RoBERTa's `<s> a </s>` or `<s> a </s></s> b </s>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Encoding {
    /// Vocabulary ids, special tokens included.
    pub ids: Vec<u32>,
    /// Number of ids in segment 0; the rest, BERT's second text, is segment 1.
    pub first: usize,
}

/// Minimum of `max_length`: the number of special tokens in a pair of RoBERTa's, the most of any
/// model.
pub const MIN_LENGTH: usize = 4;

enum Words {
    WordPiece(Box<WordPiece>),
    Bpe(Box<Bpe>),
}

impl Words {
    fn algorithm(&self) -> TokenAlgorithm {
        match self {
            Self::WordPiece(_) => TokenAlgorithm::WordPiece,
            Self::Bpe(_) => TokenAlgorithm::ByteLevelBpe,
        }
    }
}

/// The tokenizer of a base model.
pub struct Tokenizer {
    words: Words,
    /// Matchers of the added tokens: `raw` in the text as it is, `normalized` in the normalized
    /// text.
    raw: Option<Finder>,
    normalized: Option<Finder>,
    cls: u32,
    sep: u32,
    /// Whether the end of a text that is too long is kept, instead of its beginning.
    left: bool,
    /// Whether the second text of a pair is segment 1, instead of 0.
    segments: bool,
    /// Whether the files turn off the segments that the model, or a class of BERT's, has.
    unsegmented: bool,
    /// The highest id that a file gives, plus one.
    entries: i64,
    /// The directory that the tokenizer was read from.
    dir: PathBuf,
    /// Differences from what transformers 4 reads in the same files, for messages.
    pub notes: Vec<String>,
    /// SHA-256, in hex, of what decides ids and segments: vocabulary, merges, options, special and
    /// added tokens.
    pub fingerprint: String,
}

impl Tokenizer {
    /// Reads the tokenizer of the directory `dir`. Errs if it is not supported.
    pub fn read(dir: &Path) -> Result<Self> {
        let description = Description::read(dir)?;
        let fingerprint = description.fingerprint();
        let Description { vocab_file, vocab, kind, unk, cls, sep, added, .. } = description;
        let (left, segments) = (description.left, description.segments);
        let unsegmented = description.unsegmented;
        if !description.notes.is_empty() {
            let notes = description.notes.join("; ");
            tracing::info!(
                "{}: token ids are those of transformers 5; transformers 4 differs: {notes}",
                dir.display()
            );
        }
        let given = added.iter().filter(|token| !token.implied).map(|token| token.id);
        let ids = vocab.values().copied().chain(given).chain([cls, sep]);
        let entries = ids.max().map_or(0, |id| i64::from(id) + 1);
        let words = match kind {
            TokenizerModel::WordPiece(options) => {
                Words::WordPiece(Box::new(WordPiece::new(vocab, &unk.unwrap_or_default(), options)))
            }
            TokenizerModel::Bpe { merges, add_prefix_space } => {
                let bpe = Bpe::new(&vocab, &merges, unk.as_deref(), add_prefix_space);
                Words::Bpe(Box::new(bpe.map_err(|problem| Error::file(&vocab_file, problem))?))
            }
        };
        let (late, early) = added.into_iter().partition(|token| token.normalized);
        let split = description.split_special;
        let mut tokenizer = Self {
            words,
            raw: Finder::new(&vocab_file, early, split, |token| token.content.clone())?,
            normalized: None,
            cls,
            sep,
            left,
            segments,
            unsegmented,
            entries,
            dir: dir.to_owned(),
            notes: description.notes,
            fingerprint,
        };
        let look = |token: &added::AddedToken| tokenizer.normalize(&token.content).into_owned();
        tokenizer.normalized = Finder::new(&vocab_file, late, split, look)?;
        Ok(tokenizer)
    }

    /// Names and contents of the files that make this tokenizer in any directory. What only
    /// config.json says is moved to tokenizer_config.json: the class, or that a model with
    /// DistilBERT's class is a BERT.
    pub fn files(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let mut files = vec![];
        for name in FILES {
            let path = self.dir.join(name);
            if is_there(&path)? {
                files.push((name, read_small(&path, MAX_BYTES)?));
            }
        }
        let TokenizerFiles { class_of_model, config, class, .. } = TokenizerFiles::read(&self.dir)?;
        let mut config = config.unwrap_or_default();
        if self.unsegmented && class == TokenizerClass::DistilBert {
            // BERT's class without segments makes the same tokenizer.
            config.insert("tokenizer_class".into(), "BertTokenizer".into());
            let inputs = serde_json::json!(["input_ids", "attention_mask"]);
            config.insert("model_input_names".into(), inputs);
        } else if let Some(class) = class_of_model {
            config.insert("tokenizer_class".into(), class.into());
        } else {
            return Ok(files);
        }
        let name = "tokenizer_config.json";
        files.retain(|(there, _)| *there != name);
        files.push((name, format!("{:#}\n", serde_json::Value::from(config)).into_bytes()));
        Ok(files)
    }

    /// The reason why a task has another `fingerprint` than this tokenizer, if an earlier version
    /// of bitfit read the same files with that fingerprint; else `None`.
    pub fn why_other(&self, fingerprint: &str) -> Option<String> {
        before::why_other(&self.dir, fingerprint)
    }

    /// Number of vocabulary entries, the highest id plus one.
    pub fn vocab_size(&self) -> i64 {
        self.entries
    }

    /// Whether the end of a text that is too long is kept, instead of its beginning.
    pub fn keeps_the_end(&self) -> bool {
        self.left
    }

    /// Encodes a text, or a pair, cut to `max_length` ids as Hugging Face's `longest_first` does.
    pub fn encode(&self, text: &str, pair: Option<&str>, max_length: usize) -> Encoding {
        self.encode_cut(text, pair, max_length).0
    }

    /// Like [`Tokenizer::encode`], with whether tokens were cut off.
    fn encode_cut(&self, text: &str, pair: Option<&str>, max_length: usize) -> (Encoding, bool) {
        let room = self.room(pair.is_some(), max_length);
        // One token more than there is room for tells that a text is cut.
        let mut first = self.kept(text, room.saturating_add(1));
        let Some(pair) = pair else {
            let is_cut = first.len() > room;
            self.cut(&mut first, room);
            return (self.joined(first, None), is_cut);
        };
        let mut second = self.kept(pair, room.saturating_add(1));
        let is_cut = first.len() + second.len() > room;
        // The full lengths matter only if both texts reach `room`: then an odd token goes to the
        // longer one.
        let (a, b) = if first.len() >= room && second.len() >= room {
            let all = |text| self.pieces(text, usize::MAX).len();
            longest_first(all(text), all(pair), room)
        } else {
            longest_first(first.len(), second.len(), room)
        };
        self.cut(&mut first, a);
        self.cut(&mut second, b);
        (self.joined(first, Some(&second)), is_cut)
    }

    /// Number of tokens beside the special tokens.
    fn room(&self, is_pair: bool, max_length: usize) -> usize {
        let between = TokenizerForm::of(self.words.algorithm()).separators;
        max_length.saturating_sub(2 + if is_pair { between } else { 0 })
    }

    /// The special tokens around the tokens of a text, or of a pair.
    fn joined(&self, first: Vec<u32>, second: Option<&[u32]>) -> Encoding {
        let length = first.len();
        let mut ids: Vec<u32> = [self.cls].into_iter().chain(first).collect();
        if let Some(second) = second {
            let between = TokenizerForm::of(self.words.algorithm()).separators;
            ids.extend(std::iter::repeat_n(self.sep, between));
            ids.extend(second);
        }
        ids.push(self.sep);
        let has_segments = self.segments && second.is_some();
        Encoding { first: if has_segments { length + 2 } else { ids.len() }, ids }
    }

    /// The ids of a text that are kept, at most `most`: the first, or the last.
    fn kept(&self, text: &str, most: usize) -> Vec<u32> {
        if !self.left {
            return self.pieces(text, most);
        }
        let mut ids = self.pieces(text, usize::MAX);
        self.cut(&mut ids, most);
        ids
    }

    fn cut(&self, ids: &mut Vec<u32>, most: usize) {
        if self.left {
            ids.drain(..ids.len().saturating_sub(most));
        } else {
            ids.truncate(most);
        }
    }

    /// The first `most` ids of a text.
    ///
    /// A long text is read only up to the end of a word that is probably far enough, and further if
    /// it was not. So time and memory depend on what is kept of a text, not on its length.
    fn pieces(&self, text: &str, most: usize) -> Vec<u32> {
        let finders = [&self.raw, &self.normalized];
        let spaced = finders.into_iter().flatten().any(|finder| finder.reaches_over_spaces);
        let mut reach =
            if spaced { text.len() } else { most.saturating_mul(12).saturating_add(64) };
        loop {
            // A text can be cut here: no token spans the space after a letter or digit, and no
            // token before that space depends on what follows.
            let word_end = |(i, _)| {
                text.get(..i).filter(|before: &&str| before.ends_with(char::is_alphanumeric))
            };
            let mut spaces =
                text.as_bytes().iter().enumerate().skip(reach).filter(|(_, byte)| **byte == b' ');
            let part = spaces.find_map(word_end).unwrap_or(text);
            let mut ids = Vec::new();
            if most > 0 {
                self.pieces_of(part, &mut |id| {
                    ids.push(id);
                    ids.len() < most
                });
            }
            if ids.len() >= most || part.len() == text.len() {
                return ids;
            }
            reach = part.len().saturating_mul(2);
        }
    }

    /// Calls `each` with the ids of a text, in order, until `each` returns false. Returns true if
    /// it never does.
    fn pieces_of(&self, text: &str, each: &mut dyn FnMut(u32) -> bool) -> bool {
        let plain = |text: &str, each: &mut dyn FnMut(u32) -> bool| {
            let normalized = self.normalize(text);
            match &self.normalized {
                Some(finder) => finder.split(&normalized, &mut |piece| match piece {
                    Piece::Token(id) => each(id),
                    Piece::Text(text) => self.words(text, each),
                }),
                None => self.words(&normalized, each),
            }
        };
        match &self.raw {
            Some(finder) => finder.split(text, &mut |piece| match piece {
                Piece::Token(id) => each(id),
                Piece::Text(text) => plain(text, each),
            }),
            None => plain(text, each),
        }
    }

    fn normalize<'a>(&self, text: &'a str) -> std::borrow::Cow<'a, str> {
        match &self.words {
            Words::WordPiece(words) => words.normalize(text).into(),
            Words::Bpe(_) => text.into(),
        }
    }

    fn words(&self, text: &str, each: &mut dyn FnMut(u32) -> bool) -> bool {
        match &self.words {
            Words::WordPiece(words) => words.pieces(text, each),
            Words::Bpe(words) => words.pieces(text, each),
        }
    }
}

/// Numbers of tokens to keep of two texts of `a` and `b` tokens, at most `most` together, as
/// `LongestFirst` of Hugging Face's `tokenizers`.
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
