//! The pickle of a `pytorch_model.bin`. The target builds the archive around it, because a wrong
//! checksum in the archive would reject every change.
#![no_main]

use bitfit::internal::weights::Weights;
use bitfit_fuzz::{LEAST, file};
use libfuzzer_sys::fuzz_target;
use std::io::{Cursor, Write};
use zip::write::{SimpleFileOptions, ZipWriter};

fn archive(pickle: &[u8]) -> zip::result::ZipResult<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    for (name, bytes) in [("data.pkl", pickle), ("data/0", &[1; 512]), ("data/1", &[])] {
        let stored =
            SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file(format!("archive/{name}").as_str(), stored)?;
        zip.write_all(bytes)?;
    }
    Ok(zip.finish()?.into_inner())
}

fuzz_target!(|input: &[u8]| {
    let path = file("pytorch_model.bin", &archive(input).unwrap());
    let _ = Weights::read(&LEAST, &path);
});
