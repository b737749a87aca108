//! Loading of a base's weight files: safetensors, PyTorch's pickles and TorchScript archives, in
//! one file or sharded with an index. Names, dtypes and shapes are compared with the model before
//! any tensor data is read.
//!
//! The files in reading order; each imports only from those before it: `mapped`, `stored`,
//! `safetensors`, `pickle`, `archive`, `legacy`, `pytorch`, `index`.

mod archive;
mod index;
mod legacy;
mod mapped;
mod pickle;
mod pytorch;
mod safetensors;
mod stored;

pub use index::shards;
pub use mapped::Mapped;
pub use safetensors::write as write_safetensors;

use crate::error::{Error, Result};
use crate::files::hex;
use crate::models::{ARCHITECTURES, Architecture, Classifier, ModelConfig, Name, classify};
use index::Index;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
pub use stored::Source;
use stored::{Stored, each_piece, short};
use tch::{Device, Kind, Tensor};

/// The weight files of a local model directory, in the order of preference. An index stands for all
/// its files.
pub const LOCAL_FILES: [&str; 5] = [
    "model.ot",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The weight files of a repository of the Hub, in the order of preference. safetensors comes
/// first, because it holds nothing but tensors.
pub const HUB_FILES: [&str; 5] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.ot",
];

/// Weight files of other frameworks. An error names them if there are no others.
pub const OTHER_FRAMEWORKS: [(&str, &str); 5] = [
    ("tf_model.h5", "TensorFlow"),
    ("flax_model.msgpack", "Flax"),
    ("model.onnx", "ONNX"),
    ("onnx/model.onnx", "ONNX"),
    ("openvino_model.xml", "OpenVINO"),
];

/// The tensor that holds the fingerprint's 32 bytes, in a TorchScript archive that bitfit wrote.
const FINGERPRINT: &str = "bitfit_fingerprint";

/// The dtypes that a model's tensors may have in a file.
const READ: &str = "float32, float16, bfloat16 or float64";

/// The encoder of a base in its weight files. The tensors are complete, and match `config.json`.
#[derive(Debug)]
pub struct Weights {
    /// The weight file; for sharded weights, the index.
    pub path: PathBuf,
    /// SHA-256, in hex, over the tensors by sorted canonical name: name, shape, fp32 bytes. Equal
    /// for every format of one base.
    pub fingerprint: String,
    /// The mapped files that hold the tensors.
    pub sources: Vec<Source>,
    /// The encoder's tensors, by canonical name.
    tensors: BTreeMap<String, TensorEntry>,
    /// The classifier head's tensors, if the file has them, by canonical name.
    head: BTreeMap<String, TensorEntry>,
    /// Unused tensors, by their names in the file.
    unused: BTreeSet<String>,
    /// A message with the number of layers in `config.json`, if the file has more layers.
    more_layers: Option<String>,
}

/// The location of a tensor.
#[derive(Debug)]
struct TensorEntry {
    /// Index of the tensor's file in `Weights::sources`.
    file: usize,
    /// The tensor's name in the file.
    name: String,
    stored: Stored,
}

/// The weight files in the base's directory `dir`, the preferred one first; or only `named`, which
/// the configuration names. Returns an error if `dir` has no weight file.
pub fn find(dir: &Path, named: Option<&str>) -> Result<Vec<PathBuf>> {
    if let Some(name) = named {
        return Ok(vec![dir.join(name)]);
    }
    let mut found = vec![];
    for name in LOCAL_FILES {
        let path = dir.join(name);
        if crate::files::is_there(&path)? {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Error::file(dir, nothing_there(|name| dir.join(name).exists())));
    }
    Ok(found)
}

/// The error message for a directory without weights that can be read. The message names another
/// framework's weights if there are any.
pub fn nothing_there(is_there: impl Fn(&str) -> bool) -> String {
    let expected = LOCAL_FILES.join(", ");
    let Some((name, framework)) = OTHER_FRAMEWORKS.into_iter().find(|(name, _)| is_there(name))
    else {
        return format!("no weights found; expected one of {expected}");
    };
    let advice = match framework {
        "TensorFlow" => {
            "in Python, with TensorFlow and transformers 4: AutoModel.from_pretrained(DIR, from_tf=True).save_pretrained(DIR)"
        }
        "Flax" => {
            "in Python, with Flax and transformers 4: AutoModel.from_pretrained(DIR, from_flax=True).save_pretrained(DIR)"
        }
        _ => "use the PyTorch model that it was exported from",
    };
    format!("found only weights of {framework} ({name}), expected one of {expected}; {advice}")
}

/// Lists the tensors of a file. The ending decides between safetensors and PyTorch, and the
/// contents between PyTorch's formats.
fn list(path: &Path) -> Result<(Source, Vec<(String, Stored)>)> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("safetensors") => safetensors::list(path),
        _ => pytorch::list(path),
    }
}

/// Lists the tensors of a weight file, or of all files of an index. Returns an error unless each
/// file holds exactly the tensors that the index names for it.
fn listed(path: &Path) -> Result<(Vec<Source>, Vec<TensorEntry>)> {
    let place =
        |file: usize| move |(name, stored): (String, Stored)| TensorEntry { file, name, stored };
    if !path.as_os_str().as_encoded_bytes().ends_with(index::ENDING.as_bytes()) {
        let (source, tensors) = list(path)?;
        return Ok((vec![source], tensors.into_iter().map(place(0)).collect()));
    }
    let index = Index::read(path)?;
    let named = path.file_name().unwrap_or_default().to_string_lossy();
    let (mut sources, mut places) = (vec![], vec![]);
    for (file, name) in index.files().into_iter().enumerate() {
        let shard = path.with_file_name(name);
        if !crate::files::is_there(&shard)? {
            return Err(Error::file(&shard, format!("no such file, but {named} lists it")));
        }
        let (source, tensors) = list(&shard)?;
        let wrong = |tensor: &str, expected: String, found: String| {
            Err(Error::Tensor { path: shard.clone(), tensor: short(tensor), expected, found })
        };
        let mut missing: BTreeSet<&str> = index.tensors_of(name).collect();
        for (tensor, stored) in &tensors {
            if !missing.remove(tensor.as_str()) {
                let expected = format!("only tensors that {named} lists for this file");
                return wrong(tensor, expected, stored.described());
            }
        }
        if let Some(tensor) = missing.first() {
            let expected = format!("the tensors that {named} lists for this file");
            return wrong(tensor, expected, "no such tensor".into());
        }
        places.extend(tensors.into_iter().map(place(file)));
        sources.push(source);
    }
    Ok((sources, places))
}

/// The names of the tensors in the first of `files`, the preferred one.
pub fn names(files: &[PathBuf]) -> Result<Vec<String>> {
    let Some(path) = files.first() else { return Ok(vec![]) };
    let (_, places) = listed(path)?;
    Ok(places.into_iter().map(|place| place.name).collect())
}

impl Weights {
    /// Reads the encoder of `config` from `path`: a weight file, or an index. Returns an error if a
    /// tensor is missing, does not match `config`, or is damaged.
    pub fn read(config: &ModelConfig, path: &Path) -> Result<Self> {
        let (sources, places) = listed(path)?;
        let mut weights = Self {
            path: path.to_owned(),
            fingerprint: String::new(),
            tensors: BTreeMap::new(),
            sources,
            head: BTreeMap::new(),
            unused: BTreeSet::new(),
            more_layers: None,
        };
        let recorded = weights.take(config.architecture, places)?;
        weights.fit(config)?;
        for (file, storage) in weights.storages() {
            weights.file(file)?.check(&storage)?;
        }
        weights.fingerprint = hex(&weights.digest()?);
        if let Some(recorded) = recorded
            && recorded != weights.fingerprint
        {
            let found = weights.fingerprint;
            let problem =
                format!("damaged: expected tensors with fingerprint {recorded}, found {found}");
            return Err(Error::file(path, problem));
        }
        Ok(weights)
    }

    /// Assigns each tensor to the encoder, the head or the unused tensors, by its name. Returns the
    /// fingerprint that the file records, if any.
    fn take(
        &mut self,
        architecture: Architecture,
        places: Vec<TensorEntry>,
    ) -> Result<Option<String>> {
        let outer = outer(architecture, &places).to_owned();
        let mut recorded = None;
        for place in places {
            if place.name == FINGERPRINT && place.stored.bytes() == Some(32) {
                let bytes = place.stored.load(self.file(place.file)?)?;
                recorded = Some(hex(&Vec::<u8>::try_from(bytes.f_view(-1)?)?));
                continue;
            }
            let name = place.name.strip_prefix(&outer).unwrap_or(&place.name).to_owned();
            let other = match classify(architecture, &name) {
                Name::Encoder(canonical) => self.tensors.insert(canonical, place),
                Name::Unused if architecture.in_head(&name) => {
                    self.head.insert(name.clone(), place)
                }
                Name::Unused => None,
                Name::Unknown => {
                    self.unused.insert(place.name);
                    None
                }
            };
            if let Some(other) = other {
                let found = format!("{} as well", short(&name));
                return Err(self.wrong(&other, "one name for each tensor".into(), found));
            }
        }
        Ok(recorded)
    }

    /// Compares the file's tensors with the model in `config.json`. Other tensors are left aside
    /// with a warning, as in transformers.
    fn fit(&mut self, config: &ModelConfig) -> Result<()> {
        // The check comes before the model is built, because a config.json may state any size.
        for (name, shape) in config.landmarks() {
            self.check(&name, &shape)?;
        }
        self.more_layers = self.tensors.keys().find_map(|name| config.no_layer(name));
        let shapes = Classifier::encoder_shapes(config)?;
        let lost = config.architecture.pooler().filter(|pooler| !self.has_module(pooler));
        let is_lost = |name: &str| lost.is_some_and(|pooler| name.starts_with(pooler));
        for (name, shape) in shapes.iter().filter(|(name, _)| !is_lost(name)) {
            self.check(name, shape)?;
        }
        let is_unread = |(name, _): &(&String, &TensorEntry)| !shapes.contains_key(*name);
        let rest = self.tensors.iter().filter(is_unread).map(|(_, place)| place.name.clone());
        self.unused.extend(rest);
        self.tensors.retain(|name, _| shapes.contains_key(name));
        // Tensors may share a storage, as tied word embeddings do, but not all tensors of a file.
        let there: u64 = self.sources.iter().map(|file| file.bytes.numel() as u64).sum();
        let taken = self.tensors.values().filter_map(|place| place.stored.bytes()).sum::<u64>();
        if taken / 4 > there {
            return Err(Error::file(&self.path, "the tensors are far larger than the file"));
        }
        Ok(())
    }

    /// The error for a tensor, with the path of its file.
    fn wrong(&self, place: &TensorEntry, expected: String, found: String) -> Error {
        let path = self.sources.get(place.file).map_or(&self.path, |source| &source.path);
        Error::Tensor { path: path.clone(), tensor: short(&place.name), expected, found }
    }

    fn file(&self, file: usize) -> Result<&Source> {
        self.sources.get(file).ok_or_else(|| Error::Bug("a tensor of no file".into()))
    }

    /// The storages that the encoder's tensors are views of, each once.
    fn storages(&self) -> BTreeSet<(usize, stored::ByteRange)> {
        self.tensors.values().map(|place| (place.file, place.stored.storage)).collect()
    }

    fn digest(&self) -> Result<Vec<u8>> {
        let mut hash = Sha256::new();
        for (name, place) in &self.tensors {
            hash.update(format!("{name} {:?}\n", place.stored.shape));
            let tensor = place.stored.load(self.file(place.file)?)?;
            each_piece(&tensor, Kind::Float, |bytes| hash.update(bytes))?;
        }
        Ok(hash.finalize().to_vec())
    }

    /// The files that tensors are views of. Tensors of other dtypes than float32 are copies.
    pub fn mapped(&self) -> Vec<Arc<Mapped>> {
        let is_piece = |place: &TensorEntry| place.stored.kind == Some(Kind::Float);
        let files: BTreeSet<usize> =
            self.tensors.values().filter(|place| is_piece(place)).map(|place| place.file).collect();
        let sources = files.into_iter().filter_map(|file| self.sources.get(file));
        sources.map(|source| source.mapped.clone()).collect()
    }

    /// Logs which parts of the file are unused or converted.
    pub fn warn(&self) {
        let path = self.path.display();
        if let Some(first) = self.unused.first() {
            let (count, first) = (self.unused.len(), short(first));
            tracing::warn!("{path}: {count} tensors are not used, such as {first}");
        }
        if let Some(layers) = &self.more_layers {
            tracing::warn!("{path}: the file has more layers than are used: {layers}");
        }
        if self.tensors.values().any(|place| place.stored.kind == Some(Kind::Double)) {
            tracing::info!("{path}: float64 values are rounded to float32");
        }
    }

    /// Whether the file has the encoder's tensor `canonical`.
    pub fn has(&self, canonical: &str) -> bool {
        self.tensors.contains_key(canonical)
    }

    /// Whether the file has any tensor below the module `canonical`.
    pub fn has_module(&self, canonical: &str) -> bool {
        self.tensors
            .keys()
            .any(|name| name.strip_prefix(canonical).is_some_and(|rest| rest.starts_with('.')))
    }

    /// Checks that the encoder has the tensor `name`, in this shape and with a supported dtype.
    fn check(&self, name: &str, shape: &[i64]) -> Result<()> {
        self.fitting(self.tensors.get(name), name, shape).map(drop)
    }

    fn fitting<'a>(
        &self,
        place: Option<&'a TensorEntry>,
        name: &str,
        shape: &[i64],
    ) -> Result<&'a TensorEntry> {
        let Some(place) = place else {
            return Err(Error::Tensor {
                path: self.path.clone(),
                tensor: name.into(),
                expected: format!("{shape:?} by config.json"),
                found: "no such tensor".into(),
            });
        };
        let stored = &place.stored;
        let numbers = [Kind::Float, Kind::Half, Kind::BFloat16, Kind::Double];
        let expected = if stored.kind.is_none_or(|kind| !numbers.contains(&kind)) {
            READ.into()
        } else if stored.shape != shape {
            format!("{shape:?} by config.json")
        } else if stored.bytes().is_none() {
            let found = format!("{}, which reaches beyond its storage", stored.described());
            return Err(self.wrong(place, "a tensor inside its storage".into(), found));
        } else {
            return Ok(place);
        };
        Err(self.wrong(place, expected, stored.described()))
    }

    /// A tensor in fp32: a view of its file if possible, otherwise a copy.
    fn load(&self, place: &TensorEntry) -> Result<Tensor> {
        let tensor = place.stored.load(self.file(place.file)?)?.f_to_kind(Kind::Float)?;
        Ok(tensor.f_detach()?.f_set_requires_grad(false)?)
    }

    /// The shape of the head's tensor `name`; `None` if the file lacks it.
    pub fn head_shape(&self, name: &str) -> Option<&[i64]> {
        self.head.get(name).map(|place| place.stored.shape.as_slice())
    }

    /// The head's tensor `name`. Returns an error if the file lacks it, or has it in another shape.
    pub fn head(&self, name: &str, shape: &[i64]) -> Result<Tensor> {
        let place = self.fitting(self.head.get(name), name, shape)?;
        self.file(place.file)?.check(&place.stored.storage)?;
        self.load(place)
    }

    /// Sets the variables, by canonical name, to the file's tensors on `device`.
    pub fn fill(&self, variables: &BTreeMap<String, Tensor>, device: Device) -> Result<()> {
        for (name, variable) in variables {
            let place = self.fitting(self.tensors.get(name), name, &variable.size())?;
            variable.shallow_clone().f_set_data(&self.load(place)?.f_to_device(device)?)?;
        }
        Ok(())
    }

    /// Writes the tensors and their fingerprint as a TorchScript archive, for `VarStore` and
    /// `torch.jit.load`.
    pub fn write_torchscript(&self, path: &Path) -> Result<()> {
        let mut named = vec![(FINGERPRINT, Tensor::f_from_slice(&self.digest()?)?)];
        for (name, place) in &self.tensors {
            named.push((name, self.load(place)?));
        }
        crate::files::replace(path, |file| {
            Tensor::save_multi_to_stream(&named, file)
                .map_err(|e| Error::file(path, format!("cannot write: {e}")))
        })
    }
}

/// The prefix of all the model's names if another module wraps the model: `model.` in Lightning,
/// `module.` in DataParallel. Empty if no module does.
fn outer<'a>(architecture: Architecture, places: &'a [TensorEntry]) -> &'a str {
    let word = format!("{}.weight", architecture.embedding(architecture.embeddings.word));
    let word = architecture.below_prefix(&word).unwrap_or(&word);
    let before = |place: &'a TensorEntry| place.name.strip_suffix(word);
    let mut found = places.iter().filter_map(before);
    let (Some(before), None) = (found.next(), found.next()) else { return "" };
    let prefix = format!("{}.", architecture.prefix);
    let outer = before.strip_suffix(prefix.as_str()).unwrap_or(before);
    // Another architecture's prefix means another model, and not a module around this one.
    let last = outer.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let is_other = ARCHITECTURES.iter().any(|other| other.prefix == last);
    if outer.ends_with('.') && !is_other { outer } else { "" }
}
