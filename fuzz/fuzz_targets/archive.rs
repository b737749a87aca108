//! What PyTorch writes, as it is: TorchScript and torch.save's archives, whose seeds have no checksums to stop a change, and the older forms.
#![no_main]

use bitfit::weights::Weights;
use bitfit_fuzz::{LEAST, file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = Weights::read(&LEAST, &file("model.ot", input));
});
