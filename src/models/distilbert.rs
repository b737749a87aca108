//! DistilBERT (Sanh et al., 2019): BERT's layers under other names. DistilBERT has no token types,
//! no dropout after the attention's output, and a dense layer with ReLU in place of the pooler.

use super::architecture::{HeadSpec, Keys, LayerNames, Spec};
use super::keys;

pub(super) const SPEC: Spec = Spec {
    model_type: "distilbert",
    class: "DistilBertForSequenceClassification",
    prefix: "distilbert",
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
    token_types: false,
    attention_output_dropout: false,
    positions_after_padding: false,
    layer_norm_eps: Some(1e-12),
    classifier_dropout: Some(0.2),
    head: HeadSpec {
        dropout_first: false,
        dense: "pre_classifier",
        tanh: false,
        output: "classifier",
    },
    keys: Keys {
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
    own_keys: keys::DISTILBERT,
    defaults: (30522, 6),
    unused: &["vocab_", "pre_classifier.", "classifier.", "qa_outputs.", "embeddings.position_ids"],
};
