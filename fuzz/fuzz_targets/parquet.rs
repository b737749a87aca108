//! Parquet; how it is read is the last byte, since the format is read from its end.
#![no_main]

use bitfit_fuzz::{columns, file, read_rows};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [bytes @ .., how] = input else { return };
    read_rows(&file("rows.parquet", bytes), &columns(*how));
});
