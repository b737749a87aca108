//! Parquet. The last byte of the input selects the columns; it is appended, because Parquet is read
//! from its end.
#![no_main]

use bitfit_fuzz::{columns, file, read_rows};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [bytes @ .., how] = input else { return };
    read_rows(&file("rows.parquet", bytes), &columns(*how));
});
