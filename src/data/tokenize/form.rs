//! The tokenizers of BERT and of RoBERTa, as `tokenizer.json` spells them.

use super::settings::{BPE, SettingRules, WORD_PIECE};
use crate::models::TokenAlgorithm;

/// What goes with an algorithm: the types of the parts of a `tokenizer.json`, and the tokens around
/// texts.
pub struct TokenizerForm {
    /// The algorithm.
    pub algorithm: TokenAlgorithm,
    /// `type` of `model`.
    pub model: &'static str,
    /// `type` of `pre_tokenizer`.
    pub pre_tokenizer: &'static str,
    /// `type` of `normalizer`, which may be missing; `none` if it must be missing.
    pub normalizer: &'static str,
    /// `type` of `post_processor`, if that is not `TemplateProcessing`.
    pub post_processor: &'static str,
    /// The settings of these parts.
    pub settings: SettingRules,
    /// Whether `model` needs an unknown token.
    pub needs_unk: bool,
    /// Number of tokens between the two texts of a pair.
    pub separators: usize,
    /// The token type of a pair's second text.
    pub second_type: u64,
    /// A text and a pair with the tokens around them, for messages.
    pub texts: &'static str,
}

const BERT: TokenizerForm = TokenizerForm {
    algorithm: TokenAlgorithm::WordPiece,
    model: "WordPiece",
    pre_tokenizer: "BertPreTokenizer",
    normalizer: "BertNormalizer",
    post_processor: "BertProcessing",
    settings: WORD_PIECE,
    needs_unk: true,
    separators: 1,
    second_type: 1,
    texts: "[CLS] A [SEP], and [CLS] A [SEP] of type 0, B [SEP] of type 1",
};

const ROBERTA: TokenizerForm = TokenizerForm {
    algorithm: TokenAlgorithm::ByteLevelBpe,
    model: "BPE",
    pre_tokenizer: "ByteLevel",
    normalizer: "none",
    post_processor: "RobertaProcessing",
    settings: BPE,
    needs_unk: false,
    separators: 2,
    second_type: 0,
    texts: "<s> A </s>, and <s> A </s> </s> B </s> of type 0",
};

impl TokenizerForm {
    /// The form of an algorithm's tokenizers.
    pub fn of(algorithm: TokenAlgorithm) -> &'static Self {
        match algorithm {
            TokenAlgorithm::WordPiece => &BERT,
            TokenAlgorithm::ByteLevelBpe => &ROBERTA,
        }
    }
}
