//! The body of a request, in each shape that the server reads.
#![no_main]

use bitfit::internal::serve::parse_in_each_shape;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = parse_in_each_shape(&input.to_vec().into());
});
