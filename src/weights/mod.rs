//! A base's weight file into a `VarStore`, strictly: TorchScript archive, safetensors or what `torch.save` wrote.

mod pickle;

use crate::error::{Error, Result};
use crate::files::hex;
use crate::models::{Architecture, Name, classify};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor, nn};

/// The weight files of a model directory, in the order of preference.
pub const FILES: [&str; 3] = ["model.ot", "model.safetensors", "pytorch_model.bin"];

/// The tensor inside a TorchScript archive of ours that holds the fingerprint's 32 bytes.
const FINGERPRINT: &str = "bitfit_fingerprint";

/// A weight file's encoder tensors, fp32 on the CPU, by canonical name.
#[derive(Debug)]
pub struct Weights {
    /// The file.
    pub path: PathBuf,
    /// SHA-256, in hex, over the tensors by sorted canonical name: name, shape, fp32 bytes. Equal for every format of one base.
    pub fingerprint: String,
    tensors: BTreeMap<String, Tensor>,
    /// The file itself, where the tensors are pieces of it.
    pub mapped: Option<Tensor>,
    /// The head that the file has, if it is a classifier's.
    head: BTreeMap<String, Tensor>,
    /// The name that each tensor has in the file.
    written: BTreeMap<String, String>,
    /// Tensors outside the encoder that nobody expected.
    left_aside: Vec<String>,
}

/// The weight files that the base `dir` has, the preferred one first; or the one that the configuration names.
pub fn find(dir: &Path, named: Option<&str>) -> Result<Vec<PathBuf>> {
    if let Some(name) = named {
        return Ok(vec![dir.join(name)]);
    }
    let found: Vec<_> =
        FILES.iter().map(|name| dir.join(name)).filter(|path| path.exists()).collect();
    if found.is_empty() {
        let mut problem = format!("no weights there; expected {}", FILES.join(", "));
        if dir.join("model.safetensors.index.json").exists() {
            problem += " (weights in several shards are not supported: save the model in one file)";
        }
        return Err(Error::file(dir, problem));
    }
    Ok(found)
}

/// The names of the tensors in the preferred of `files`.
pub fn names(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut names = vec![];
    let Some(path) = files.first() else { return Ok(names) };
    let mut take = |name: String, _: Tensor| {
        names.push(name);
        Ok(())
    };
    match path.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => read_safetensors(path, &mut take).map(drop)?,
        Some("bin") => pickle::read(path, &mut take)?,
        _ => read_torchscript(path)?.into_iter().try_for_each(|(n, t)| take(n, t))?,
    }
    Ok(names)
}

impl Weights {
    /// Reads the encoder's tensors of `path`; its format goes by its ending.
    pub fn read(architecture: Architecture, path: &Path) -> Result<Self> {
        let mut weights = Self {
            path: path.to_owned(),
            fingerprint: String::new(),
            tensors: BTreeMap::new(),
            mapped: None,
            head: BTreeMap::new(),
            written: BTreeMap::new(),
            left_aside: vec![],
        };
        let (mut recorded, mut mapped) = (None, None);
        let mut take = |name: String, tensor: Tensor| {
            if name == FINGERPRINT {
                recorded = Some(Vec::<u8>::try_from(&tensor)?);
                return Ok(());
            }
            weights.take(architecture, name, tensor)
        };
        match path.extension().and_then(|e| e.to_str()) {
            Some("safetensors") => mapped = Some(read_safetensors(path, &mut take)?),
            Some("bin") => pickle::read(path, &mut take)?,
            _ => read_torchscript(path)?.into_iter().try_for_each(|(n, t)| take(n, t))?,
        }
        weights.mapped = mapped;
        if let Some(first) = weights.left_aside.iter().min() {
            let (path, count) = (path.display(), weights.left_aside.len());
            tracing::warn!(
                "{path}: {count} tensors outside the encoder are not used, such as {first}"
            );
        }
        weights.fingerprint = hex(&weights.digest()?);
        if let Some(recorded) = recorded.map(|bytes| hex(&bytes))
            && recorded != weights.fingerprint
        {
            let found = weights.fingerprint;
            let problem = format!(
                "damaged: its tensors have fingerprint {found}, and it was written with {recorded}"
            );
            return Err(Error::file(path, problem));
        }
        Ok(weights)
    }

    fn take(&mut self, architecture: Architecture, name: String, tensor: Tensor) -> Result<()> {
        let canonical = match classify(architecture, &name) {
            Name::Encoder(canonical) => canonical,
            Name::Unused => {
                if architecture.in_head(&name) && tensor.f_is_floating_point()? {
                    self.head.insert(name, tensor.f_to_kind(Kind::Float)?.f_detach()?);
                }
                return Ok(());
            }
            Name::Unknown => {
                self.left_aside.push(name);
                return Ok(());
            }
        };
        let tensor = match tensor.f_kind()? {
            Kind::Float => tensor.f_contiguous()?,
            // Every half-precision number is an fp32 number.
            Kind::Half | Kind::BFloat16 => tensor.f_to_kind(Kind::Float)?.f_contiguous()?,
            kind => {
                return Err(self.problem(
                    &name,
                    "float32, float16 or bfloat16".into(),
                    format!("{kind:?}"),
                ));
            }
        };
        let tensor = tensor.f_detach()?.f_set_requires_grad(false)?;
        self.tensors.insert(canonical.clone(), tensor);
        if let Some(other) = self.written.insert(canonical, name.clone()) {
            return Err(self.problem(
                &name,
                "one name for each tensor".into(),
                format!("{other} as well"),
            ));
        }
        Ok(())
    }

    fn problem(&self, tensor: &str, expected: String, found: String) -> Error {
        Error::Tensor { path: self.path.clone(), tensor: tensor.into(), expected, found }
    }

    fn digest(&self) -> Result<Vec<u8>> {
        let mut hash = Sha256::new();
        let mut bytes = Vec::new();
        for (name, tensor) in &self.tensors {
            hash.update(format!("{name} {:?}\n", tensor.size()));
            let count = tensor.numel();
            bytes.resize(4 * count, 0);
            tensor.f_copy_data_u8(&mut bytes, count)?;
            hash.update(&bytes);
        }
        Ok(hash.finalize().to_vec())
    }

    /// Whether the file has any tensor below the module `canonical`.
    pub fn has_module(&self, canonical: &str) -> bool {
        self.tensors
            .keys()
            .any(|name| name.strip_prefix(canonical).is_some_and(|rest| rest.starts_with('.')))
    }

    /// Checks that the tensor `name` is there, in this shape.
    pub fn check(&self, name: &str, shape: &[i64]) -> Result<()> {
        let Some(tensor) = self.tensors.get(name) else {
            let expected = format!("float32 {shape:?}");
            return Err(self.problem(name, expected, "no such tensor".into()));
        };
        if tensor.size() == shape {
            return Ok(());
        }
        let written = self.written.get(name).map_or(name, String::as_str);
        let expected = format!("float32 {shape:?} by config.json");
        Err(self.problem(written, expected, format!("float32 {:?}", tensor.size())))
    }

    /// The head that the file has, if it is a classifier's, by canonical name.
    pub fn head(&self) -> BTreeMap<String, Tensor> {
        self.head.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// Moves the tensors into the store, whose variables must be these and no others, those in `new` aside.
    pub fn fill(mut self, store: &nn::VarStore, new: &[String]) -> Result<()> {
        for (name, mut variable) in store.variables().into_iter().collect::<BTreeMap<_, _>>() {
            if new.contains(&name) {
                continue;
            }
            let shape = variable.size();
            self.check(&name, &shape)?;
            let Some(tensor) = self.tensors.remove(&name) else { continue };
            variable.set_data(&tensor.f_to_device(store.device())?);
        }
        match self.tensors.first_key_value() {
            None => Ok(()),
            Some((name, tensor)) => {
                let found = format!("float32 {:?}", tensor.size());
                Err(self.problem(
                    self.written.get(name).unwrap_or(name),
                    "only tensors that a model of this config.json has".into(),
                    found,
                ))
            }
        }
    }

    /// Writes the tensors and their fingerprint as a TorchScript archive, for `VarStore` and `torch.jit.load`.
    pub fn write_torchscript(&self, path: &Path) -> Result<()> {
        let recorded = Tensor::f_from_slice(&self.digest()?)?;
        let mut named: Vec<(&str, &Tensor)> =
            self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        named.push((FINGERPRINT, &recorded));
        crate::files::replace(path, |file| {
            Tensor::save_multi_to_stream(&named, file)
                .map_err(|e| Error::file(path, format!("cannot write: {e}")))
        })
    }
}

/// Writes a safetensors file, fp32: the same tensors and metadata give the same bytes.
pub fn write_safetensors(
    out: &mut dyn Write,
    path: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<()> {
    // Written here: the safetensors crate orders the metadata by a HashMap, differently each time.
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

fn first_line(error: &dyn std::fmt::Display) -> String {
    error
        .to_string()
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("unknown error")
        .to_owned()
}

fn read_torchscript(path: &Path) -> Result<Vec<(String, Tensor)>> {
    std::fs::metadata(path).map_err(Error::io("read", path))?;
    Tensor::load_multi(path).map_err(|e| {
        Error::file(
            path,
            format!(
                "not a whole TorchScript archive ({}); make it again with bitfit convert",
                first_line(&e)
            ),
        )
    })
}

/// The tensors are pieces of the mapped file, which is returned: read when they are first looked at, and shared by other processes.
fn read_safetensors(
    path: &Path,
    take: &mut dyn FnMut(String, Tensor) -> Result<()>,
) -> Result<Tensor> {
    let broken =
        |problem: String| Error::file(path, format!("not a whole safetensors file: {problem}"));
    let mut file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    let size = file.metadata().map_err(Error::io("read", path))?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| broken(format!("{size} bytes")))?;
    let length = u64::from_le_bytes(length);
    if length > size.saturating_sub(8) || length > 100_000_000 {
        return Err(broken(format!("a header of {length} bytes in a file of {size}")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(Error::io("read", path))?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| broken(format!("its header: {e}")))?;
    let utf8 = path.to_str().ok_or_else(|| Error::file(path, "a path that is not UTF-8"))?;
    let whole = Tensor::f_from_file(utf8, false, size as i64, (Kind::Uint8, tch::Device::Cpu))?;
    for (name, info) in metadata.tensors() {
        let (start, end) =
            (8 + length + info.data_offsets.0 as u64, 8 + length + info.data_offsets.1 as u64);
        if end > size {
            return Err(broken(format!(
                "tensor {name} ends at byte {end}, and the file has {size}"
            )));
        }
        let bytes = whole.f_narrow(0, start as i64, (end - start) as i64)?;
        let kind = match info.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            // Position ids and the like; only their name matters.
            Dtype::I64 => Kind::Int64,
            Dtype::I32 => Kind::Int,
            Dtype::U8 => Kind::Uint8,
            dtype => {
                let expected = "float32, float16 or bfloat16".into();
                return Err(Error::Tensor {
                    path: path.into(),
                    tensor: name,
                    expected,
                    found: format!("{dtype:?}"),
                });
            }
        };
        let shape: Vec<i64> = info.shape.iter().map(|&d| d as i64).collect();
        // Where the file has it askew, it is copied.
        let bytes = if start.is_multiple_of(8) { bytes } else { bytes.f_detach_copy()? };
        take(name, bytes.f_view_dtype(kind)?.f_view(&shape[..])?)?;
    }
    Ok(whole)
}
