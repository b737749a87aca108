//! RoBERTa (Liu et al., 2019): BERT's encoder with positions that start after the padding id, one
//! token type, and a head of its own in place of the pooler.

use super::architecture::{HeadSpec, Spec};
use super::bert;

pub(super) const SPEC: Spec = Spec {
    model_type: "roberta",
    class: "RobertaForSequenceClassification",
    prefix: "roberta",
    positions_after_padding: true,
    head: HeadSpec {
        dropout_first: true,
        dense: "classifier.dense",
        tanh: true,
        output: "classifier.out_proj",
    },
    defaults: (50265, 12),
    unused: &[
        "lm_head.",
        "classifier.",
        "qa_outputs.",
        "pooler.",
        "embeddings.position_ids",
        "embeddings.token_type_ids",
    ],
    ..bert::SPEC
};
