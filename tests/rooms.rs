//! The rooms of the house: a file of src/ imports only from rooms before its own. Documents and
//! comments are in plain English, and lines are short.

use crate::common::root;
use regex::Regex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The rooms in reading order, as the head of src/lib.rs lists them.
fn rooms() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let head = text.lines().skip_while(|line| !line.contains("in reading order"));
    let lines = head.map_while(|line| line.strip_prefix("// "));
    let list = lines.collect::<Vec<_>>().join(" ");
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rooms that a file names after `crate::`, comments left out.
fn named(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or("")).collect();
    let mut found = BTreeSet::new();
    let name = |text: &str| {
        text.trim_start().chars().take_while(|c| *c == '_' || c.is_alphanumeric()).collect()
    };
    for rest in code.split("crate::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(name(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (i, letter) in list.char_indices() {
            match letter {
                '{' => depth += 1,
                ',' | '}' if depth == 0 => {
                    found.insert(name(list.get(start..i).unwrap()));
                    start = i + 1;
                    if letter == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    found.remove("");
    found
}

fn visit(folder: &Path, room: Option<&str>, rooms: &[String], wrong: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let room = room.unwrap_or(stem);
        if ["lib", "bin"].contains(&room) {
            continue;
        }
        if path.is_dir() {
            visit(&path, Some(room), rooms, wrong);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let place = |name: &str| rooms.iter().position(|other| other == name);
            let own = place(room).unwrap_or_else(|| panic!("src/lib.rs does not list {room}"));
            let names = named(&std::fs::read_to_string(&path).unwrap());
            let later = |name: &&String| place(name).is_none_or(|other| other > own);
            wrong.extend(
                names.iter().filter(later).map(|name| format!("{} -> {name}", path.display())),
            );
        }
    }
}

/// Openings that name no subject, or whose noun is in another sentence.
const OPENINGS: [&str; 11] = [
    "Of ",
    "It ",
    "They ",
    "Them ",
    "So ",
    "That ",
    "Those ",
    "As it ",
    "Likewise ",
    "Thereby ",
    "Nobody ",
];

/// Words that are hard to read, each with a plainer one.
const WORDS: [(&str, &str); 20] = [
    ("so many", "this number of"),
    ("so much", "this amount of"),
    ("no number", "NaN"),
    ("no numbers", "NaN"),
    ("that is no", "that is not a"),
    ("nobody", "no process, no user"),
    ("somebody", "a user, another program"),
    ("whoever", "the user who"),
    ("thereby", "by this"),
    ("likewise", "also"),
    ("hence", "so"),
    ("thus", "so"),
    ("lest", "so that it does not"),
    ("ought to", "should"),
    ("had better", "should"),
    ("the former", "the noun"),
    ("the latter", "the noun"),
    ("wants", "needs"),
    ("what is there", "the noun"),
    ("one for less of the other", "the two nouns"),
];

/// The files below a folder that have one of the endings, without builds and data.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !["target", "corpus", "golden", "reports"].contains(&name) {
            found.extend(files(&path, endings));
        } else if endings.iter().any(|ending| path.extension().is_some_and(|e| e == *ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The documents of the repository that people write.
fn documents() -> Vec<PathBuf> {
    let mut found = files(&root().join("docs"), &["md"]);
    let at_root = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
    found.extend(at_root.map(|name| root().join(name)));
    found
}

/// The text that a line has for people, `None` for code: a line of a document outside of code
/// blocks, a doc comment of Rust, a comment of a script or a configuration.
fn text_of<'a>(line: &'a str, ending: &str, in_block: &mut bool) -> Option<&'a str> {
    let line = line.trim_start();
    match ending {
        "md" if line.starts_with("```") => {
            *in_block = !*in_block;
            None
        }
        "md" => (!*in_block).then(|| line.trim_start_matches(['#', '-', '|', ' '])),
        "rs" => {
            let text = line.strip_prefix("///").or(line.strip_prefix("//!"))?;
            Some(text.trim_start())
        }
        _ => line.strip_prefix("# "),
    }
}

/// What is wrong with the words of a file, line by line.
fn unclear(path: &Path, text: &str) -> Vec<String> {
    let ending = path.extension().unwrap().to_str().unwrap();
    // Code and quotes may have any words.
    let quoted = Regex::new("`[^`]*`|\"[^\"]*\"").unwrap();
    let words = WORDS.map(|(word, _)| word).join("|");
    let words = Regex::new(&format!(r"(?i)\b(?:{words})\b")).unwrap();
    let openings = OPENINGS.join("|");
    let begins = Regex::new(&format!("^(?:{openings})")).unwrap();
    let sentence = Regex::new(&format!("[.?!] (?:{openings})")).unwrap();
    let (mut wrong, mut in_block, mut ended) = (vec![], false, true);
    for (number, line) in text.lines().enumerate() {
        let Some(text) = text_of(line, ending, &mut in_block) else {
            ended = true;
            continue;
        };
        let text = quoted.replace_all(text, "");
        let found = words.find(&text).map(|found| found.as_str().to_lowercase());
        let plain = |word: &str| WORDS.iter().find(|(other, _)| *other == word).map(|(_, it)| *it);
        if let Some(word) = found {
            let plainer = plain(&word).unwrap_or_default();
            wrong.push(format!("{}:{}: {word}: write {plainer}", path.display(), number + 1));
        }
        // In documents each sentence counts, in comments the first.
        if (ended && begins.is_match(&text)) || (ending == "md" && sentence.is_match(&text)) {
            wrong.push(format!("{}:{}: names no subject: {text}", path.display(), number + 1));
        }
        ended = text.is_empty() || (ending == "md" && text.ends_with(['.', '?', '!']));
    }
    wrong
}

/// Documents and comments name their subjects and use plain words.
#[test]
fn documents_and_comments_are_in_plain_english() {
    let mut paths = documents();
    paths.extend(files(&root().join("src"), &["rs"]));
    paths.extend(files(&root().join("scripts"), &["py", "sh"]));
    paths.extend(files(&root().join("configs"), &["toml"]));
    assert!(paths.len() > 150, "{}", paths.len());
    let wrong: Vec<String> = paths
        .iter()
        .flat_map(|path| unclear(path, &std::fs::read_to_string(path).unwrap()))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
    // What it would find.
    let wrong =
        unclear(Path::new("a.md"), "A loss that is no\nnumber. It ends.\n\n`nobody`\n\nSo be it.");
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    let wrong = unclear(Path::new("a.rs"), "/// So many rows.\n/// It goes on.\nlet nobody = 1;");
    assert_eq!(wrong.len(), 2, "{wrong:?}");
}

/// Files whose doc comments are the text of the users' reference, a paragraph on a line.
fn is_reference(path: &Path) -> bool {
    path.ends_with("src/config/sections.rs")
}

/// Lines have at most 100 columns: comments of Rust, whose code rustfmt wraps, and all of Python
/// and shell; C++ where clang-format wraps it. Long words, such as URLs and hashes, do not count.
#[test]
fn lines_are_short() {
    let long_word = Regex::new(r"\S{60,}").unwrap();
    let mut endings = vec!["rs", "py", "sh"];
    if root().join(".clang-format").exists() {
        endings.extend(["cpp", "h"]);
    }
    let mut wrong = vec![];
    for path in ["src", "tests", "scripts", "fuzz"]
        .map(|folder| files(&root().join(folder), &endings))
        .concat()
    {
        let is_rust = path.extension().is_some_and(|ending| ending == "rs");
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let exempt = is_rust && (!line.trim_start().starts_with("//") || is_reference(&path));
            if !exempt && long_word.replace_all(line, "").chars().count() > 100 {
                wrong.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_file_imports_only_from_rooms_before_its_own() {
    let rooms = rooms();
    assert!(rooms.len() > 20 && rooms.last().is_some_and(|last| last == "internal"), "{rooms:?}");
    let mut wrong = vec![];
    visit(&root().join("src"), None, &rooms, &mut wrong);
    assert_eq!(wrong, Vec::<String>::new());
    // What it would find.
    let names =
        named("use crate::{data::{self, Row}, files};\nlet x = crate::cli::run(); // crate::nn");
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["cli", "data", "files"]);
}
