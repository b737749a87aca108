//! The training state of a checkpoint, beside the delta that it names.
#![no_main]

use bitfit::internal::checkpoint::Checkpoint;
use bitfit_fuzz::{file, folder, sealed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let delta = include_bytes!("../corpus/delta/delta");
    file("delta.safetensors", delta);
    file("best.safetensors", delta);
    file("trainer_state.safetensors", &sealed(input));
    let _ = Checkpoint::read(folder());
});
