//! Data files: what each is, by its name, and its bytes, unpacked where they are compressed.

use super::budget::Budget;
use crate::error::{Error, Result};
use crate::files::{self, open_regular, text_of};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

/// What is in a file of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Cells between delimiters, some in quotes.
    Csv,
    /// Cells between tabs.
    Tsv,
    /// A JSON object a line.
    JsonLines,
    /// One array of JSON objects, or an object a line.
    Json,
    /// Parquet.
    Parquet,
}

/// What a file is compressed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

/// The memory that a .xz may ask for, in KiB: `xz -9` asks for 64 MiB.
const XZ_MEMORY_KIB: u32 = 128 << 10;

/// How files begin that are no text, and the endings that they should have.
const BEGINNINGS: [(&[u8], &str); 6] = [
    (b"\x1F\x8B", ".gz"),
    (b"\x28\xB5\x2F\xFD", ".zst"),
    (b"BZh", ".bz2"),
    (b"\xFD7zXZ", ".xz"),
    (b"PAR1", ".parquet"),
    (b"PK\x03\x04", ".zip or .xlsx"),
];

/// What a name that is a file's says of it, by its endings: `rows.csv.gz`.
pub fn format_of(path: &Path) -> Option<(Format, Option<Packing>)> {
    let packing = packing_of(path);
    let inner = if packing.is_some() { path.with_extension("") } else { path.to_owned() };
    let format = match ending(&inner).as_deref()? {
        "csv" => Format::Csv,
        "tsv" => Format::Tsv,
        "jsonl" | "ndjson" => Format::JsonLines,
        "json" => Format::Json,
        "parquet" => Format::Parquet,
        _ => return None,
    };
    Some((format, packing))
}

/// What a file is compressed by, by its ending.
pub fn packing_of(path: &Path) -> Option<Packing> {
    Some(match ending(path).as_deref()? {
        "gz" => Packing::Gzip,
        "zst" => Packing::Zstd,
        "bz2" => Packing::Bzip2,
        "xz" => Packing::Xz,
        _ => return None,
    })
}

/// Whether a name is one of a file of texts, which is no id of the Hub.
pub fn has_ending(path: &Path) -> bool {
    packing_of(path).is_some()
        || format_of(path).is_some()
        || ending(path).is_some_and(|ending| ending == "txt")
}

/// Whether a path is a table of rows: a folder, or a file that is named as one.
pub fn is_table(path: &Path) -> bool {
    path.is_dir() || format_of(path).is_some()
}

/// The file name's ending, in small letters: `csv`.
pub fn ending(path: &Path) -> Option<String> {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase())
}

/// The text of a file of rows; where it is packed, its bytes are taken off the budget.
pub fn read_text(path: &Path, packing: Option<Packing>, budget: &Budget) -> Result<String> {
    let Some(packing) = packing else { return read_plain(path) };
    let (file, _) = open_regular(path)?;
    let (most, mut bytes) = (budget.left() + 1, vec![]);
    unpack(file, packing)
        .and_then(|unpacked| unpacked.take(most).read_to_end(&mut bytes))
        .map_err(|error| unreadable(path, error))?;
    budget.take(bytes.len() as u64, path)?;
    text_of(path, bytes)
}

/// The text of a file that is not packed.
pub fn read_plain(path: &Path) -> Result<String> {
    let bytes = files::read(path)?;
    // Of another encoding's ASCII letters every second byte is zero.
    let start = bytes.get(..bytes.len().min(1000)).unwrap_or_default();
    if start.iter().filter(|byte| **byte == 0).count() > start.len() / 4 {
        let problem = "full of NUL characters; if it is UTF-16, convert it, say with iconv";
        return Err(Error::data(path, None, problem));
    }
    let other = BEGINNINGS.iter().find(|(start, _)| bytes.starts_with(start));
    text_of(path, bytes).map_err(|error| match other {
        Some((_, ending)) => {
            let problem = format!("not text: its contents are those of a {ending}");
            Error::data(path, None, problem)
        }
        None => error,
    })
}

/// The bytes that were packed. An error of theirs is of the kind `InvalidData`.
pub fn unpack(packed: impl Read + 'static, packing: Packing) -> io::Result<Box<dyn Read>> {
    let mut packed = BufReader::with_capacity(1 << 16, packed);
    // Of no bytes at all some readers make an empty text.
    if packed.fill_buf()?.is_empty() {
        let empty = io::Error::new(ErrorKind::InvalidData, "empty, so it is no whole file");
        return Err(empty);
    }
    Ok(Box::new(Unpacked(match packing {
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
        Packing::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(packed, true, XZ_MEMORY_KIB)),
    })))
}

/// What comes out of a packed file.
struct Unpacked(Box<dyn Read>);

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            let problem = format!("cut off, damaged or not what its name says: {error}");
            io::Error::new(ErrorKind::InvalidData, problem)
        })
    }
}

/// What is wrong with a file that could not be read.
pub fn unreadable(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidData => Error::data(path, None, error.to_string()),
        _ => Error::io("read", path)(error),
    }
}
