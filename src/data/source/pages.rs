//! Parquet's pages, checked for what the library takes on trust: that the file does not end in them, and how many values they say they
//! have. A damaged file of 200 bytes would take all memory, or be read forever.

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{ChunkReader, Length, RowGroupReader};
use parquet::record::reader::RowIter;
use parquet::schema::types::{ColumnDescriptor, Type};
use parquet::{bloom_filter::Sbbf, schema::types::ColumnDescPtr};
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};

/// A file whose end is an error to whoever reads on: behind the pages there always is a footer. The library would go on counting
/// what it skips.
pub struct Endless(pub File);

/// A part of it.
pub struct Part(BufReader<File>);

impl Length for Endless {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Endless {
    type T = Part;

    fn get_read(&self, start: u64) -> Result<Part> {
        Ok(Part(self.0.get_read(start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            return Err(ParquetError::EOF(format!("{length} bytes from {start} on")));
        }
        self.0.get_bytes(start, length)
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => Err(ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

/// A row group whose pages are checked.
pub struct Checked<'a>(pub Box<dyn RowGroupReader + 'a>);

impl RowGroupReader for Checked<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.0.metadata()
    }

    fn num_columns(&self) -> usize {
        self.0.num_columns()
    }

    fn get_column_page_reader(&self, i: usize) -> Result<Box<dyn PageReader>> {
        let column = self.metadata().schema_descr().column(i);
        Ok(Box::new(Pages { reader: self.0.get_column_page_reader(i)?, column }))
    }

    fn get_column_bloom_filter(&self, i: usize) -> Option<&Sbbf> {
        self.0.get_column_bloom_filter(i)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

struct Pages {
    reader: Box<dyn PageReader>,
    column: ColumnDescPtr,
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.reader.get_next_page()?;
        if page.as_ref().is_some_and(|page| !plausible(page, &self.column)) {
            let what =
                format!("column {}: a page says more values than it has", self.column.path());
            return Err(ParquetError::General(what));
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.reader.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.reader.skip_next_page()
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// Whether the values that a page counts can be in it.
fn plausible(page: &Page, column: &ColumnDescriptor) -> bool {
    let (count, encoding) = (page.num_values() as usize, page.encoding());
    let buffer: &[u8] = page.buffer();
    let values = match page {
        // Plain, so that each takes a bit or more.
        Page::DictionaryPage { .. } => return count <= 8 * buffer.len(),
        Page::DataPageV2 { rep_levels_byte_len, def_levels_byte_len, .. } => {
            buffer.get((*rep_levels_byte_len as usize + *def_levels_byte_len as usize)..)
        }
        // Levels behind their length; without one, of the kind that is no longer written, nothing is known.
        Page::DataPage { .. } => [column.max_rep_level(), column.max_def_level()]
            .iter()
            .filter(|most| **most > 0)
            .try_fold(buffer, |rest, _| {
                let (length, rest) = rest.split_first_chunk()?;
                rest.get(u32::from_le_bytes(*length) as usize..)
            }),
    };
    let deltas = |values| after_deltas(values, count);
    match encoding {
        Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY => {
            values.and_then(deltas).is_some()
        }
        // Lengths of prefixes, and behind them those of the rest.
        Encoding::DELTA_BYTE_ARRAY => values.and_then(deltas).and_then(deltas).is_some(),
        _ => true,
    }
}

/// What follows on numbers in DELTA_BINARY_PACKED, `most` at most; nothing where that is not what they are.
fn after_deltas(bytes: &[u8], most: usize) -> Option<&[u8]> {
    let (block_size, rest) = number(bytes)?;
    let (blocks, rest) = number(rest)?;
    let (count, rest) = number(rest)?;
    let (_first, mut rest) = number(rest)?;
    let per_block = usize::try_from(block_size.checked_div(blocks)?).ok()?;
    let (blocks, count) = (usize::try_from(blocks).ok()?, usize::try_from(count).ok()?);
    if count > most || per_block == 0 {
        return None;
    }
    let mut left = count.saturating_sub(1);
    while left > 0 {
        let widths;
        (_, rest) = number(rest)?;
        (widths, rest) = rest.split_at_checked(blocks)?;
        for width in widths {
            // Behind the last value the widths may be anything.
            let bits = if left == 0 { 0 } else { per_block.checked_mul(usize::from(*width))? };
            // The last block may be cut.
            rest = rest.get((bits / 8).min(rest.len())..)?;
            left = left.saturating_sub(per_block);
        }
    }
    Some(rest)
}

/// A number of seven bits a byte, the least first.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = 1 + bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let (bytes, rest) = bytes.split_at_checked(length)?;
    let add = |sum: u64, (i, byte): (usize, &u8)| sum | u64::from(byte & 0x7F) << (7 * i).min(63);
    Some((bytes.iter().enumerate().fold(0, add), rest))
}
