//! Checks of Parquet pages for what the library takes on trust: that the file does not end within
//! them, how many values they declare, and how much they decompress to. Without these checks, a
//! damaged or crafted file of 200 bytes could take all memory or be read forever.

use super::budget::{Budget, ENTRY};
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type as PhysicalType};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{ChunkReader, Length, RowGroupReader};
use parquet::record::reader::RowIter;
use parquet::schema::types::{ColumnDescriptor, Type};
use parquet::{bloom_filter::Sbbf, schema::types::ColumnDescPtr};
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// A file whose end is an error to its readers: a footer always follows the pages. The library
/// would otherwise keep counting the bytes that it skips.
#[derive(Clone)]
pub struct StrictFile {
    file: Arc<File>,
    /// Offset and length of the contents of the page that was checked: only these may be read.
    /// `None` allows any.
    checked: Arc<Mutex<Option<(u64, u64)>>>,
}

/// A reader of a part of a [`StrictFile`].
pub struct FilePart(BufReader<File>);

impl StrictFile {
    pub fn new(file: File) -> Self {
        Self { file: Arc::new(file), checked: Arc::default() }
    }

    /// Restricts [`ChunkReader::get_bytes`] to these bytes (offset and length); `None` allows any.
    fn restrict(&self, contents: Option<(u64, u64)>) {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = contents;
    }
}

impl Length for StrictFile {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl ChunkReader for StrictFile {
    type T = FilePart;

    fn get_read(&self, start: u64) -> Result<FilePart> {
        Ok(FilePart(self.file.get_read(start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            return Err(ParquetError::EOF(format!("{length} bytes from {start} on")));
        }
        let checked = *self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.is_some_and(|contents| contents != (start, length as u64)) {
            return Err(ParquetError::General("a page's header is ambiguous".into()));
        }
        self.file.get_bytes(start, length)
    }
}

impl Read for FilePart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => Err(ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

/// A row group whose pages are checked.
pub struct CheckedRowGroup<'a> {
    pub group: Box<dyn RowGroupReader + 'a>,
    pub file: StrictFile,
    pub budget: Budget,
}

impl RowGroupReader for CheckedRowGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.group.metadata()
    }

    fn num_columns(&self) -> usize {
        self.group.num_columns()
    }

    fn get_column_page_reader(&self, i: usize) -> Result<Box<dyn PageReader>> {
        let chunk = self.metadata().column(i);
        let (start, length) = chunk.byte_range();
        Ok(Box::new(Pages {
            reader: self.group.get_column_page_reader(i)?,
            column: self.metadata().schema_descr().column(i),
            codec: chunk.compression(),
            file: self.file.clone(),
            start,
            length,
            longest: 0,
            budget: self.budget.clone(),
        }))
    }

    fn get_column_bloom_filter(&self, i: usize) -> Option<&Sbbf> {
        self.group.get_column_bloom_filter(i)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

struct Pages {
    reader: Box<dyn PageReader>,
    column: ColumnDescPtr,
    codec: Compression,
    file: StrictFile,
    /// Offset of the next page; `length` is the number of bytes of the column from there on.
    start: u64,
    length: u64,
    /// Bytes of the dictionary's longest value.
    longest: u64,
    budget: Budget,
}

impl Pages {
    fn error(&self, problem: &str) -> ParquetError {
        ParquetError::General(format!("column {}: {problem}", self.column.path()))
    }

    fn spend(&self, bytes: u64) -> Result<()> {
        if self.budget.spend(bytes) { Ok(()) } else { Err(self.error("too large")) }
    }

    /// Checks how much the next page decompresses to, before the library decompresses it.
    fn check_next(&mut self) -> Result<()> {
        while self.length > 0 {
            let header = Header::read(self.file.get_read(self.start)?)?;
            let contents = self.start + header.length;
            let all = header.length.saturating_add(header.packed);
            self.length = self
                .length
                .checked_sub(all)
                .ok_or_else(|| self.error("a page ends outside its column"))?;
            self.start += all;
            // The library skips index pages.
            if header.kind == INDEX_PAGE {
                continue;
            }
            self.spend(header.unpacked)?;
            self.file.restrict(None);
            if let Some(packed) = header.packed.checked_sub(header.levels) {
                let bytes = self.file.get_bytes(contents + header.levels, packed as usize)?;
                let room = header.unpacked.saturating_sub(header.levels);
                if unpacks_to_more(&bytes, self.codec, room) {
                    return Err(self.error("a page decompresses to more than its header says"));
                }
            }
            self.file.restrict(Some((contents, header.packed)));
            return Ok(());
        }
        Ok(())
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.check_next()?;
        let page = self.reader.get_next_page();
        self.file.restrict(None);
        let Some(page) = page? else { return Ok(None) };
        let Some(more) = plausible(&page, &self.column) else {
            return Err(self.error("a page declares more values than it has"));
        };
        self.spend(more)?;
        if page.is_dictionary_page() {
            self.longest = longest(&page, &self.column);
        } else if self.column.max_rep_level() > 0 {
            // The library holds all values of a row at once.
            let dictionary =
                matches!(page.encoding(), Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY);
            let each = ENTRY + if dictionary { self.longest } else { 0 };
            self.spend(u64::from(page.num_values()).saturating_mul(each))?;
        }
        Ok(Some(page))
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

/// Whether `packed` decompresses to more than `room` bytes, for codecs whose output the library
/// does not limit.
fn unpacks_to_more(packed: &[u8], codec: Compression, room: u64) -> bool {
    const LZ4_FRAME: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
    let count = |unpacked: &mut dyn Read| {
        let mut unpacked = unpacked.take(room.saturating_add(1));
        // The library reports damaged data.
        let mut buffer = [0; 1 << 13];
        let mut count = 0;
        while let Ok(1..) = unpacked.read(&mut buffer).inspect(|read| count += *read as u64) {}
        count
    };
    let count = match codec {
        Compression::GZIP(_) => count(&mut flate2::bufread::MultiGzDecoder::new(packed)),
        Compression::BROTLI(_) => count(&mut brotli::Decompressor::new(packed, 1 << 13)),
        Compression::LZ4 if packed.starts_with(&LZ4_FRAME) => {
            count(&mut lz4_flex::frame::FrameDecoder::new(packed))
        }
        _ => 0,
    };
    count > room
}

const INDEX_PAGE: i64 = 1;

/// The header of a page, in Thrift's compact protocol.
#[derive(Default)]
struct Header {
    kind: i64,
    unpacked: u64,
    packed: u64,
    /// Bytes of the levels, which are not compressed.
    levels: u64,
    /// Bytes of the header itself.
    length: u64,
}

impl Header {
    fn read(from: FilePart) -> Result<Self> {
        let mut thrift = Thrift { from, length: 0 };
        let mut said = [None; 5];
        thrift
            .structure(0, &mut |outer, field, value| {
                let place = match (outer, field) {
                    (0, 1..=3) => field - 1,
                    (8, 5) => 3,
                    (8, 6) => 4,
                    _ => return true,
                };
                // The library could use either value of a repeated field, so it is refused.
                said.get_mut(place as usize).is_some_and(|said| said.replace(value).is_none())
            })
            .map_err(|e| ParquetError::General(format!("a page's header: {e}")))?;
        let size = |value: Option<i64>| u64::try_from(value?).ok();
        let header = |[kind, unpacked, packed, definition, repetition]: [Option<i64>; 5]| {
            let levels =
                size(definition.or(Some(0)))?.checked_add(size(repetition.or(Some(0)))?)?;
            let (kind, unpacked, packed) = (kind?, size(unpacked)?, size(packed)?);
            Some(Self { kind, unpacked, packed, levels, length: thrift.length })
        };
        header(said).ok_or_else(|| ParquetError::General("a page's header has no sizes".into()))
    }
}

struct Thrift {
    from: FilePart,
    length: u64,
}

impl Thrift {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.from.read_exact(&mut byte)?;
        self.length += 1;
        let [byte] = byte;
        Ok(byte)
    }

    /// Reads a varint: seven bits per byte, least significant first.
    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for i in 0..10 {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << (7 * i).min(63);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(ErrorKind::InvalidData.into())
    }

    /// Reads the fields of a struct that is the field `outer` of another (0 for the header itself).
    /// Calls `visit` with `outer`, the field and the value of each 32-bit integer; errs if it
    /// returns false.
    ///
    /// The library reads a known field as the type that it expects, whatever type the header
    /// declares. Any other declared type is refused, so that we see what the library will see.
    fn structure(
        &mut self,
        outer: i64,
        visit: &mut dyn FnMut(i64, i64, i64) -> bool,
    ) -> io::Result<()> {
        let mut field = 0;
        loop {
            let byte = self.byte()?;
            if byte == 0 {
                return Ok(());
            }
            field = match byte >> 4 {
                0 => signed(self.number()?),
                more => field + i64::from(more),
            };
            let kind = byte & 0xF;
            let known = kind_of(outer, field);
            let is_good = match known {
                None => (1..=100).contains(&field),
                Some(TRUE) => matches!(kind, TRUE | FALSE),
                Some(known) => kind == known,
            };
            if !is_good {
                return Err(ErrorKind::InvalidData.into());
            }
            match known {
                Some(INT32) => {
                    let number = signed(self.number()?);
                    if i32::try_from(number).is_err() || !visit(outer, field, number) {
                        return Err(ErrorKind::InvalidData.into());
                    }
                }
                Some(STRUCTURE) => self.structure(field, visit)?,
                _ => self.skip(kind, 0)?,
            }
        }
    }

    fn skip(&mut self, kind: u8, depth: u8) -> io::Result<()> {
        match kind {
            // The value of a boolean field is its type.
            TRUE | FALSE => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.number()?),
            7 => (0..8).try_for_each(|_| self.byte().map(drop))?,
            8 => {
                let length = self.number()?;
                let passed = io::copy(&mut (&mut self.from).take(length), &mut io::sink())?;
                self.length += passed;
            }
            STRUCTURE if depth < 8 => loop {
                let byte = self.byte()?;
                if byte == 0 {
                    break;
                }
                if byte >> 4 == 0 {
                    self.number()?;
                }
                self.skip(byte & 0xF, depth + 1)?;
            },
            // A page header has no lists or maps.
            _ => return Err(ErrorKind::InvalidData.into()),
        }
        Ok(())
    }
}

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const INT32: u8 = 5;
const STRUCTURE: u8 = 12;

/// The type of a field of a page header (`outer` 0) or of one of its structs; `None` for a field
/// that the library skips.
fn kind_of(outer: i64, field: i64) -> Option<u8> {
    match (outer, field) {
        (0, 1..=4) | (5, 1..=4) | (7, 1..=2) | (8, 1..=6) => Some(INT32),
        (0, 5..=8) => Some(STRUCTURE),
        (7, 3) | (8, 7) => Some(TRUE),
        _ => None,
    }
}

/// Decodes a zigzag number, whose lowest bit is its sign.
fn signed(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Bytes of the longest value in a dictionary.
fn longest(page: &Page, column: &ColumnDescriptor) -> u64 {
    let mut rest: &[u8] = page.buffer();
    match column.physical_type() {
        PhysicalType::BYTE_ARRAY => {}
        PhysicalType::FIXED_LEN_BYTE_ARRAY => {
            return u64::try_from(column.type_length()).unwrap_or(0);
        }
        _ => return 0,
    }
    let mut longest = 0;
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = u32::from_le_bytes(*length);
        longest = longest.max(length);
        let Some(behind) = behind.get(length as usize..) else { break };
        rest = behind;
    }
    u64::from(longest)
}

/// Bytes that the values of a page take beyond its own; `None` if the page cannot hold as many
/// values as it declares.
fn plausible(page: &Page, column: &ColumnDescriptor) -> Option<u64> {
    let (count, encoding) = (page.num_values() as usize, page.encoding());
    let buffer: &[u8] = page.buffer();
    let values = match page {
        // Plain encoding: each value takes a bit or more.
        Page::DictionaryPage { .. } => return (count <= 8 * buffer.len()).then_some(0),
        Page::DataPageV2 { rep_levels_byte_len, def_levels_byte_len, .. } => {
            buffer.get((*rep_levels_byte_len as usize + *def_levels_byte_len as usize)..)
        }
        // Each kind of levels follows its length. The deprecated bit-packed levels have no length,
        // so the values after them cannot be located.
        Page::DataPage { .. } => [column.max_rep_level(), column.max_def_level()]
            .iter()
            .filter(|most| **most > 0)
            .try_fold(buffer, |rest, _| {
                let (length, rest) = rest.split_first_chunk()?;
                rest.get(u32::from_le_bytes(*length) as usize..)
            }),
    };
    match encoding {
        Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY => {
            deltas(values?, count).map(|_| 0)
        }
        // First the lengths of the prefixes shared with the previous value, then those of the
        // suffixes.
        Encoding::DELTA_BYTE_ARRAY => {
            let (repeated, rest) = deltas(values?, count)?;
            deltas(rest, count).map(|_| repeated)
        }
        _ => Some(0),
    }
}

/// The sum of numbers in DELTA_BINARY_PACKED, without negative ones, and the bytes after them;
/// `None` if there are more than `most` or the bytes are invalid.
fn deltas(bytes: &[u8], most: usize) -> Option<(u64, &[u8])> {
    let (block_size, rest) = number(bytes)?;
    let (blocks, rest) = number(rest)?;
    let (count, rest) = number(rest)?;
    let (first, mut rest) = number(rest)?;
    let per_block = usize::try_from(block_size.checked_div(blocks)?).ok()?;
    let (blocks, count) = (usize::try_from(blocks).ok()?, usize::try_from(count).ok()?);
    if count > most || per_block == 0 {
        return None;
    }
    let mut left = count.saturating_sub(1);
    let mut value = signed(first);
    let mut sum = if count == 0 { 0 } else { value.max(0) as u64 };
    while left > 0 {
        let (least, widths);
        (least, rest) = number(rest)?;
        (widths, rest) = rest.split_at_checked(blocks)?;
        for width in widths {
            // After the last value, the widths may be anything.
            let width = if left == 0 { 0 } else { usize::from(*width) };
            let length = per_block.checked_mul(width)? / 8;
            // The last miniblock may be cut off.
            let (block, behind) = rest.split_at(length.min(rest.len()));
            for i in 0..per_block.min(left) {
                let delta = bits(block, i.checked_mul(width)?, width);
                value = value.wrapping_add(signed(least)).wrapping_add(delta as i64);
                sum = sum.saturating_add(value.max(0) as u64);
            }
            rest = behind;
            left = left.saturating_sub(per_block);
        }
    }
    Some((sum, rest))
}

/// The number of `width` bits, at most 64, from the bit `start` on, least significant first. Bits
/// beyond the end are 0.
fn bits(bytes: &[u8], start: usize, width: usize) -> u64 {
    let (skip, width) = (start % 8, width.min(64));
    let bytes = bytes.iter().skip(start / 8).take(9).enumerate();
    let all = bytes.fold(0, |sum: u128, (i, byte)| sum | u128::from(*byte) << (8 * i));
    (all >> skip & ((1 << width) - 1)) as u64
}

/// Decodes a varint: seven bits per byte, least significant first. Returns it and the bytes after
/// it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = 1 + bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let (bytes, rest) = bytes.split_at_checked(length)?;
    let add = |sum: u64, (i, byte): (usize, &u8)| sum | u64::from(byte & 0x7F) << (7 * i).min(63);
    Some((bytes.iter().enumerate().fold(0, add), rest))
}
