//! Reads the environment variables of the Hub, as huggingface_hub does.

use super::repo::RepoType;
use crate::error::{Error, Result};
use regex::{Captures, Regex};
use std::path::{Path, PathBuf};

/// The cache of one kind of repository, and whether the Hub may be asked.
pub struct CacheConfig {
    /// The cache.
    pub cache: PathBuf,
    /// The variable that forbids network access, if one is set.
    pub offline: Option<&'static str>,
}

/// The value of a variable; `None` if it is unset or empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The first of these variables that is set.
fn first<'a>(names: &[&'a str]) -> Option<(&'a str, String)> {
    names.iter().find_map(|name| Some((*name, variable(name)?)))
}

/// The folder that a variable names, with `~` and `$NAME` expanded.
fn folder(name: &str) -> Option<PathBuf> {
    let value = variable(name)?;
    let value = match (value.strip_prefix('~'), variable("HOME")) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => home + rest,
        _ => value,
    };
    // `$NAME` stays as it is if NAME is unset or empty.
    let replaced = |found: &Captures<'_>| {
        let [whole, name] = [0, 1].map(|i| found.get(i).map_or("", |part| part.as_str()));
        variable(name.trim_matches(['{', '}'])).unwrap_or_else(|| whole.to_owned())
    };
    let Ok(names) = Regex::new(r"\$(\w+|\{[^}]*\})") else { return Some(value.into()) };
    Some(names.replace_all(&value, replaced).into_owned().into())
}

/// The folder `HF_HOME`, or its default. `None` if no variable says where home is.
fn home() -> Option<PathBuf> {
    let cache = || {
        let of_home = || variable("HOME").map(|home| Path::new(&home).join(".cache"));
        Some(folder("XDG_CACHE_HOME").or_else(of_home)?.join("huggingface"))
    };
    folder("HF_HOME").or_else(cache)
}

fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&&*value.to_uppercase())
}

/// The cache of repositories of `kind`, and whether the Hub may be asked. Errs if no variable says
/// where the cache is.
pub fn cache_config(kind: RepoType) -> Result<CacheConfig> {
    let named = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"].into_iter().find_map(folder);
    // transformers 4 keeps models in these folders; transformers 5 ignores these variables.
    let old = ["TRANSFORMERS_CACHE", "PYTORCH_TRANSFORMERS_CACHE", "PYTORCH_PRETRAINED_BERT_CACHE"];
    let old = || match (kind, variable("HF_HOME")) {
        (RepoType::Model, None) => old.into_iter().find_map(folder),
        _ => None,
    };
    let cache = named.or_else(old).or_else(|| Some(home()?.join("hub")));
    let unknown = "the folder for downloads is unknown; set HF_HOME or HOME";
    // If both are set, the first decides, even if its value is false.
    let offline = first(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]);
    let of_datasets = first(&["HF_DATASETS_OFFLINE"]).filter(|_| kind == RepoType::Dataset);
    let offline = [offline, of_datasets].into_iter().flatten().find(|(_, value)| is_true(value));
    Ok(CacheConfig {
        cache: cache.ok_or_else(|| Error::Usage(unknown.into()))?,
        offline: offline.map(|(name, _)| name),
    })
}

/// The token, from the environment or from the file that `hf auth login` writes. `None` if there is
/// no token, or if `HF_HUB_DISABLE_IMPLICIT_TOKEN` is true.
pub fn token() -> Option<String> {
    if variable("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| is_true(&value)) {
        return None;
    }
    let trimmed = |token: String| Some(token.trim().to_owned()).filter(|token| !token.is_empty());
    let file = || {
        let path = folder("HF_TOKEN_PATH").or_else(|| Some(home()?.join("token")))?;
        std::fs::read_to_string(path).ok()
    };
    let named = first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]);
    named.and_then(|(_, token)| trimmed(token)).or_else(|| trimmed(file()?))
}

/// The Hub's address.
pub fn endpoint() -> String {
    variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into())
}
