//! safetensors: a header in JSON, then the tensors.

use super::stored::{ByteRange, Source, Stored};
use crate::error::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use tch::{Kind, Tensor};

/// Maximum size of a header in bytes. BERT-large's has 50 kB.
const MOST_BYTES: u64 = 16_000_000;

/// The mapped file, and the names and descriptions of its tensors.
pub fn list(path: &Path) -> Result<(Source, Vec<(String, Stored)>)> {
    let broken =
        |problem: String| Error::file(path, format!("not a complete safetensors file: {problem}"));
    let (source, mut file) = Source::open(path)?;
    let size = source.bytes.numel() as u64;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| broken(format!("{size} bytes")))?;
    let length = u64::from_le_bytes(length);
    if length > size.saturating_sub(8) || length > MOST_BYTES {
        return Err(broken(format!("a header of {length} bytes in a file of {size}")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(Error::io("read", path))?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| broken(format!("its header: {e}")))?;
    let mut tensors = vec![];
    for (name, info) in metadata.tensors() {
        let (from, to) = info.data_offsets;
        let (start, end) = (8 + length + from as u64, 8 + length + to as u64);
        if end > size {
            return Err(broken(format!(
                "tensor {name} ends at byte {end}, but the file has {size}"
            )));
        }
        let (dtype, kind) = match info.dtype {
            Dtype::F32 => ("float32".into(), Some(Kind::Float)),
            Dtype::F16 => ("float16".into(), Some(Kind::Half)),
            Dtype::BF16 => ("bfloat16".into(), Some(Kind::BFloat16)),
            Dtype::F64 => ("float64".into(), Some(Kind::Double)),
            other => (format!("{other:?}").into(), None),
        };
        let shape =
            info.shape.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
        let storage = ByteRange { start, length: end - start, checksum: None };
        tensors.push((name, Stored::dense(dtype, kind, shape, storage)));
    }
    Ok((source, tensors))
}

/// Writes a safetensors file in fp32. The same tensors and metadata give the same bytes.
pub fn write(
    out: &mut dyn Write,
    path: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<()> {
    // The safetensors crate is not used: it orders the metadata by a HashMap, differently each
    // time.
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!(metadata));
    let mut end = 0;
    for (name, tensor) in tensors {
        let start = end;
        end += 4 * tensor.numel();
        let info = json!({"dtype": "F32", "shape": tensor.size(), "data_offsets": [start, end]});
        header.insert(name.clone(), info);
    }
    let mut text = Value::Object(header).to_string();
    // The data begins at a multiple of 8, as the format asks for.
    text += &" ".repeat(text.len().next_multiple_of(8) - text.len());
    let mut write = |bytes: &[u8]| out.write_all(bytes).map_err(Error::io("write", path));
    write(&(text.len() as u64).to_le_bytes())?;
    write(text.as_bytes())?;
    let mut bytes = Vec::new();
    for tensor in tensors.values() {
        let count = tensor.numel();
        bytes.resize(4 * count, 0);
        tensor.f_to_device(tch::Device::Cpu)?.f_contiguous()?.f_copy_data_u8(&mut bytes, count)?;
        write(&bytes)?;
    }
    out.flush().map_err(Error::io("write", path))
}
