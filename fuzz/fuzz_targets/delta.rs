//! A safetensors file, read as a delta and as weights.
#![no_main]

use bitfit::internal::delta::Delta;
use bitfit::internal::weights::Weights;
use bitfit_fuzz::{LEAST, file, sealed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let path = file("delta.safetensors", &sealed(input));
    let _ = Weights::read(&LEAST, &path);
    if let Ok(delta) = Delta::read(&path) {
        let bytes = delta.to_bytes().unwrap();
        let again = Delta::read(&file("again.safetensors", &bytes)).unwrap();
        assert_eq!(again.to_bytes().unwrap(), bytes);
    }
});
