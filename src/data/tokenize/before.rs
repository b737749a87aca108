//! The tokenizer that bitfit 0.1.0 and before read from the same files. These versions obeyed fewer
//! settings, so some of their tasks have another fingerprint. Such tasks are refused, with the
//! reason.

use super::added::AddedToken;
use super::description::{Description, TokenizerModel};
use super::files::{JsonObject, TokenizerClass, TokenizerFiles, Vocabulary};
use super::pipeline::{self, Pipeline};
use super::wordpiece::{BertOptions, LONGEST};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// The reason why the tokenizer of `dir` does not have the `fingerprint` of a task; `None` unless
/// bitfit 0.1.0 read the directory with that fingerprint.
pub fn why_other(dir: &Path, fingerprint: &str) -> Option<String> {
    let (files, now) = (TokenizerFiles::read(dir).ok()?, Description::read(dir).ok()?);
    let before = description(&files)?;
    if before.fingerprint() != fingerprint {
        return None;
    }
    let mut changes = vec![];
    let mut change = |changed: bool, what: &'static str| {
        if changed && !changes.contains(&what) {
            changes.push(what);
        }
    };
    change(now.left, "truncation_side");
    change(now.split_special, "split_special_tokens");
    change(now.unsegmented, "the segments of model_input_names and tokenizer_class");
    match (&before.kind, &now.kind) {
        (TokenizerModel::WordPiece(before), TokenizerModel::WordPiece(now)) => {
            change(before.do_lower_case != now.do_lower_case, "do_lower_case");
            change(before.strip_accents != now.strip_accents, "strip_accents");
            let chinese = before.tokenize_chinese_chars != now.tokenize_chinese_chars;
            change(chinese, "tokenize_chinese_chars");
            change(before.clean_text != now.clean_text, "clean_text");
        }
        (
            TokenizerModel::Bpe { merges, add_prefix_space },
            TokenizerModel::Bpe { merges: merges_now, add_prefix_space: prefix_now },
        ) => {
            change(add_prefix_space != prefix_now, "add_prefix_space");
            change(merges != merges_now, "the first line of merges.txt");
        }
        _ => return None,
    }
    change(before.vocab != now.vocab, "the line ends of vocab.txt");
    let special = (before.cls, before.sep, &before.unk) != (now.cls, now.sep, &now.unk);
    change(special, "the special tokens");
    let sorted = |tokens: &[AddedToken]| {
        let mut tokens = tokens.to_vec();
        tokens.sort_by(|a, b| a.content.cmp(&b.content));
        tokens
    };
    let (old, new) = (sorted(&before.added), sorted(&now.added));
    let same = |(a, b): (&AddedToken, &AddedToken)| a.id == b.id && a.looks_like(b);
    let same = old.len() == new.len() && old.iter().zip(&new).all(same);
    change(!same, "the added tokens");
    let changes = changes.join(", ");
    Some(format!(
        "the task was trained by bitfit 0.1.0 or older, which did not follow transformers 5 in {changes}, or with tokenizer files without these settings; train it again"
    ))
}

/// The tokenizer as bitfit 0.1.0 described it.
fn description(files: &TokenizerFiles) -> Option<Description> {
    let decoder = files.said("added_tokens_decoder").and_then(Value::as_object);
    let decoder = decoder.filter(|decoder| !decoder.is_empty());
    // special_tokens_map.json was read only if tokenizer_config.json listed no added token.
    let settings = LegacySettings {
        files,
        decoder,
        map: files.specials.as_ref().filter(|_| decoder.is_none()),
    };
    let flag = |key: &str| settings.given(key).and_then(Value::as_bool);
    let (path, vocab, kind, pipeline) = vocabulary(files, flag)?;
    let is_bpe = matches!(kind, TokenizerModel::Bpe { .. });
    let names = settings.special_tokens(is_bpe);
    let added = settings.added_tokens(&names, &vocab)?;
    let id = |token: &AddedToken| {
        let added = added.iter().find(|added| added.content == token.content);
        added.map(|added| added.id).or_else(|| vocab.get(&token.content).copied())
    };
    let (cls, sep, unk) = match pipeline {
        Some(pipeline) => (pipeline.cls, pipeline.sep, pipeline.unk),
        None => {
            let unk = names.get(2).filter(|_| !is_bpe).map(|token| token.content.clone());
            (id(names.first()?)?, id(names.get(1)?)?, unk)
        }
    };
    Some(Description {
        vocab_file: path.to_owned(),
        vocab,
        kind,
        unk,
        cls,
        sep,
        added,
        left: false,
        split_special: false,
        segments: !is_bpe,
        unsegmented: false,
        notes: vec![],
    })
}

/// The settings about tokens that bitfit 0.1.0 read.
struct LegacySettings<'a> {
    files: &'a TokenizerFiles,
    /// `added_tokens_decoder` of tokenizer_config.json.
    decoder: Option<&'a JsonObject>,
    /// special_tokens_map.json.
    map: Option<&'a JsonObject>,
}

impl<'a> LegacySettings<'a> {
    fn given(&self, key: &str) -> Option<&'a Value> {
        self.files.said(key).filter(|value| !value.is_null())
    }

    fn special(&self, key: &str) -> Option<AddedToken> {
        let value = self.map.and_then(|map| map.get(key)).filter(|value| !value.is_null());
        value.or_else(|| self.given(key)).and_then(token)
    }

    /// The special tokens, first those of `cls_token`, `sep_token` and `unk_token`.
    fn special_tokens(&self, is_bpe: bool) -> Vec<AddedToken> {
        let names = if is_bpe {
            ["<s>", "</s>", "<unk>", "<pad>", "<mask>"]
        } else {
            ["[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]"]
        };
        let keys = ["cls_token", "sep_token", "unk_token", "pad_token", "mask_token"];
        let mut tokens: Vec<AddedToken> = vec![];
        let in_files = |key: &str| self.map.and_then(|map| map.get(key)).or(self.given(key));
        for (key, name) in keys.into_iter().zip(names) {
            let token = self.special(key);
            let mut token = token.unwrap_or_else(|| AddedToken::new(name.into(), true));
            if key == "mask_token" && !in_files(key).is_some_and(Value::is_object) {
                token.lstrip = is_bpe;
            }
            tokens.push(token);
        }
        tokens.extend(["bos_token", "eos_token"].into_iter().filter_map(|key| self.special(key)));
        let more = in_files("additional_special_tokens").and_then(Value::as_array);
        tokens.extend(more.into_iter().flatten().filter_map(token));
        tokens
    }

    /// The added tokens: those that the files list, and the `special` ones that `vocab` has.
    fn added_tokens(
        &self,
        special: &[AddedToken],
        vocab: &HashMap<String, u32>,
    ) -> Option<Vec<AddedToken>> {
        let mut added: Vec<AddedToken> = vec![];
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut put = |token: AddedToken, over: bool| match places.get(&token.content) {
            Some(&place) => {
                if let Some(old) = added.get_mut(place).filter(|_| over) {
                    *old = AddedToken { id: old.id, ..token };
                }
            }
            None => {
                places.insert(token.content.clone(), added.len());
                added.push(token);
            }
        };
        if let Vocabulary::Json(_, whole) = &self.files.vocabulary {
            for saved in whole.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
                let id = saved.get("id").and_then(Value::as_u64).unwrap_or(0);
                put(AddedToken { id: u32::try_from(id).ok()?, ..token(saved)? }, true);
            }
        }
        if let Some(decoder) = self.decoder {
            let mut by_id = vec![];
            for (id, value) in decoder {
                by_id.push(AddedToken { id: id.parse().ok()?, ..token(value)? });
            }
            by_id.sort_by_key(|token| token.id);
            by_id.into_iter().for_each(|token| put(token, true));
        } else {
            let known = self.special_tokens(false);
            for (content, id) in self.files.added.iter().flatten() {
                let token = known.iter().find(|token| token.content == *content).cloned();
                let token = token.unwrap_or_else(|| AddedToken::new(content.clone(), false));
                put(AddedToken { id: u32::try_from(id.as_u64()?).ok()?, ..token }, true);
            }
        }
        for token in special {
            if let Some(&id) = vocab.get(&token.content) {
                put(AddedToken { id, ..token.clone() }, false);
            }
        }
        added.retain(|token| !token.content.is_empty());
        Some(added)
    }
}

/// Parses a token, which was matched in the text as it is unless the file set `normalized`.
fn token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(content) => Some(AddedToken::new(content.clone(), true)),
        Value::Object(object) => {
            let normalized = object.get("normalized").and_then(Value::as_bool).unwrap_or(false);
            Some(AddedToken { normalized, ..AddedToken::from_object(object, None).ok()? })
        }
        _ => None,
    }
}

type LegacyVocab<'a> = (&'a Path, HashMap<String, u32>, TokenizerModel, Option<Pipeline>);

fn vocabulary(
    files: &TokenizerFiles,
    flag: impl Fn(&str) -> Option<bool>,
) -> Option<LegacyVocab<'_>> {
    let ids = |vocab: &JsonObject| {
        let id = |(token, id): (&String, &Value)| {
            Some((token.clone(), u32::try_from(id.as_u64()?).ok()?))
        };
        vocab.iter().map(id).collect::<Option<HashMap<_, _>>>()
    };
    let options = BertOptions {
        clean_text: true,
        tokenize_chinese_chars: flag("tokenize_chinese_chars").unwrap_or(true),
        strip_accents: flag("strip_accents"),
        do_lower_case: flag("do_lower_case").unwrap_or(true),
        longest: LONGEST,
    };
    let prefix = flag("add_prefix_space");
    match &files.vocabulary {
        Vocabulary::Json(path, whole) => {
            let pipeline = Pipeline::read(path, whole, TokenizerClass::Whole).ok()?;
            let model = whole.get("model")?;
            let vocab = ids(model.get("vocab")?.as_object()?)?;
            let silent = files.config.is_none();
            let kind = if model.get("merges").is_some() {
                let saved = pipeline.add_prefix_space;
                let add_prefix_space = if silent { saved } else { prefix.unwrap_or(false) };
                TokenizerModel::Bpe {
                    merges: pipeline::merges(path, model.get("merges")?).ok()?,
                    add_prefix_space,
                }
            } else if silent || files.class == TokenizerClass::Whole {
                TokenizerModel::WordPiece(pipeline.options)
            } else {
                TokenizerModel::WordPiece(BertOptions {
                    clean_text: pipeline.options.clean_text,
                    ..options
                })
            };
            Some((path, vocab, kind, Some(pipeline)))
        }
        Vocabulary::Lines(path, text) => {
            let lines = text.lines().zip(0..).filter(|(token, _)| !token.is_empty());
            let vocab = lines.map(|(token, id)| (token.to_owned(), id)).collect();
            Some((path, vocab, TokenizerModel::WordPiece(options), None))
        }
        Vocabulary::Pairs { path, ids: vocab, merges, .. } => {
            let lines = merges.lines().skip(1).filter(|line| !line.trim().is_empty());
            let pair = |line: &str| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
            let merges = lines.map(pair).collect::<Option<Vec<_>>>()?;
            let kind = TokenizerModel::Bpe { merges, add_prefix_space: prefix.unwrap_or(false) };
            Some((path, ids(vocab)?, kind, None))
        }
    }
}
