//! CSV, TSV, JSONL or JSON, and compressed CSV: which, `c`, `t`, `j`, `J`, or `1` to `4`, and how it is read are the first two bytes.
#![no_main]

use bitfit_fuzz::{columns, file, read_rows};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [format, how, bytes @ ..] = input else { return };
    let ending = match format {
        b'J' => "json",
        b'1' => "csv.gz",
        b'2' => "csv.zst",
        b'3' => "csv.bz2",
        b'4' => "csv.xz",
        other => ["csv", "jsonl", "tsv"][usize::from(*other) % 3],
    };
    read_rows(&file(&format!("rows.{ending}"), bytes), &columns(*how));
});
