//! Tables as CSV (RFC 4180, with `\n` at the end of lines) and TSV.

use super::answers::Value;
use super::plan::{Table, TableFormat};
use crate::error::{Error, Result};
use crate::escape::quoted;
use crate::files::FileWriter;
use crate::predict::{Input, Prediction};

/// The number of bytes that are written at once.
const AT_ONCE: usize = 1 << 16;

/// Writes a table of cells and delimiters.
pub struct DelimitedWriter<'a> {
    table: Table,
    file: &'a mut FileWriter,
    /// Rows that are not written yet.
    text: String,
    /// The number of the row, from 1.
    row: usize,
}

/// A line of cells that grows.
struct Line<'a> {
    format: TableFormat,
    text: &'a mut String,
    cells: usize,
}

impl Line<'_> {
    /// Adds a cell.
    fn push(&mut self, cell: &str) {
        let (delimiter, quotes) = match self.format {
            TableFormat::Tsv => ('\t', false),
            _ => (',', cell.contains([',', '"', '\n', '\r'])),
        };
        if self.cells > 0 {
            self.text.push(delimiter);
        }
        self.cells += 1;
        match quotes {
            true => *self.text += &format!("\"{}\"", cell.replace('"', "\"\"")),
            false => *self.text += cell,
        }
    }

    /// Ends the line. A line of one empty cell would be blank, and blank lines of a CSV are no
    /// rows.
    fn end(self, is_blank: bool) {
        if is_blank && self.format == TableFormat::Csv {
            *self.text += "\"\"";
        }
        self.text.push('\n');
    }
}

impl<'a> DelimitedWriter<'a> {
    /// Begins to write `table` to `file`.
    pub fn new(table: Table, file: &'a mut FileWriter) -> Self {
        let mut text = String::new();
        let mut line = Line { format: table.format, text: &mut text, cells: 0 };
        table.names().iter().for_each(|name| line.push(name));
        line.end(false);
        Self { table, file, text, row: 0 }
    }

    /// Adds the row of the next input.
    pub fn add(&mut self, input: &Input, predictions: &[Prediction]) -> Result<()> {
        self.row += 1;
        let (format, row, start) = (self.table.format, self.row, self.text.len());
        let mut line = Line { format, text: &mut self.text, cells: 0 };
        self.table.input.row(input, &mut |cell| {
            let cell = cell.unwrap_or_default();
            format.check(cell, || format!("row {row}: {}", quoted(cell)))?;
            line.push(cell);
            Ok(())
        })?;
        for column in &self.table.answers {
            match column.value(predictions, &self.table.separator) {
                Value::Null => line.push(""),
                Value::Text(text) => line.push(&text),
                Value::Texts(texts) => line.push(&texts.join(&self.table.separator)),
                Value::Number(number) => {
                    line.push(&serde_json::to_string(&number).map_err(Error::bug)?);
                }
            }
        }
        let is_blank = line.text.len() == start;
        line.end(is_blank);
        if self.text.len() >= AT_ONCE { self.flush() } else { Ok(()) }
    }

    /// Writes the rows that are not written yet.
    fn flush(&mut self) -> Result<()> {
        self.file.put(self.text.as_bytes())?;
        self.text.clear();
        Ok(())
    }

    /// Writes what is not written yet.
    pub fn finish(mut self) -> Result<()> {
        self.flush()
    }
}
