//! Checks that texts, a tokenizer, a base model and a task go together.

use super::tokenize::{Encoding, MIN_LENGTH, Tokenizer};
use crate::delta::Meta;
use crate::error::{Error, Result};
use crate::models::ModelConfig;
use std::path::Path;

/// Checks that `reader`, the tokenizer of the directory `tokenizer`, is the one that the task
/// `delta` was trained with.
pub fn same_tokenizer(
    task: &Meta,
    delta: &Path,
    tokenizer: &Path,
    reader: &Tokenizer,
) -> Result<()> {
    let (expected, found) = (&task.tokenizer_fingerprint, &reader.fingerprint);
    if found == expected {
        return Ok(());
    }
    let why = reader.why_other(expected).map(|why| format!("; {why}")).unwrap_or_default();
    let problem = format!(
        "not the tokenizer that {} was trained with: expected fingerprint {expected}, found {found}{why}",
        delta.display()
    );
    Err(Error::file(tokenizer, problem))
}

/// Checks that the `max_length` of the task `delta` is at least [`MIN_LENGTH`] and at most the
/// number of positions of the base.
pub fn check_length(meta: &Meta, delta: &Path, base: &ModelConfig) -> Result<()> {
    let most = usize::try_from(base.max_length()).unwrap_or(0);
    if (MIN_LENGTH..=most).contains(&meta.task.max_length) {
        return Ok(());
    }
    let found = meta.task.max_length;
    let problem = format!("metadata: max_length: found {found}, expected {MIN_LENGTH} to {most}");
    Err(Error::file(delta, problem))
}

/// Checks that the base has an embedding for each id of the tokenizer of `dir`.
pub fn fits(dir: &Path, tokenizer: &Tokenizer, base: &ModelConfig) -> Result<()> {
    let (entries, expected) = (tokenizer.vocab_size(), base.vocab_size);
    if entries <= expected {
        return Ok(());
    }
    let problem = format!(
        "the tokenizer has a vocabulary of {entries} entries, but the base's config.json says vocab_size = {expected}"
    );
    Err(Error::file(dir, problem))
}

/// Checks that the base of `dir` has an embedding for each id in `tokens`, and a token type for
/// second texts if there are any.
pub fn has_embeddings<'a>(
    dir: &Path,
    base: &ModelConfig,
    tokens: impl IntoIterator<Item = &'a Encoding>,
) -> Result<()> {
    for tokens in tokens {
        if base.type_vocab_size < 2 && tokens.first < tokens.ids.len() {
            let problem =
                "the data has pairs of texts, but the base's config.json says type_vocab_size = 1";
            return Err(Error::file(dir, problem));
        }
        if let Some(id) = tokens.ids.iter().find(|id| i64::from(**id) >= base.vocab_size) {
            let problem = format!(
                "a text contains the special token with id {id}, but the base's config.json says vocab_size = {}",
                base.vocab_size
            );
            return Err(Error::file(dir, problem));
        }
    }
    Ok(())
}
