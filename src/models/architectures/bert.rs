//! BERT (Devlin et al., NAACL 2019): `BertForSequenceClassification`.

use crate::models::keys::KeyVerdict::{Obeyed, Refused, WithoutEffect};
use crate::models::keys::{KeyVerdicts, is_false};
use crate::models::spec::{
    ConfigDefaults, ConfigKeys, EmbeddingNames, HeadSpec, LayerNames, Spec, TokenAlgorithm,
    TokenSpec,
};

pub(super) const SPEC: Spec = Spec {
    model_type: "bert",
    class: "BertForSequenceClassification",
    prefix: "bert",
    embeddings: EmbeddingNames {
        module: "embeddings",
        word: "word_embeddings",
        position: "position_embeddings",
        token_type: Some("token_type_embeddings"),
        layer_norm: "LayerNorm",
    },
    layers: "encoder.layer",
    layer: LayerNames {
        query: "attention.self.query",
        key: "attention.self.key",
        value: "attention.self.value",
        attention_output: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
        intermediate: "intermediate.dense",
        output: "output.dense",
        output_norm: "output.LayerNorm",
        attention_adapter: "attention.output.adapters.task",
        output_adapter: "output.adapters.task",
    },
    head: HeadSpec {
        dropout_first: false,
        dense: "bert.pooler.dense",
        tanh: true,
        output: "classifier",
    },
    unused: &["cls.", "qa_outputs.", "embeddings.position_ids"],
    attention_output_dropout: true,
    positions_after_padding: false,
    layer_norm_eps: None,
    classifier_dropout: None,
    keys: ConfigKeys {
        hidden_size: "hidden_size",
        num_hidden_layers: "num_hidden_layers",
        num_attention_heads: "num_attention_heads",
        intermediate_size: "intermediate_size",
        hidden_act: "hidden_act",
        hidden_dropout: "hidden_dropout_prob",
        attention_dropout: "attention_probs_dropout_prob",
        classifier_dropout: "classifier_dropout",
        aliases: &[],
    },
    own_keys: KEYS,
    defaults: ConfigDefaults { vocab_size: 30522, num_hidden_layers: 12, pad_token_id: 0 },
    tokens: TokenSpec { algorithm: TokenAlgorithm::WordPiece, segments: true },
};

/// The keys that not every architecture has.
const KEYS: KeyVerdicts = &[
    ("hidden_size", Obeyed),
    ("num_hidden_layers", Obeyed),
    ("num_attention_heads", Obeyed),
    ("intermediate_size", Obeyed),
    ("hidden_act", Obeyed),
    ("hidden_dropout_prob", Obeyed),
    ("attention_probs_dropout_prob", Obeyed),
    ("classifier_dropout", Obeyed),
    ("type_vocab_size", Obeyed),
    ("layer_norm_eps", Obeyed),
    ("position_embedding_type", Obeyed),
    ("is_decoder", Refused { harmless: is_false, expected: "false: an encoder" }),
    ("add_cross_attention", Refused { harmless: is_false, expected: "false: an encoder" }),
    ("use_cache", WithoutEffect),
];
