//! Chooses which of a repository's files to download.

use crate::data::{TOKENIZER_FILES, is_rows, listed, place_of, whole};
use crate::models::SENTENCE_FILES;
use crate::weights;
use std::collections::BTreeSet;
use std::path::Path;

/// The chosen files.
pub struct Choice {
    pub files: Vec<String>,
    /// Files that would have been chosen too, had they been listed. A cached commit counts as
    /// complete only if these files are recorded as absent.
    pub absent: Vec<String>,
    /// Whether no unlisted file, apart from those in `absent`, could change the choice.
    pub certain: bool,
}

/// The reason why nothing was chosen.
pub enum NoChoice {
    /// The data set has no Parquet files; another branch may have them. Holds the message.
    NoParquet(String),
    /// Any other reason. Holds the message.
    Other(String),
}

impl From<String> for NoChoice {
    fn from(problem: String) -> Self {
        Self::Other(problem)
    }
}

/// Chooses a model's files: configuration, tokenizer, sentence-transformers' files and, as the last
/// file, the weights. The
/// weights are the file `named`, or else the first of [`weights::HUB_FILES`] in `files`.
///
/// For sharded weights, the last file is their index, which names the shards.
pub fn model(files: &[String], named: Option<&str>) -> Result<Choice, NoChoice> {
    let there = |name: &&str| files.iter().any(|file| file == name);
    if !there(&"config.json") {
        return Err("no config.json; expected a model of transformers".to_owned().into());
    }
    let small = ["config.json"].into_iter().chain(TOKENIZER_FILES).chain(SENTENCE_FILES);
    let weights = named.map_or(weights::HUB_FILES.to_vec(), |name| vec![name]);
    let first = weights.iter().position(there);
    let Some((lacking, [first, ..])) = first.and_then(|first| weights.split_at_checked(first))
    else {
        return Err(match named {
            Some(name) => format!("no file {name}"),
            None => weights::nothing_there(|name| there(&name)),
        }
        .into());
    };
    let (mut found, mut absent): (Vec<&str>, Vec<&str>) = small.partition(there);
    found.push(first);
    absent.extend(lacking);
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    Ok(Choice { files: owned(found), absent: owned(absent), certain: true })
}

/// Chooses the Parquet files of a data set's split. Without `split`, takes `validation` if there is
/// one, else `test`.
///
/// Without `subset`, takes the only subset or else `default`.
pub fn split(
    files: &[String],
    subset: Option<&str>,
    split: Option<&str>,
) -> Result<Choice, NoChoice> {
    let found: Vec<(&String, (String, String))> =
        files.iter().filter_map(|file| Some((file, place_of(file)?))).collect();
    let subsets: BTreeSet<&str> = found.iter().map(|(_, (subset, _))| subset.as_str()).collect();
    let named = subset;
    let subset = match (subset, subsets.first()) {
        (_, None) => return Err(NoChoice::NoParquet(no_parquet(files))),
        (Some(subset), _) if subsets.contains(subset) => subset,
        (Some(subset), _) => {
            return Err(format!(
                "data.subset: found {subset:?}, expected one of {}",
                listed(subsets.iter().copied())
            )
            .into());
        }
        (None, Some(only)) if subsets.len() == 1 => only,
        (None, _) if subsets.contains("default") => "default",
        (None, _) => {
            return Err(format!(
                "data.subset: found nothing, expected one of {}",
                listed(subsets.iter().copied())
            )
            .into());
        }
    };
    let splits: BTreeSet<&str> = found
        .iter()
        .filter(|(_, place)| place.0 == subset)
        .map(|(_, place)| place.1.as_str())
        .collect();
    let defaults = ["validation", "test"];
    let wanted = split.or_else(|| defaults.into_iter().find(|name| splits.contains(name)));
    let Some(wanted) = wanted.filter(|name| splits.contains(name)) else {
        let asked = split.map_or_else(
            || format!("no split {}", defaults.join(" or ")),
            |name| format!("no split {name:?}"),
        );
        return Err(format!("{asked}; the splits are {}", listed(splits.iter().copied())).into());
    };
    let mut chosen: Vec<String> = found
        .iter()
        .filter(|(_, place)| place.0 == subset && place.1 == wanted)
        .map(|(file, _)| (*file).clone())
        .collect();
    chosen.sort();
    let absent = whole(&chosen)?;
    // In a cache, a split of a default name may stand in for one that was not downloaded, and a
    // lone subset for "default".
    let certain = split.is_some() && (named.is_some() || subset == "default");
    Ok(Choice { files: chosen, absent, certain })
}

/// The message for a data set without Parquet files.
fn no_parquet(files: &[String]) -> String {
    match files.iter().find(|file| is_rows(Path::new(file))) {
        Some(file) => {
            format!("no Parquet files (download {file}, and name it in data.train or data.eval)")
        }
        None => "no Parquet files".into(),
    }
}
