//! Escapes text from files before it is shown: on a terminal, or in JSON, Markdown, YAML or a
//! shell.
//!
//! Text in a stranger's file may contain characters that move a terminal's cursor, reverse the
//! order of letters, or are invisible.

use std::ffi::OsStr;
use std::fmt::{Display, Write};
use std::os::unix::ffi::OsStrExt;

/// Escapes every character of `shown` that controls a terminal or is invisible, as Rust source
/// does: `\u{1b}`. Newlines and tabs stay.
pub fn text(shown: impl Display) -> String {
    escaped(&shown.to_string(), "\n\t", |letter| letter.escape_default().to_string())
}

/// [`text`] on one line: newlines and tabs are written as `\n` and `\t`.
pub fn line(shown: impl Display) -> String {
    escaped(&shown.to_string(), "", |letter| letter.escape_default().to_string())
}

/// Escapes every character of the text `json` that controls a terminal or is invisible, as JSON
/// does: `\u001b`. The value stays the same.
pub fn json(json: &str) -> String {
    escaped(json, "\n", |letter| {
        letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    })
}

/// The first `most` characters of `text`, with an ellipsis if it has more.
pub fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// `text` as a string literal in double quotes, which both YAML and Python can read.
pub fn quoted(text: &str) -> String {
    escaped(&serde_json::Value::from(text).to_string(), "", |letter| match letter as u32 {
        code @ ..0x1_0000 => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    })
}

/// `shown` as plain text in Markdown, on one line.
pub fn markdown(shown: impl Display) -> String {
    let mut out = String::new();
    for letter in text(shown).chars() {
        match letter {
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '&' | '~' | '$' => {
                out.extend(['\\', letter])
            }
            '\n' | '\t' => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

/// `shown` as a code span in Markdown, on one line.
pub fn code(shown: impl Display) -> String {
    let text = line(shown);
    let longest = text.split(|letter| letter != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    // Markdown strips one space from both ends of a code span, unless the span is all spaces.
    let pads = text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) || text.is_empty();
    let pad = if pads { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// `argument`, quoted if a shell needs that.
pub fn shell(argument: &OsStr) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+:,@%".contains(byte);
    let text = argument.to_string_lossy();
    if !text.is_empty() && argument.as_bytes().iter().all(plain) {
        return text.into_owned();
    }
    if argument.to_str().is_some_and(|text| line(text) == text) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    // Control characters, invisible characters and invalid UTF-8 are written as bytes, in $'...'.
    let mut out = String::from("$'");
    for byte in argument.as_bytes() {
        let _ = match byte {
            b'\'' | b'\\' => write!(out, "\\{}", *byte as char),
            b' '..=b'~' => write!(out, "{}", *byte as char),
            byte => write!(out, "\\x{byte:02x}"),
        };
    }
    out + "'"
}

fn escaped(text: &str, keep: &str, write: impl Fn(char) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut before, mut letters) = (' ', text.chars().peekable());
    while let Some(letter) = letters.next() {
        let after = letters.peek().copied().unwrap_or(' ');
        if is_hidden(letter) && !keep.contains(letter) && !joins(before, letter, after) {
            out += &write(letter);
        } else {
            out.push(letter);
        }
        before = letter;
    }
    out
}

/// Whether `letter` controls a terminal or is invisible: Unicode's control characters, format
/// characters (direction marks, zero-width characters, tags), line and paragraph separators, and
/// unassigned code points. Spaces of any width are visible.
fn is_hidden(letter: char) -> bool {
    match letter {
        ' '..='~' => false,
        '\u{2028}' | '\u{2029}' => true,
        _ if letter.is_whitespace() => letter.is_control(),
        _ => {
            // `escape_debug` escapes a combining accent only at the start of a string.
            let accented = String::from_iter(['a', letter]);
            !accented.escape_debug().eq(accented.chars())
        }
    }
}

/// Whether `letter` is a zero-width (non-)joiner between visible characters that are not ASCII, as
/// in Persian, in Hindi and in emoji.
fn joins(before: char, letter: char, after: char) -> bool {
    let joined = |letter: char| !letter.is_ascii() && !is_hidden(letter);
    matches!(letter, '\u{200c}' | '\u{200d}') && joined(before) && joined(after)
}
