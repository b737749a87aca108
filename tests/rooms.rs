//! The rooms of the house: a file of src/ imports only from rooms before its own.

use crate::common::root;
use std::collections::BTreeSet;
use std::path::Path;

/// The rooms in reading order, as the head of src/lib.rs lists them.
fn rooms() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let head: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("//! ")).collect();
    let head = head.join(" ");
    let list = head.split_once("in reading order").unwrap().1;
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
                    found.insert(name(&list[start..i]));
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

/// A doc comment names its subject, and its lines are short.
#[test]
fn comments_begin_with_their_subject() {
    let openings = ["Of ", "It ", "They ", "So ", "That ", "As it ", "Likewise "];
    let mut wrong = vec![];
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|ending| ending != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let mut before = "";
            for (number, whole) in text.lines().enumerate() {
                let line = whole.trim_start();
                let comment = line.strip_prefix("/// ").or(line.strip_prefix("//! "));
                // A sentence may go on in the next line.
                let begins = !before.starts_with("///") && !before.starts_with("//!");
                let opens = |text: &str| openings.iter().any(|opening| text.starts_with(opening));
                let long = whole.chars().count() > 100 && !is_reference(&path);
                if comment.is_some_and(|text| (begins && opens(text)) || long) {
                    wrong.push(format!("{}:{}: {line}", path.display(), number + 1));
                }
                before = line;
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Files whose doc comments are the text of the users' reference, a paragraph on a line.
fn is_reference(path: &Path) -> bool {
    path.ends_with("src/config/sections.rs") || path.ends_with("src/compare/grid.rs")
}

#[test]
fn a_file_imports_only_from_rooms_before_its_own() {
    let rooms = rooms();
    assert!(rooms.len() > 20 && rooms.last().is_some_and(|last| last == "cli"), "{rooms:?}");
    let mut wrong = vec![];
    visit(&root().join("src"), None, &rooms, &mut wrong);
    assert_eq!(wrong, Vec::<String>::new());
    // What it would find.
    let names =
        named("use crate::{data::{self, Row}, files};\nlet x = crate::cli::run(); // crate::nn");
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["cli", "data", "files"]);
}
