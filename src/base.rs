//! A base: the frozen weights of a model directory, shared by all task models built on it. Nothing
//! writes to these weights.

use crate::error::{Error, Result};
use crate::models::{ARCHITECTURES, Architecture, Classifier, ModelConfig};
use crate::nn::Pooling;
use crate::weights::{self, Mapped, Weights};
use crate::{native, threads};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Kind, Tensor, nn};

/// The description of a base, without its tensors.
#[derive(Debug)]
pub struct BaseInfo {
    /// The model directory.
    pub dir: PathBuf,
    /// The weight file that was read; for sharded weights, the index.
    pub file: PathBuf,
    /// The model's shape, with the dropouts of `config.json`.
    pub config: ModelConfig,
    /// SHA-256 of the encoder's tensors, in hex.
    pub fingerprint: String,
    /// The mapped weight files that the base's tensors are views of.
    mapped: Vec<Arc<Mapped>>,
}

impl BaseInfo {
    /// Checks that the mapped weight files have not changed since they were read. Returns an error
    /// if something was written to them.
    pub fn check_unchanged(&self) -> Result<()> {
        // Read once for all files, since reading one reads all.
        let mut same = None;
        let mut holds_the_same = || match same {
            Some(same) => Ok(same),
            None => {
                let again = Weights::read(&self.config, &self.file)?;
                Ok(*same.insert(again.fingerprint == self.fingerprint))
            }
        };
        self.mapped.iter().try_for_each(|file| file.check_unchanged(&mut holds_the_same))
    }
}

/// A base on its device.
#[derive(Debug)]
pub struct Base {
    /// The description of the base.
    pub info: Arc<BaseInfo>,
    weights: Weights,
    device: Device,
    /// The encoder's tensors, by canonical name. A layer's query, key and value weights are
    /// contiguous in memory, in this order.
    tensors: BTreeMap<String, Tensor>,
}

impl Base {
    /// Reads `config.json` and the weights of `dir` onto `device`. `named` selects one weight file.
    ///
    /// Changes the whole process: libtorch's thread count becomes what OpenMP gives
    /// ([`native::fit_threads`]), and from then on large CPU tensors come from a pool
    /// ([`native::use_memory_pool`]).
    ///
    /// Returns an error if `dir` has several readable weight files with different tensors.
    pub fn read(dir: &Path, named: Option<&str>, device: Device) -> Result<Self> {
        Self::read_among(&ARCHITECTURES, dir, named, device)
    }

    /// Like [`Base::read`], where the supported architectures are `architectures`.
    pub fn read_among(
        architectures: &[Architecture],
        dir: &Path,
        named: Option<&str>,
        device: Device,
    ) -> Result<Self> {
        let names = || weights::names(&weights::find(dir, named)?);
        let config = ModelConfig::read_among(architectures, dir, names)?;
        for remark in &config.remarks {
            tracing::warn!("{}: {remark}", dir.join("config.json").display());
        }
        let weights = read_weights(dir, named, &config)?;
        if !device.is_cuda() {
            native::check_cpu_level()?;
            native::check_cache_capacity()?;
            native::check_product(Kind::Float)?;
        }
        let info = BaseInfo {
            dir: dir.to_owned(),
            file: weights.path.clone(),
            fingerprint: weights.fingerprint.clone(),
            // Tensors on another device are copies, so later writes to the files do not matter.
            mapped: if device == Device::Cpu { weights.mapped() } else { vec![] },
            config,
        };
        let mut store = nn::VarStore::new(device);
        let mut classifier = Classifier::new(&store.root(), &info.config, 1, Pooling::First)?;
        store.freeze();
        let mut tensors: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        tensors.retain(|name, _| weights.has(name));
        weights.fill(&tensors, device)?;
        classifier.join()?;
        // Hashing read every page of the files. Drop these pages: training needs only some rows of
        // the embeddings.
        weights.sources.iter().for_each(|source| native::forget(&source.bytes));
        native::use_memory_pool();
        Ok(Self { info: Arc::new(info), weights, device, tensors })
    }

    /// Whether the base lacks the dense layer that its architecture has before the output layer:
    /// BERT's pooler.
    pub fn lacks_pooler(&self) -> bool {
        let pooler = self.info.config.architecture.pooler();
        pooler.is_some_and(|pooler| !self.weights.has_module(pooler))
    }

    /// The device of the base's tensors.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The encoder's tensors, by canonical name. Callers must not write to them.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// The weight file, which may also hold the tensors of a classifier head.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Converts the weights of the dense layers to `kind`. Only for models that compute their
    /// products in `kind` and train none of these weights.
    pub fn keep_in(&mut self, kind: Kind) -> Result<()> {
        if kind == Kind::Float {
            return Ok(());
        }
        let mut store = nn::VarStore::new(self.device);
        let mut classifier = Classifier::new(&store.root(), &self.info.config, 1, Pooling::First)?;
        // Weights that train would stay in fp32.
        store.freeze();
        let mut variables = store.variables();
        for (name, tensor) in &mut self.tensors {
            let variable = variables.get_mut(name);
            let variable = variable.ok_or_else(|| Error::Bug(format!("{name} is in no layer")))?;
            variable.f_set_data(tensor)?;
            *tensor = variable.shallow_clone();
        }
        classifier.keep_in(kind)
    }
}

/// Reads the weight files of `dir` and returns the preferred one. Returns an error if another
/// readable file has a different fingerprint.
fn read_weights(dir: &Path, named: Option<&str>, config: &ModelConfig) -> Result<Weights> {
    let files = weights::find(dir, named)?;
    // Conversion to float32 runs on libtorch's threads.
    native::fit_threads()?;
    // Hashing takes most of the time, so each file gets its own thread.
    let mut read = threads::each(&files, &|path| Weights::read(config, path)).into_iter();
    let weights = read.next().ok_or_else(|| Error::Bug("no weight file was read".into()))??;
    weights.warn();
    for other in read {
        let other = match other {
            Ok(other) => other,
            Err(error) => {
                let used = weights.path.display();
                tracing::warn!("{used} is used, though another is there: {error}");
                continue;
            }
        };
        let (fingerprint, found) = (&weights.fingerprint, &other.fingerprint);
        if found != fingerprint {
            let (first, other) = (weights.path.display(), other.path.display());
            let problem = format!(
                "two weight files of different models: {first} has fingerprint {fingerprint}, {other} has {found}; \
                 remove the wrong one, or name one with model.weights"
            );
            return Err(Error::file(dir, problem));
        }
    }
    Ok(weights)
}
