//! The Parquet files of one split of a data set, on the Hub or in a folder.

use super::folder::sorted_entries;
use super::input::ending;
use crate::data::spelling::listed;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The Parquet files of a folder, or of its folder `data`, where downloaded data sets have them;
/// `None` if there are none.
///
/// Errs unless they are all the files of one split.
pub fn of_folder(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    let entries = sorted_entries(path)?;
    let is_parquet =
        |file: &PathBuf| ending(file).is_some_and(|e| e == "parquet") && !file.is_dir();
    let own: Vec<PathBuf> = entries.iter().filter(|file| is_parquet(file)).cloned().collect();
    let data = path.join("data");
    let mut below = if data.is_dir() { sorted_entries(&data)? } else { vec![] };
    below.retain(is_parquet);
    let (folder, files) = match (own.is_empty(), below.is_empty()) {
        (true, true) => return Ok(None),
        (false, true) => (path.to_owned(), own),
        (true, false) => (data, below),
        (false, false) => {
            let problem = "Parquet files both here and in the folder data; name one of the two";
            return Err(Error::data(path, None, problem));
        }
    };
    let has_texts = |entry: &&PathBuf| {
        let is_text = |file: &PathBuf| ending(file).is_some_and(|e| e == "txt");
        entry.is_dir() && sorted_entries(entry).is_ok_and(|files| files.iter().any(is_text))
    };
    if let Some(class) = entries.iter().find(has_texts) {
        let problem = format!(
            "both Parquet files and class folders such as {}; expected only one of these",
            class.display()
        );
        return Err(Error::data(path, None, problem));
    }
    // Paths as on the Hub.
    let name =
        |file: &PathBuf| format!("data/{}", file.file_name().unwrap_or_default().to_string_lossy());
    let names: Vec<String> = files.iter().map(name).collect();
    // Other programs write one table as files named `part-...`.
    if names.iter().all(|name| stem(name).starts_with("part-")) {
        return Ok(Some(files));
    }
    let splits: BTreeSet<String> =
        names.iter().filter_map(|name| Some(place_of(name)?.1)).collect();
    if splits.len() > 1 {
        let problem = format!(
            "Parquet files of several splits, {}; expected those of one split; name a file, or put the files of each split \
             into a folder of its own",
            listed(splits.iter().map(String::as_str))
        );
        return Err(Error::data(&folder, None, problem));
    }
    whole(&names).map_err(|problem| Error::data(&folder, None, problem))?;
    Ok(Some(files))
}

/// Checks that no file of a split is missing: files like `train-00000-of-00003` by their count,
/// files like `0000` and `0001` by their numbers.
///
/// Returns the files that must not exist: in the second case the next number. Errs with the
/// problem.
pub fn whole(files: &[String]) -> std::result::Result<Vec<String>, String> {
    let Some(first) = files.first() else { return Ok(vec![]) };
    let names = || files.iter().map(String::as_str);
    if let Some((_, count)) = number_of(first) {
        let mut numbers: Vec<_> = files.iter().map(|file| number_of(file)).collect();
        numbers.sort_unstable();
        return match (0..count).map(|i| Some((i, count))).eq(numbers) {
            true => Ok(vec![]),
            false if files.len() < count => {
                Err(format!("found {} of the {count} files that {first} belongs to", files.len()))
            }
            false => Err(format!(
                "found {}, expected only the {count} files that {first} belongs to",
                listed(names())
            )),
        };
    }
    if !is_number(stem(first)) {
        return match files {
            [_] => Ok(vec![]),
            _ => Err(format!("found {}, expected one of them", listed(names()))),
        };
    }
    let folder = first.rsplit_once('/').map_or("", |(folder, _)| folder);
    let name = |i: usize| format!("{folder}/{i:0width$}.parquet", width = stem(first).len());
    if let Some(missing) = (0..files.len()).map(name).find(|name| !files.contains(name)) {
        return Err(format!("no file {missing}"));
    }
    Ok(vec![name(files.len())])
}

fn stem(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file).trim_end_matches(".parquet")
}

/// The number of a file and the number of files: 1 and 3 for `train-00001-of-00003` or
/// `train-00001-of-00003-0123456789abcdef`.
fn number_of(file: &str) -> Option<(usize, usize)> {
    let (start, end) = stem(file).split_once("-of-")?;
    let (_, number) = start.rsplit_once('-')?;
    let count = end.split('-').next().filter(|count| is_number(count))?;
    Some((number.parse().ok()?, count.parse().ok()?))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Subset and split of a Parquet file: `SUBSET/SPLIT-00000-of-00001`, `data/SPLIT-...`,
/// `SUBSET/SPLIT/0000`; `None` for another file.
pub fn place_of(file: &str) -> Option<(String, String)> {
    let stem = file.strip_suffix(".parquet")?;
    let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    // The split is the name up to its number. If the name is only a number, the split is the
    // folder.
    let (subset, split) = if is_number(name) {
        folder.rsplit_once('/').unwrap_or(("", folder))
    } else {
        let numbered = name.split_once("-of-").and_then(|(start, _)| start.rsplit_once('-'));
        (folder, numbered.filter(|(_, number)| is_number(number)).map_or(name, |(split, _)| split))
    };
    let subset = if subset.is_empty() || subset == "data" { "default" } else { subset };
    Some((subset.to_owned(), split.to_owned()))
}
