//! The settings that transformers 4 and 5 write into the files of a tokenizer, and how each is
//! handled. Token ids are those of transformers 5 where the versions differ.

use super::files::{JsonObject, TokenizerFiles, Vocabulary, cut, short};
use crate::error::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// The treatment of a setting.
#[derive(Debug, Clone, Copy)]
pub enum SettingRule {
    /// Token ids follow the setting.
    Obeyed,
    /// Obeyed by classes that build their pipeline themselves; the others have tokenizer.json's.
    ObeyedByBuilt,
    /// Obeyed by classes that take tokenizer.json whole; the others build their pipeline
    /// themselves.
    ObeyedByWhole,
    /// No token id depends on the setting.
    WithoutEffect,
    /// A value that is not `harmless` is refused.
    Refused {
        /// Whether no token id depends on this value.
        harmless: fn(&Value) -> bool,
        /// Allowed values, for messages.
        expected: &'static str,
    },
}

use SettingRule::{Obeyed, ObeyedByBuilt, ObeyedByWhole, Refused, WithoutEffect};

/// Settings with their verdicts.
pub type SettingRules = &'static [(&'static str, SettingRule)];

/// The keys of `tokenizer_config.json`. A key that is not listed has no effect, here or in
/// transformers, unless it ends with `_token`: then its value is a special token.
pub const CONFIG: SettingRules = &[
    ("tokenizer_class", Obeyed),
    ("do_lower_case", ObeyedByBuilt),
    ("strip_accents", ObeyedByBuilt),
    ("tokenize_chinese_chars", ObeyedByBuilt),
    ("add_prefix_space", ObeyedByBuilt),
    ("truncation_side", Obeyed),
    ("split_special_tokens", Obeyed),
    ("model_input_names", Obeyed),
    ("added_tokens_decoder", Obeyed),
    ("bos_token", Obeyed),
    ("eos_token", Obeyed),
    ("unk_token", Obeyed),
    ("sep_token", Obeyed),
    ("pad_token", Obeyed),
    ("cls_token", Obeyed),
    ("mask_token", Obeyed),
    ("additional_special_tokens", Obeyed),
    ("extra_special_tokens", Obeyed),
    ("model_specific_special_tokens", Obeyed),
    ("fast_tokenizer_files", Refused { harmless: is_usual_file, expected: "only tokenizer.json" }),
    ("init_inputs", Refused { harmless: is_empty, expected: "an empty list" }),
    ("gguf_file", Refused { harmless: Value::is_null, expected: "null" }),
    ("vocab", Refused { harmless: Value::is_null, expected: "null" }),
    ("merges", Refused { harmless: Value::is_null, expected: "null" }),
    ("tokenizer_object", Refused { harmless: Value::is_null, expected: "null" }),
    ("post_processor", Refused { harmless: Value::is_null, expected: "null" }),
    ("tokenizer_truncation", Refused { harmless: is_empty, expected: "null" }),
    ("tokenizer_padding", Refused { harmless: is_empty, expected: "null" }),
    // True makes transformers 5 take tokenizer.json whole, whatever the class.
    ("trust_remote_code", Refused { harmless: is_off, expected: "false" }),
    (
        "add_special_tokens",
        Refused { harmless: never, expected: "no such key, which transformers refuses too" },
    ),
    // Options of the slow `BertTokenizer` of transformers 4, which is written in Python.
    ("do_basic_tokenize", WithoutEffect),
    ("never_split", WithoutEffect),
    ("clean_text", WithoutEffect),
    ("wordpieces_prefix", WithoutEffect),
    // Arguments of a call in transformers; here data.max_length, and longest first.
    ("model_max_length", WithoutEffect),
    ("max_len", WithoutEffect),
    ("max_length", WithoutEffect),
    ("truncation_strategy", WithoutEffect),
    ("stride", WithoutEffect),
    // Texts are not padded here.
    ("padding_side", WithoutEffect),
    ("pad_to_multiple_of", WithoutEffect),
    ("pad_token_type_id", WithoutEffect),
    // Options for offsets, and for decoding.
    ("trim_offsets", WithoutEffect),
    ("errors", WithoutEffect),
    ("clean_up_tokenization_spaces", WithoutEffect),
    ("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", WithoutEffect),
    // The tokens around a text are set by BERT's and RoBERTa's classes, or by tokenizer.json.
    ("add_bos_token", WithoutEffect),
    ("add_eos_token", WithoutEffect),
    // Settings for chats.
    ("chat_template", WithoutEffect),
    ("chat_control_tokens", WithoutEffect),
    ("response_template", WithoutEffect),
    ("response_schema", WithoutEffect),
    // Origin of the tokenizer, and how it was loaded.
    ("auto_map", WithoutEffect),
    ("backend", WithoutEffect),
    ("device_map", WithoutEffect),
    ("files_loaded", WithoutEffect),
    ("from_slow", WithoutEffect),
    ("is_local", WithoutEffect),
    ("legacy", WithoutEffect),
    ("local_files_only", WithoutEffect),
    ("merges_file", WithoutEffect),
    ("name_or_path", WithoutEffect),
    ("processor_class", WithoutEffect),
    ("slow_tokenizer_class", WithoutEffect),
    ("special_tokens_map_file", WithoutEffect),
    ("tokenizer_file", WithoutEffect),
    ("transformers_version", WithoutEffect),
    ("use_fast", WithoutEffect),
    ("verbose", WithoutEffect),
    ("vocab_file", WithoutEffect),
];

/// The keys of `special_tokens_map.json`, which is read unless tokenizer_config.json has
/// `added_tokens_decoder`. As there, any key that ends with `_token` is a special token.
pub const SPECIALS: SettingRules = &[
    ("bos_token", Obeyed),
    ("eos_token", Obeyed),
    ("unk_token", Obeyed),
    ("sep_token", Obeyed),
    ("pad_token", Obeyed),
    ("cls_token", Obeyed),
    ("mask_token", Obeyed),
    ("additional_special_tokens", Obeyed),
    ("extra_special_tokens", Obeyed),
];

/// The keys of an added token, in `tokenizer.json` and in `added_tokens_decoder` of
/// tokenizer_config.json.
pub const ADDED: SettingRules = &[
    // Tokens are added in the order of their ids. A token that the vocabulary lacks gets the next
    // free id.
    ("id", Obeyed),
    ("content", Obeyed),
    ("single_word", Obeyed),
    ("lstrip", Obeyed),
    ("rstrip", Obeyed),
    ("normalized", Obeyed),
    ("special", Obeyed),
];

/// The keys of `tokenizer.json` and of its parts; [`WORD_PIECE`] and [`BPE`] have the rest.
pub const JSON: SettingRules = &[
    ("version", Refused { harmless: is_first_version, expected: "1.0" }),
    ("truncation", Obeyed),
    ("truncation.direction", Obeyed),
    ("truncation.max_length", WithoutEffect),
    ("truncation.strategy", WithoutEffect),
    ("truncation.stride", WithoutEffect),
    ("padding", Obeyed),
    ("padding.strategy", WithoutEffect),
    ("padding.direction", WithoutEffect),
    ("padding.pad_to_multiple_of", WithoutEffect),
    ("padding.pad_id", WithoutEffect),
    ("padding.pad_type_id", WithoutEffect),
    // A special token, if tokenizer_config.json names no other.
    ("padding.pad_token", ObeyedByWhole),
    ("added_tokens", Obeyed),
    ("normalizer", Obeyed),
    ("pre_tokenizer", Obeyed),
    ("post_processor", Obeyed),
    // Two kinds of post-processors are supported, each of one shape.
    ("post_processor.type", Obeyed),
    ("post_processor.single", Obeyed),
    ("post_processor.pair", Obeyed),
    ("post_processor.special_tokens", ObeyedByWhole),
    ("post_processor.sep", ObeyedByWhole),
    ("post_processor.cls", ObeyedByWhole),
    ("post_processor.trim_offsets", WithoutEffect),
    ("post_processor.add_prefix_space", WithoutEffect),
    ("decoder", WithoutEffect),
    ("model", Obeyed),
    ("model.type", Obeyed),
    ("model.vocab", Obeyed),
    ("model.unk_token", ObeyedByWhole),
];

/// The keys of a `tokenizer.json` of BERT's kind.
pub const WORD_PIECE: SettingRules = &[
    ("normalizer.type", Obeyed),
    ("normalizer.clean_text", ObeyedByWhole),
    ("normalizer.handle_chinese_chars", ObeyedByWhole),
    ("normalizer.strip_accents", ObeyedByWhole),
    ("normalizer.lowercase", ObeyedByWhole),
    ("pre_tokenizer.type", Obeyed),
    (
        "model.continuing_subword_prefix",
        Refused { harmless: |value| value == "##" || value.is_null(), expected: "\"##\"" },
    ),
    ("model.max_input_chars_per_word", ObeyedByWhole),
];

/// The keys of a `tokenizer.json` of RoBERTa's kind.
pub const BPE: SettingRules = &[
    ("pre_tokenizer.type", Obeyed),
    ("pre_tokenizer.add_prefix_space", ObeyedByWhole),
    ("pre_tokenizer.trim_offsets", WithoutEffect),
    (
        "pre_tokenizer.use_regex",
        Refused { harmless: |value| value == true || value.is_null(), expected: "true or null" },
    ),
    ("model.merges", Obeyed),
    (
        "model.dropout",
        Refused { harmless: |value| value == 0.0 || value.is_null(), expected: "0.0 or null" },
    ),
    ("model.continuing_subword_prefix", Refused { harmless: is_no_text, expected: "\"\" or null" }),
    ("model.end_of_word_suffix", Refused { harmless: is_no_text, expected: "\"\" or null" }),
    ("model.fuse_unk", Refused { harmless: is_off, expected: "false or null" }),
    ("model.byte_fallback", Refused { harmless: is_off, expected: "false or null" }),
    ("model.ignore_merges", Refused { harmless: is_off, expected: "false or null" }),
];

fn never(_: &Value) -> bool {
    false
}

/// Whether a value is null, or an empty array or object.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}

fn is_usual_file(value: &Value) -> bool {
    let usual = |all: &Vec<Value>| all.iter().all(|name| name == "tokenizer.json");
    value.as_array().is_some_and(usual)
}

fn is_first_version(value: &Value) -> bool {
    value.is_null() || value == "1.0"
}

fn is_no_text(value: &Value) -> bool {
    value.is_null() || value == ""
}

fn is_off(value: &Value) -> bool {
    value.is_null() || value == false
}

/// Errs if the files of `dir` have a setting that cannot be obeyed. [`check_part`] checks the parts
/// of tokenizer.json.
pub fn check(dir: &Path, files: &TokenizerFiles) -> Result<()> {
    for (key, value) in files.config.iter().flatten() {
        check_one(&dir.join("tokenizer_config.json"), CONFIG, key, value)?;
    }
    for (key, _) in files.specials.iter().flatten() {
        let has_say = |verdict| !matches!(verdict, WithoutEffect);
        let token = key.ends_with("_token") || SPECIALS.iter().any(|(known, _)| key == known);
        if !token && find(CONFIG, key).is_some_and(has_say) {
            let problem = format!("{}: expected this key in tokenizer_config.json", cut(key));
            return Err(Error::file(&dir.join("special_tokens_map.json"), problem));
        }
    }
    if let Vocabulary::Json(path, whole) = &files.vocabulary {
        for (key, value) in whole {
            known(path, &[JSON], key)?;
            check_one(path, JSON, key, value)?;
        }
    }
    Ok(())
}

/// Errs if the part `name` of tokenizer.json has a setting that is unknown or cannot be obeyed;
/// `own` are the settings of the tokenizer's kind.
pub fn check_part(path: &Path, name: &str, part: &JsonObject, own: SettingRules) -> Result<()> {
    for (key, value) in part {
        let key = format!("{name}.{key}");
        known(path, &[JSON, own], &key)?;
        check_one(path, JSON, &key, value)?;
        check_one(path, own, &key, value)?;
    }
    Ok(())
}

fn known(path: &Path, tables: &[SettingRules], key: &str) -> Result<()> {
    if tables.iter().any(|table| find(table, key).is_some()) {
        return Ok(());
    }
    let problem = format!("{}: unknown setting", cut(key));
    Err(Error::file(path, problem))
}

fn find(table: SettingRules, key: &str) -> Option<SettingRule> {
    table.iter().find(|(known, _)| *known == key).map(|(_, verdict)| *verdict)
}

fn check_one(path: &Path, table: SettingRules, key: &str, value: &Value) -> Result<()> {
    match find(table, key) {
        Some(Refused { harmless, expected }) if !harmless(value) => {
            let problem = format!("{key}: found {}, expected {expected}", short(value));
            Err(Error::file(path, problem))
        }
        _ => Ok(()),
    }
}
