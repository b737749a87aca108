//! RoBERTa (Liu et al., 2019): BERT's encoder with positions that start after the padding id, one
//! token type, and a head of its own in place of the pooler.

use super::bert;
use crate::models::spec::{ConfigDefaults, HeadSpec, Spec, TokenAlgorithm, TokenSpec};

pub(super) const SPEC: Spec = Spec {
    model_type: "roberta",
    class: "RobertaForSequenceClassification",
    prefix: "roberta",
    head: HeadSpec {
        dropout_first: true,
        dense: "classifier.dense",
        tanh: true,
        output: "classifier.out_proj",
    },
    unused: &[
        "lm_head.",
        "qa_outputs.",
        "pooler.",
        "embeddings.position_ids",
        "embeddings.token_type_ids",
    ],
    positions_after_padding: true,
    defaults: ConfigDefaults { vocab_size: 50265, num_hidden_layers: 12, pad_token_id: 1 },
    tokens: TokenSpec { algorithm: TokenAlgorithm::ByteLevelBpe, segments: false },
    ..bert::SPEC
};
