//! The modules of the encoder that have a bias.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The bias terms of the encoder, by which the paper selects subsets of them. Each is the bias of a
/// dense layer or of a LayerNorm, and stands for that module.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Term {
    /// Bias of the query projection.
    Query,
    /// Bias of the key projection. Its gradient is zero up to rounding.
    Key,
    /// Bias of the value projection.
    Value,
    /// Bias of the dense layer after attention.
    AttentionOutput,
    /// Bias of the LayerNorm after attention.
    AttentionLayerNorm,
    /// Bias of the feedforward's first dense layer.
    Intermediate,
    /// Bias of the feedforward's second dense layer.
    Output,
    /// Bias of the LayerNorm after the feedforward.
    OutputLayerNorm,
    /// Bias of the LayerNorm after the embeddings, which is in no layer.
    EmbeddingsLayerNorm,
}

impl Term {
    /// All terms, in the order of the computation.
    pub const ALL: [Term; 9] = [
        Term::EmbeddingsLayerNorm,
        Term::Query,
        Term::Key,
        Term::Value,
        Term::AttentionOutput,
        Term::AttentionLayerNorm,
        Term::Intermediate,
        Term::Output,
        Term::OutputLayerNorm,
    ];

    /// The name used in configurations and output.
    pub fn name(self) -> &'static str {
        match self {
            Term::Query => "query",
            Term::Key => "key",
            Term::Value => "value",
            Term::AttentionOutput => "attention_output",
            Term::AttentionLayerNorm => "attention_layer_norm",
            Term::Intermediate => "intermediate",
            Term::Output => "output",
            Term::OutputLayerNorm => "output_layer_norm",
            Term::EmbeddingsLayerNorm => "embeddings_layer_norm",
        }
    }

    /// Whether the module is a LayerNorm; otherwise it is a dense layer.
    pub fn is_layer_norm(self) -> bool {
        matches!(self, Self::AttentionLayerNorm | Self::OutputLayerNorm | Self::EmbeddingsLayerNorm)
    }
}
