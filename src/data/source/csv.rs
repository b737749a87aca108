//! CSV as in RFC 4180, and as strict as Python's `csv.reader(strict=True)`: a misplaced quote is an
//! error.
//!
//! The `csv` crate has no such mode. It reads past a misplaced quote, and ends an open quoted cell
//! at the end of the file, so that rows are lost silently.

use crate::data::spelling::quoted;
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::path::Path;

/// Number of lines above which a quoted cell is suspect: its quote was probably meant as a letter.
const MANY_LINES: usize = 20;

/// Maximum number of columns. Without a limit, a line of commas could take all memory.
pub const MOST_COLUMNS: usize = 1 << 20;

/// A row.
pub struct CsvRecord<'a> {
    /// Cells of the row.
    pub cells: Vec<Cow<'a, str>>,
    /// Line that the row begins on.
    pub first: usize,
    /// Line that the row ends on.
    pub last: usize,
}

/// Reads rows one by one. Skips blank lines.
pub struct CsvReader<'a> {
    path: &'a Path,
    delimiter: char,
    rest: &'a str,
    line: usize,
    /// First and last line of the first cell of more than `MANY_LINES` lines; `count_long` is the
    /// number of such cells.
    long: Option<(usize, usize)>,
    count_long: usize,
}

impl<'a> CsvReader<'a> {
    /// A reader of `text`, which begins on line `line` of the file `path`.
    pub fn new(path: &'a Path, text: &'a str, line: usize, delimiter: char) -> Self {
        Self { path, delimiter, rest: text, line, long: None, count_long: 0 }
    }

    /// The next row; `None` at the end. Errs on a misplaced quote or too many columns.
    pub fn record(&mut self) -> Result<Option<CsvRecord<'a>>> {
        while self.end_line() {}
        if self.rest.is_empty() {
            return Ok(None);
        }
        let first = self.line;
        let mut cells = vec![];
        loop {
            if cells.len() == MOST_COLUMNS {
                let problem = format!("more than {MOST_COLUMNS} columns");
                return Err(Error::data(self.path, first, problem));
            }
            cells.push(self.cell()?);
            let last = self.line;
            if let Some(rest) = self.rest.strip_prefix(self.delimiter) {
                self.rest = rest;
            } else {
                self.end_line();
                return Ok(Some(CsvRecord { cells, first, last }));
            }
        }
    }

    /// The text that is not read yet.
    pub fn rest(&self) -> &'a str {
        self.rest
    }

    /// Warns about cells that are so long that a quote was probably meant as a letter.
    pub fn warn_of_long_cells(&self) {
        let Some((first, last)) = self.long else { return };
        let more = match self.count_long {
            1 => String::new(),
            count => format!(" ({} more cells have more than {MANY_LINES} lines)", count - 1),
        };
        tracing::warn!(
            "{}: lines {first} to {last} are one cell{more}; is a quote not closed?",
            self.path.display()
        );
    }

    /// Skips a line end, if one is next. Returns whether there was one.
    fn end_line(&mut self) -> bool {
        let rest = ["\r\n", "\n", "\r"].iter().find_map(|end| self.rest.strip_prefix(end));
        self.rest = rest.unwrap_or(self.rest);
        self.line += usize::from(rest.is_some());
        rest.is_some()
    }

    fn cell(&mut self) -> Result<Cow<'a, str>> {
        if let Some(inside) = self.rest.strip_prefix('"') {
            return self.quoted_cell(inside);
        }
        let end = self.rest.find([self.delimiter, '\n', '\r']).unwrap_or(self.rest.len());
        let (cell, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(cell.into())
    }

    /// Reads a quoted cell; `inside` begins after its opening quote.
    fn quoted_cell(&mut self, inside: &'a str) -> Result<Cow<'a, str>> {
        let first = self.line;
        let (mut cell, mut rest) = (Cow::Borrowed(""), inside);
        loop {
            let Some((piece, behind)) = rest.split_once('"') else {
                let problem = "a quote opens a cell here and is never closed; a quote inside a quoted \
                     cell is written twice";
                return Err(self.out_of_place(first, problem));
            };
            cell = if cell.is_empty() { piece.into() } else { cell + piece };
            let Some(behind) = behind.strip_prefix('"') else {
                self.line += line_ends(&cell);
                self.rest = behind;
                break;
            };
            cell += "\"";
            rest = behind;
        }
        if self.line - first >= MANY_LINES {
            self.long.get_or_insert((first, self.line));
            self.count_long += 1;
        }
        if self.rest.is_empty() || self.rest.starts_with([self.delimiter, '\n', '\r']) {
            return Ok(cell);
        }
        let problem = if cell.ends_with('\\') {
            "a quote in this cell is escaped as \\\", as MySQL and Spark do; expected \"\"; write the file again with doubled quotes"
                .to_owned()
        } else {
            let found = self.rest.lines().next().unwrap_or_default();
            let on_line = match self.line {
                line if line == first => String::new(),
                line => format!(" on line {line}"),
            };
            format!(
                "after the quote that closes this cell{on_line}: found {}, expected {:?} or the end of the line; a quote inside a quoted cell is written twice",
                quoted(found),
                self.delimiter
            )
        };
        Err(self.out_of_place(first, &problem))
    }

    fn out_of_place(&self, line: usize, problem: &str) -> Error {
        let tsv = "; if quotes are ordinary characters in this file, rename it to .tsv";
        let tsv = if self.delimiter == '\t' { tsv } else { "" };
        Error::data(self.path, line, format!("{problem}{tsv}"))
    }
}

/// Number of line ends in a text: `\n`, `\r\n` or `\r`.
fn line_ends(text: &str) -> usize {
    let bytes = text.as_bytes();
    let pairs = bytes.windows(2).filter(|pair| pair == b"\r\n").count();
    bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() - pairs
}

/// Delimiters to try on a file, in this order.
pub const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];

/// A description of valid delimiters, for messages.
pub const DELIMITER: &str = "one character that is not a quote or a line end";

/// Whether a character can be a delimiter.
pub fn can_delimit(character: char) -> bool {
    !['"', '\n', '\r'].contains(&character)
}

/// A delimiter's name in the plural: `semicolons`.
pub fn name(delimiter: char) -> String {
    match delimiter {
        ',' => "commas".into(),
        ';' => "semicolons".into(),
        '\t' => "tabs".into(),
        '|' => "bars".into(),
        other => format!("{other:?}"),
    }
}

/// The delimiter in a first line `sep=;`, which Excel reads, and the text after that line; `None`
/// if the first line is another.
pub fn said_for_excel(text: &str) -> Option<(char, &str)> {
    let (line, rest) = text.split_once('\n')?;
    let line = line.trim_end_matches('\r');
    let line = line.strip_prefix('"').and_then(|line| line.strip_suffix('"')).unwrap_or(line);
    let (sep, delimiter) = line.split_at_checked(4)?;
    let mut characters = delimiter.chars();
    match (sep.eq_ignore_ascii_case("sep="), characters.next(), characters.next()) {
        (true, Some(delimiter), None) if can_delimit(delimiter) => Some((delimiter, rest)),
        _ => None,
    }
}
