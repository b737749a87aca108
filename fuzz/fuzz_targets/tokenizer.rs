//! A text, or a pair separated by a NUL. The first byte of the input selects the model, the second
//! the maximum length.
#![no_main]

use bitfit::internal::data::{MIN_LENGTH, Tokenizer};
use bitfit_fuzz::{encode, golden};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TOKENIZERS: LazyLock<[Tokenizer; 3]> = LazyLock::new(|| {
    ["bert", "distilbert", "roberta"]
        .map(|name| Tokenizer::read(&golden(&format!("tiny-{name}"))).unwrap())
});

fuzz_target!(|input: &[u8]| {
    let [model, length, text @ ..] = input else { return };
    let tokenizer = &TOKENIZERS[usize::from(*model) % 3];
    encode(tokenizer, &String::from_utf8_lossy(text), MIN_LENGTH + usize::from(*length));
});
