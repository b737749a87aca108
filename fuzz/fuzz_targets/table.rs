//! CSV (`c`), TSV (`t`), JSONL (`j`), JSON (`J`) and compressed CSV (`1` to `4`). The first byte of
//! the input selects the format, the second the columns.
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
