//! The files of a tokenizer, in the order of `TOKENIZER_FILES`, separated by NULs. An empty part
//! means that the file is absent. The text to encode is the whole input.
#![no_main]

use bitfit::internal::data::{MIN_LENGTH, TOKENIZER_FILES, Tokenizer};
use bitfit_fuzz::{encode, file, folder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.split(|&byte| byte == 0);
    for name in TOKENIZER_FILES {
        match parts.next().unwrap_or_default() {
            [] => drop(std::fs::remove_file(folder().join(name))),
            part => drop(file(name, part)),
        }
    }
    let Ok(tokenizer) = Tokenizer::read(folder()) else { return };
    let text = String::from_utf8_lossy(input);
    encode(&tokenizer, &text, MIN_LENGTH);
    encode(&tokenizer, &text, 64);
});
