//! The inputs of `bitfit predict`: the texts of the arguments, the rows of a table, or the lines of
//! a file.

use super::task_args::ReadArgs;
use crate::data::{self, Columns, Original, Row, RowOrigin};
use crate::error::{Error, Result};
use crate::predict::{Input, InputColumns};
use clap::Args;
use indicatif::ProgressBar;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Arguments that say what to predict.
#[derive(Args)]
pub struct InputArgs {
    /// Texts to classify.
    #[arg(value_name = "TEXT", required_unless_present = "input", conflicts_with = "input")]
    pub texts: Vec<String>,
    /// The second text, for a task on text pairs: predict TEXT --text-pair TEXT.
    #[arg(long, value_name = "TEXT", requires = "texts", conflicts_with = "input")]
    text_pair: Option<String>,
    /// File of texts, one per line, or a .csv, .tsv, .jsonl, .json or .parquet file with a text
    /// column; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
}

/// An input, and where it is from.
pub struct Asked {
    /// The text, or the pair of texts.
    pub input: Input,
    /// The name in the task column; `None` if no such column was read.
    pub task: Option<String>,
    /// The row or the line; `None` for a text of the arguments.
    pub place: Option<RowOrigin>,
}

impl Asked {
    /// An error about the input.
    pub fn error(&self, problem: impl Into<String>) -> Error {
        match &self.place {
            Some(place) => place.error(problem),
            None => Error::Usage(problem.into()),
        }
    }

    /// The input of a row whose labels, if any were read, are the name of its task.
    fn of(row: Row) -> Result<Self> {
        let task = match (&row.labels, row.labels()) {
            (None, _) => None,
            (_, [name]) => Some(name.name.clone()),
            (_, names) => {
                let found = names.len();
                return Err(row.place.error(format!("{found} tasks; expected the name of one")));
            }
        };
        let place = Some(row.place.clone());
        Ok(Self { input: row.into(), task, place })
    }
}

impl InputArgs {
    /// Opens the inputs. The rows of a table are all read and looked at by `check`; with `keep`,
    /// the file's columns stay readable.
    pub fn open<'a>(
        &'a self,
        args: &ReadArgs,
        columns: &Columns,
        keep: bool,
        check: &'a dyn Fn(&Asked) -> Result<()>,
    ) -> Result<Inputs<'a>> {
        let Some(path) = self.input.as_ref().filter(|path| data::is_table(path)) else {
            self.check_lines(args, columns)?;
            return Ok(Inputs { args: self, check, rows: None, original: None });
        };
        let columns = args.columns_of(columns, path);
        let (table, original) = match keep {
            true => data::read_with_original(path, &columns)?,
            false => (data::read(path, &columns)?, None),
        };
        let rows: Vec<Asked> = table.rows.into_iter().map(Asked::of).collect::<Result<_>>()?;
        rows.iter().try_for_each(check)?;
        Ok(Inputs { args: self, check, rows: Some(rows), original })
    }

    /// Checks that no argument asks for columns, which lines and the texts of the arguments have
    /// not.
    fn check_lines(&self, args: &ReadArgs, columns: &Columns) -> Result<()> {
        let task_column = matches!(columns.labels, data::LabelColumns::Task(_));
        let flag = if task_column { Some("--task-column") } else { args.about_columns() };
        if let Some(flag) = flag {
            let problem = format!(
                "{flag}: the input is texts, one a line, and no table; expected --input with {}",
                data::FORMATS
            );
            return Err(Error::Usage(problem));
        }
        if self.text_pair.is_some() && self.texts.len() != 1 {
            let found = self.texts.len();
            let problem = format!("--text-pair: found {found} first texts, expected one");
            return Err(Error::Usage(problem));
        }
        if columns.text_pair.is_some() && self.text_pair.is_none() {
            let problem = "this task is about pairs of texts; expected TEXT --text-pair TEXT, or --input with a .csv, .tsv, .jsonl, .json or .parquet that has both columns";
            return Err(Error::Usage(problem.into()));
        }
        Ok(())
    }
}

/// The inputs, opened: the rows of a table, or lines that are read when their turn comes.
pub struct Inputs<'a> {
    args: &'a InputArgs,
    check: &'a dyn Fn(&Asked) -> Result<()>,
    /// The rows of a table.
    rows: Option<Vec<Asked>>,
    /// The columns of a table's file, if they are kept.
    original: Option<Original>,
}

impl Inputs<'_> {
    /// The columns of the inputs in a table of predictions; without those of the texts if `no_text`
    /// says so.
    pub fn columns(&mut self, no_text: bool) -> InputColumns {
        match self.original.take() {
            Some(original) => InputColumns::of_file(original, no_text),
            None if no_text => InputColumns::None,
            None if self.args.text_pair.is_some() => InputColumns::Pair,
            None => InputColumns::Text,
        }
    }

    /// Hands the inputs over in order, at most `most` at a time. Lines are looked at first. `bar`
    /// shows the inputs that are done.
    pub fn each(
        self,
        most: usize,
        bar: &ProgressBar,
        take: &mut dyn FnMut(Vec<Asked>) -> Result<()>,
    ) -> Result<()> {
        if let Some(rows) = self.rows {
            bar.set_length(rows.len() as u64);
            let mut rows = rows.into_iter();
            while rows.len() > 0 {
                take(rows.by_ref().take(most).collect())?;
                bar.set_position(bar.length().unwrap_or(0) - rows.len() as u64);
            }
            return Ok(());
        }
        let mut take = |rows: Vec<Asked>| {
            rows.iter().try_for_each(self.check)?;
            let count = rows.len() as u64;
            take(rows)?;
            bar.inc(count);
            Ok(())
        };
        match &self.args.input {
            None => {
                let asked = |text: &String| {
                    let text_pair = self.args.text_pair.clone();
                    let input = Input { text: text.clone(), text_pair };
                    Asked { input, task: None, place: None }
                };
                take(self.args.texts.iter().map(asked).collect())
            }
            Some(path) if path == Path::new("-") => {
                let name = Path::new("standard input");
                each_line(std::io::stdin(), name, true, most, &mut take)
            }
            Some(path) => {
                let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
                let source: Box<dyn Read> = match data::packing_of(path) {
                    Some(packing) => data::unpack(file, packing)
                        .map_err(|error| data::unreadable(path, error))?,
                    None => Box::new(file),
                };
                each_line(source, path, false, most, &mut take)
            }
        }
    }
}

/// The maximum number of bytes of an input line. A line without an end would take all memory.
const LONGEST_LINE: u64 = 64 << 20;

/// The number of bytes after which the lines read so far are handed over.
const MOST_BYTES: usize = 16 << 20;

/// Reads the lines of `source` and hands them to `take`, `most` at a time. If a program `waits` for
/// answers, hands lines over as soon as no further whole line is buffered.
///
/// Errs, with `name` and the line's number, on a line that is too long, is not UTF-8 or contains
/// NUL or a carriage return.
fn each_line(
    source: impl Read,
    name: &Path,
    waits: bool,
    most: usize,
    take: &mut dyn FnMut(Vec<Asked>) -> Result<()>,
) -> Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, source);
    let path: Arc<Path> = name.into();
    let (mut rows, mut bytes, mut number) = (vec![], 0, 0);
    loop {
        let mut line = Vec::new();
        let read = (&mut reader).take(LONGEST_LINE + 1).read_until(b'\n', &mut line);
        let more = read.map_err(|error| data::unreadable(name, error))? > 0;
        if more {
            number += 1;
            if line.len() as u64 > LONGEST_LINE {
                let problem = format!(
                    "a line of more than {} MiB; expected a text a line",
                    LONGEST_LINE >> 20
                );
                return Err(Error::data(name, number, problem));
            }
            bytes += line.len();
            let text = String::from_utf8(line)
                .map_err(|_| Error::data(name, number, "not UTF-8; convert it, say with iconv"))?;
            if text.contains('\0') {
                let problem = "a NUL character; if it is UTF-16, convert it, say with iconv";
                return Err(Error::data(name, number, problem));
            }
            let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { &text };
            let text = text.trim_end_matches(['\n', '\r']);
            if text.contains('\r') {
                let problem = "a carriage return within the line; expected lines that end in \\n or \\r\\n: convert it, say with tr '\\r' '\\n'";
                return Err(Error::data(name, number, problem));
            }
            let place = RowOrigin { path: path.clone(), line: Some(number) };
            rows.push(Asked { input: text.into(), task: None, place: Some(place) });
        }
        if !more
            || rows.len() >= most
            || bytes >= MOST_BYTES
            || (waits && !reader.buffer().contains(&b'\n'))
        {
            take(std::mem::take(&mut rows))?;
            bytes = 0;
        }
        if !more {
            return Ok(());
        }
    }
}
