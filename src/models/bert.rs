//! BERT (Devlin et al., NAACL 2019): `BertForSequenceClassification`.

use super::architecture::{HeadSpec, Keys, LayerNames, Spec};
use super::keys;

pub(super) const SPEC: Spec = Spec {
    model_type: "bert",
    class: "BertForSequenceClassification",
    prefix: "bert",
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
    token_types: true,
    attention_output_dropout: true,
    positions_after_padding: false,
    layer_norm_eps: None,
    classifier_dropout: None,
    head: HeadSpec {
        dropout_first: false,
        dense: "bert.pooler.dense",
        tanh: true,
        output: "classifier",
    },
    keys: Keys {
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
    own_keys: keys::BERT,
    defaults: (30522, 12),
    unused: &["cls.", "classifier.", "qa_outputs.", "embeddings.position_ids"],
};
