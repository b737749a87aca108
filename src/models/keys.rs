//! The keys that transformers 4 and 5 write into `config.json`, and how each is treated. A key that
//! is not listed is ignored, as in transformers.

use serde_json::Value;

/// The treatment of a key.
#[derive(Debug, Clone, Copy)]
pub enum KeyVerdict {
    /// The key decides a property of the model, or of the task of a classifier that was saved
    /// whole.
    Obeyed,
    /// The key does not change the logits of a classifier.
    WithoutEffect,
    /// A value that is not `harmless` is refused.
    Refused {
        /// Whether the value does not change the logits.
        harmless: fn(&Value) -> bool,
        /// The allowed value, and why no other is allowed.
        expected: &'static str,
    },
}

use KeyVerdict::{Obeyed, Refused, WithoutEffect};

/// Keys with their verdicts.
pub type KeyVerdicts = &'static [(&'static str, KeyVerdict)];

/// The keys of every architecture.
pub const SHARED: KeyVerdicts = &[
    ("model_type", Obeyed),
    ("vocab_size", Obeyed),
    ("max_position_embeddings", Obeyed),
    ("initializer_range", Obeyed),
    ("pad_token_id", Obeyed),
    ("tokenizer_class", Obeyed),
    // The task of a classifier that was saved whole.
    ("architectures", Obeyed),
    ("id2label", Obeyed),
    ("num_labels", Obeyed),
    ("problem_type", Obeyed),
    // The inverse of id2label.
    ("label2id", WithoutEffect),
    // Weights that are not one float each, or have other shapes or another file name.
    (
        "pruned_heads",
        Refused {
            harmless: is_empty,
            expected: "none: layers that lack heads are not supported, and transformers 5 does not read the key; \
                       use the model that was pruned",
        },
    ),
    (
        "quantization_config",
        Refused {
            harmless: is_empty,
            expected: "none: quantized weights are not supported; save the model in float32, float16 or bfloat16",
        },
    ),
    (
        "per_layer_config",
        Refused { harmless: is_empty, expected: "none: all layers have one shape" },
    ),
    (
        "transformers_weights",
        Refused {
            harmless: Value::is_null,
            expected: "none: rename the file to model.safetensors or pytorch_model.bin, and remove the key",
        },
    ),
    // The file decides the dtype of the weights, and --precision that of the products.
    ("dtype", WithoutEffect),
    ("torch_dtype", WithoutEffect),
    ("use_bfloat16", WithoutEffect),
    // How transformers computes, and what else it returns.
    ("attn_implementation", WithoutEffect),
    ("_attn_implementation", WithoutEffect),
    ("_attn_implementation_autoset", WithoutEffect),
    ("experts_implementation", WithoutEffect),
    ("chunk_size_feed_forward", WithoutEffect),
    ("gradient_checkpointing", WithoutEffect),
    ("output_attentions", WithoutEffect),
    ("output_hidden_states", WithoutEffect),
    ("tie_last_hidden_states", WithoutEffect),
    ("return_dict", WithoutEffect),
    ("torchscript", WithoutEffect),
    ("tf_legacy_loss", WithoutEffect),
    // Where the model comes from. transformers runs the code in auto_map only with
    // trust_remote_code.
    ("transformers_version", WithoutEffect),
    ("_name_or_path", WithoutEffect),
    ("name_or_path", WithoutEffect),
    ("_commit_hash", WithoutEffect),
    ("auto_map", WithoutEffect),
    ("finetuning_task", WithoutEffect),
    ("task_specific_params", WithoutEffect),
    ("prefix", WithoutEffect),
    // For other models' heads, for decoders and for generation.
    ("tie_word_embeddings", WithoutEffect),
    ("tie_encoder_decoder", WithoutEffect),
    ("is_encoder_decoder", WithoutEffect),
    ("cross_attention_hidden_size", WithoutEffect),
    ("bos_token_id", WithoutEffect),
    ("eos_token_id", WithoutEffect),
    ("sep_token_id", WithoutEffect),
    ("decoder_start_token_id", WithoutEffect),
    ("max_length", WithoutEffect),
    ("min_length", WithoutEffect),
    ("do_sample", WithoutEffect),
    ("early_stopping", WithoutEffect),
    ("num_beams", WithoutEffect),
    ("num_beam_groups", WithoutEffect),
    ("diversity_penalty", WithoutEffect),
    ("temperature", WithoutEffect),
    ("top_k", WithoutEffect),
    ("top_p", WithoutEffect),
    ("typical_p", WithoutEffect),
    ("repetition_penalty", WithoutEffect),
    ("length_penalty", WithoutEffect),
    ("no_repeat_ngram_size", WithoutEffect),
    ("encoder_no_repeat_ngram_size", WithoutEffect),
    ("bad_words_ids", WithoutEffect),
    ("num_return_sequences", WithoutEffect),
    ("output_scores", WithoutEffect),
    ("return_dict_in_generate", WithoutEffect),
    ("forced_bos_token_id", WithoutEffect),
    ("forced_eos_token_id", WithoutEffect),
    ("remove_invalid_values", WithoutEffect),
    ("exponential_decay_length_penalty", WithoutEffect),
    ("suppress_tokens", WithoutEffect),
    ("begin_suppress_tokens", WithoutEffect),
];

/// Whether a flag is off.
pub fn is_false(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}
