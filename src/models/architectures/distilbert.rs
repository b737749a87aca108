//! DistilBERT (Sanh et al., 2019): BERT's layers under other names. DistilBERT has no token types,
//! no dropout after the attention's output, and a dense layer with ReLU in place of the pooler.

use crate::models::keys::KeyVerdict::{Obeyed, WithoutEffect};
use crate::models::keys::KeyVerdicts;
use crate::models::spec::{
    ConfigDefaults, ConfigKeys, EmbeddingNames, HeadSpec, LayerNames, Spec, TokenAlgorithm,
    TokenSpec,
};

pub(super) const SPEC: Spec = Spec {
    model_type: "distilbert",
    class: "DistilBertForSequenceClassification",
    prefix: "distilbert",
    embeddings: EmbeddingNames {
        module: "embeddings",
        word: "word_embeddings",
        position: "position_embeddings",
        token_type: None,
        layer_norm: "LayerNorm",
    },
    layers: "transformer.layer",
    layer: LayerNames {
        query: "attention.q_lin",
        key: "attention.k_lin",
        value: "attention.v_lin",
        attention_output: "attention.out_lin",
        attention_norm: "sa_layer_norm",
        intermediate: "ffn.lin1",
        output: "ffn.lin2",
        output_norm: "output_layer_norm",
        attention_adapter: "attention_adapters.adapters.task",
        output_adapter: "output_adapters.adapters.task",
    },
    head: HeadSpec {
        dropout_first: false,
        dense: "pre_classifier",
        tanh: false,
        output: "classifier",
    },
    unused: &["vocab_", "qa_outputs.", "embeddings.position_ids"],
    attention_output_dropout: false,
    positions_after_padding: false,
    layer_norm_eps: Some(1e-12),
    classifier_dropout: Some(0.2),
    keys: ConfigKeys {
        hidden_size: "dim",
        num_hidden_layers: "n_layers",
        num_attention_heads: "n_heads",
        intermediate_size: "hidden_dim",
        hidden_act: "activation",
        hidden_dropout: "dropout",
        attention_dropout: "attention_dropout",
        classifier_dropout: "seq_classif_dropout",
        aliases: &[
            ("hidden_size", "dim"),
            ("num_hidden_layers", "n_layers"),
            ("num_attention_heads", "n_heads"),
        ],
    },
    own_keys: KEYS,
    defaults: ConfigDefaults { vocab_size: 30522, num_hidden_layers: 6, pad_token_id: 0 },
    tokens: TokenSpec { algorithm: TokenAlgorithm::WordPiece, segments: false },
};

/// The keys that not every architecture has, with the names of BERT's keys that transformers
/// accepts for some of them.
const KEYS: KeyVerdicts = &[
    ("dim", Obeyed),
    ("hidden_size", Obeyed),
    ("n_layers", Obeyed),
    ("num_hidden_layers", Obeyed),
    ("n_heads", Obeyed),
    ("num_attention_heads", Obeyed),
    ("hidden_dim", Obeyed),
    ("activation", Obeyed),
    ("dropout", Obeyed),
    ("attention_dropout", Obeyed),
    ("seq_classif_dropout", Obeyed),
    // The position table is in the weights, whether sinusoidal or learned.
    ("sinusoidal_pos_embds", WithoutEffect),
    ("qa_dropout", WithoutEffect),
    ("is_decoder", WithoutEffect),
    ("add_cross_attention", WithoutEffect),
];
