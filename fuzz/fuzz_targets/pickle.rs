//! `pytorch_model.bin`: a zip as it is, anything else as the pickle in one, whose checksum would else stop every change.
#![no_main]

use bitfit::models::Architecture;
use bitfit::weights::Weights;
use bitfit_fuzz::file;
use libfuzzer_sys::fuzz_target;
use std::io::{Cursor, Write};
use zip::write::{FileOptions, ZipWriter};

fn archive(pickle: &[u8]) -> zip::result::ZipResult<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    for (name, bytes) in [("data.pkl", pickle), ("data/0", &[1; 64]), ("data/1", &[])] {
        let stored = FileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file(format!("archive/{name}"), stored)?;
        zip.write_all(bytes)?;
    }
    Ok(zip.finish()?.into_inner())
}

fuzz_target!(|input: &[u8]| {
    let path = if input.starts_with(b"PK") {
        file("pytorch_model.bin", input)
    } else {
        file("pytorch_model.bin", &archive(input).unwrap())
    };
    let _ = Weights::read(Architecture::Bert, &path);
});
