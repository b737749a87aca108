//! Data files: the format that a file's name gives, and its contents, decompressed if necessary.

use super::budget::Budget;
use crate::error::{Error, Result};
use crate::files::{self, open_regular, text_of};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

/// The format of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataFormat {
    /// Cells separated by a delimiter, some of them in quotes.
    Csv,
    /// Cells separated by tabs, without quotes.
    Tsv,
    /// One JSON object per line.
    JsonLines,
    /// One array of JSON objects, or one object per line.
    Json,
    /// Parquet.
    Parquet,
}

/// Compression of a data file.
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

/// Maximum memory to decompress a .xz with, in KiB; `xz -9` needs 64 MiB.
const XZ_MEMORY_KIB: u32 = 128 << 10;

/// First bytes of files that are not text, and the endings that such files should have.
const BEGINNINGS: [(&[u8], &str); 6] = [
    (b"\x1F\x8B", ".gz"),
    (b"\x28\xB5\x2F\xFD", ".zst"),
    (b"BZh", ".bz2"),
    (b"\xFD7zXZ", ".xz"),
    (b"PAR1", ".parquet"),
    (b"PK\x03\x04", ".zip or .xlsx"),
];

/// Format and compression of a file, by the endings of its name (`rows.csv.gz`); `None` if they do
/// not give a format.
pub fn format_of(path: &Path) -> Option<(DataFormat, Option<Packing>)> {
    let packing = packing_of(path);
    let inner = if packing.is_some() { path.with_extension("") } else { path.to_owned() };
    let format = match ending(&inner).as_deref()? {
        "csv" => DataFormat::Csv,
        "tsv" => DataFormat::Tsv,
        "jsonl" | "ndjson" => DataFormat::JsonLines,
        "json" => DataFormat::Json,
        "parquet" => DataFormat::Parquet,
        _ => return None,
    };
    Some((format, packing))
}

/// Compression of a file, by its ending; `None` if the ending is another.
pub fn packing_of(path: &Path) -> Option<Packing> {
    Some(match ending(path).as_deref()? {
        "gz" => Packing::Gzip,
        "zst" => Packing::Zstd,
        "bz2" => Packing::Bzip2,
        "xz" => Packing::Xz,
        _ => return None,
    })
}

/// Whether a file has an ending of texts or rows, so that its name is not an id on the Hugging Face
/// Hub.
pub fn has_ending(path: &Path) -> bool {
    packing_of(path).is_some()
        || is_rows(path)
        || ending(path).is_some_and(|ending| ending == "txt")
}

/// Whether a file has the ending of a data format.
pub fn is_rows(path: &Path) -> bool {
    format_of(path).is_some()
}

/// Whether a path is a table of rows: a folder, or a file with the ending of a data format.
pub fn is_table(path: &Path) -> bool {
    path.is_dir() || is_rows(path)
}

/// The file name's ending in lower case: `csv`.
pub fn ending(path: &Path) -> Option<String> {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase())
}

/// Reads the text of a data file. If it is compressed, its decompressed bytes are taken off the
/// budget.
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

/// Reads the text of a file that is not compressed.
pub fn read_plain(path: &Path) -> Result<String> {
    let bytes = files::read(path)?;
    // In UTF-16, every second byte of ASCII letters is zero.
    let start = bytes.get(..bytes.len().min(1000)).unwrap_or_default();
    if start.iter().filter(|byte| **byte == 0).count() > start.len() / 4 {
        let problem = "has many NUL characters, expected text in UTF-8; if the file is UTF-16, convert it, for example with iconv";
        return Err(Error::data(path, None, problem));
    }
    let other = BEGINNINGS.iter().find(|(start, _)| bytes.starts_with(start));
    text_of(path, bytes).map_err(|error| match other {
        Some((_, ending)) => {
            let problem = format!("not text; the contents are those of a {ending} file");
            Error::data(path, None, problem)
        }
        None => error,
    })
}

/// Decompresses `packed`. An empty file is an error of the kind `InvalidData`, and so is any error
/// while reading the result.
pub fn unpack(packed: impl Read + 'static, packing: Packing) -> io::Result<Box<dyn Read>> {
    let mut packed = BufReader::with_capacity(1 << 16, packed);
    // Some decoders turn an empty file into an empty text.
    if packed.fill_buf()?.is_empty() {
        let empty = io::Error::new(ErrorKind::InvalidData, "empty, expected a compressed file");
        return Err(empty);
    }
    Ok(Box::new(Unpacked(match packing {
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
        Packing::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(packed, true, XZ_MEMORY_KIB)),
    })))
}

/// A decompressor whose errors say what may be wrong with the file.
struct Unpacked(Box<dyn Read>);

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            let problem =
                format!("truncated, damaged, or not in the format that its name says: {error}");
            io::Error::new(ErrorKind::InvalidData, problem)
        })
    }
}

/// The error for a file that could not be read: `InvalidData` means that its contents are wrong.
pub fn unreadable(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidData => Error::data(path, None, error.to_string()),
        _ => Error::io("read", path)(error),
    }
}
