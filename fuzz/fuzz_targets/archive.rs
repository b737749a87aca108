//! Weight files of PyTorch: TorchScript and torch.save archives, and the older formats. The seeds
//! have no checksums, which would reject every change.
#![no_main]

use bitfit::internal::weights::Weights;
use bitfit_fuzz::{LEAST, file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = Weights::read(&LEAST, &file("model.ot", input));
});
