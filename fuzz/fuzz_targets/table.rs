//! CSV, TSV or JSONL: which, `c`, `t` or `j`, and how it is read are the first two bytes.
#![no_main]

use bitfit_fuzz::{columns, file, read_rows};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [format, how, bytes @ ..] = input else { return };
    let ending = ["csv", "jsonl", "tsv"][usize::from(*format) % 3];
    read_rows(&file(&format!("rows.{ending}"), bytes), &columns(*how));
});
