//! The base: a model directory, read into a `VarStore` and a classifier, with a new head where it has none.

use crate::error::{Error, Result};
use crate::models::{Classifier, Dropouts, ModelConfig, SavedTask};
use crate::weights::{self, Mapped, Weights};
use crate::{native, threads};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Kind, Tensor, nn};

/// A base model on its device, ready to be frozen.
#[derive(Debug)]
pub struct Base {
    /// The directory.
    pub dir: PathBuf,
    /// The weight file that was read.
    pub file: PathBuf,
    /// The model's shape.
    pub config: ModelConfig,
    /// All tensors, under canonical names.
    pub store: nn::VarStore,
    /// The model over the store's tensors.
    pub model: Classifier,
    /// Of the encoder's tensors as they are in the base.
    pub fingerprint: String,
    /// The tensors that the base lacks, sorted.
    pub new: Vec<String>,
    /// Those that a method added, sorted.
    pub added: Vec<String>,
    /// The weight files that tensors are pieces of.
    mapped: Vec<Arc<Mapped>>,
}

/// A base directory read and checked, before the number of labels is known.
#[derive(Debug)]
pub struct BaseFiles {
    dir: PathBuf,
    /// The model's shape.
    pub config: ModelConfig,
    weights: Weights,
}

impl BaseFiles {
    /// Reads `config.json` and the weights of `dir`; where several weight files are there, all must hold the same tensors.
    pub fn read(dir: &Path, named: Option<&str>) -> Result<Self> {
        let names = || weights::names(&weights::find(dir, named)?);
        let config = ModelConfig::read(dir, names)?;
        for remark in &config.remarks {
            tracing::warn!("{}: {remark}", dir.join("config.json").display());
        }
        let files = weights::find(dir, named)?;
        // Numbers of other types are made float32 by many threads.
        native::fit_threads()?;
        // Hashing is most of the work, so each file has its thread.
        let mut read = threads::each(&files, &|path| Weights::read(&config, path)).into_iter();
        let weights = read.next().ok_or_else(|| Error::Bug("no weight file was read".into()))??;
        weights.warn();
        for other in read {
            let other = match other {
                Ok(other) => other,
                Err(error) => {
                    tracing::warn!(
                        "{} is used, though another is there: {error}",
                        weights.path.display()
                    );
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
        Ok(Self { dir: dir.to_owned(), config, weights })
    }

    /// Builds the classifier with the head that its weight file has, if `config.json` says that it is a classifier, or says nothing.
    pub fn build_saved(self, device: Device) -> Result<(Base, SavedTask)> {
        let path = self.dir.join("config.json");
        let architecture = self.config.architecture;
        let has = |name: &String| self.weights.head_shape(name).is_some();
        let has_head = architecture.new_head().iter().all(has);
        let Some(task) = SavedTask::read(&path, architecture, has_head)? else {
            let class = architecture.class();
            let problem = format!(
                "a base without a task (its architectures are not {class}); name a task with --delta or --run"
            );
            return Err(Error::file(&path, problem));
        };
        let output = architecture.output_weight();
        let rows = self.weights.head_shape(&output).and_then(|shape| shape.first().copied());
        let outputs = task.task_type.outputs(task.labels.len());
        if let Some(rows) = rows.filter(|rows| usize::try_from(*rows) != Ok(outputs)) {
            let problem = format!(
                "{outputs} labels by id2label and num_labels (2 where neither is there), and {output} of {} has {rows} rows; expected one a label",
                self.weights.path.display()
            );
            return Err(Error::file(&path, problem));
        }
        let mut base = self.assemble(outputs, None, device)?;
        let shapes = base.shapes();
        for name in base.new.clone() {
            let shape = shapes.get(&name).map(Vec::as_slice).unwrap_or_default();
            base.set(&name, &self.weights.head(&name, shape)?)?;
        }
        Ok((base, task))
    }

    /// Builds the classifier for `num_labels` on `device`. What the base lacks is zero until [`Base::initialize`] or a delta.
    pub fn build(
        self,
        num_labels: usize,
        dropouts: Option<Dropouts>,
        device: Device,
    ) -> Result<Base> {
        self.assemble(num_labels, dropouts, device)
    }

    fn assemble(
        &self,
        num_labels: usize,
        dropouts: Option<Dropouts>,
        device: Device,
    ) -> Result<Base> {
        let Self { dir, config, weights } = self;
        native::fit_threads()?;
        if !device.is_cuda() {
            native::check_product(Kind::Float)?;
        }
        let mut config = config.clone();
        config.dropouts = dropouts.unwrap_or(config.dropouts);
        let architecture = config.architecture;
        let lost = architecture.pooler().filter(|pooler| !weights.has_module(pooler));
        let store = nn::VarStore::new(device);
        let mut model = Classifier::new(&store.root(), &config, num_labels)?;
        let mut new: Vec<String> = store.variables().into_keys().collect();
        new.retain(|name| {
            architecture.in_head(name) || lost.is_some_and(|pooler| name.starts_with(pooler))
        });
        new.sort();
        let (file, fingerprint) = (weights.path.clone(), weights.fingerprint.clone());
        weights.fill(&store, &new)?;
        allocate(&store, &new)?;
        model.join()?;
        // The fingerprint took all of it, and training takes some rows of the embeddings.
        weights.sources.iter().for_each(|source| native::forget(&source.bytes));
        // What is on another device was copied there.
        let mapped = if device == Device::Cpu { weights.mapped() } else { vec![] };
        native::pool_memory();
        if lost.is_some() {
            tracing::warn!(
                "{} has no pooler: it is new, trains whole, and is saved with the task",
                file.display()
            );
        }
        let (dir, added) = (dir.clone(), vec![]);
        Ok(Base { dir, file, config, store, model, fingerprint, new, added, mapped })
    }
}

impl Base {
    /// The shape of each tensor, by name.
    pub fn shapes(&self) -> BTreeMap<String, Vec<i64>> {
        self.store.variables().into_iter().map(|(name, tensor)| (name, tensor.size())).collect()
    }

    /// Checks that nothing was written to the weight files since they were read, where tensors are pieces of them.
    pub fn check_unchanged(&self) -> Result<()> {
        let holds_the_same = || {
            let again = Weights::read(&self.config, &self.file)?;
            Ok(again.fingerprint == self.fingerprint)
        };
        self.mapped.iter().try_for_each(|file| file.check_unchanged(holds_the_same))
    }

    /// The first of the tensors which `of` picks, by name and value, that holds NaN or infinity.
    pub fn not_finite(&self, of: impl Fn(&str, &Tensor) -> bool) -> Result<Option<String>> {
        for (name, tensor) in self.store.variables().into_iter().collect::<BTreeMap<_, _>>() {
            if of(&name, &tensor) && !bool::try_from(tensor.f_isfinite()?.f_all()?)? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// The device that the model is on.
    pub fn device(&self) -> Device {
        self.store.device()
    }

    /// Makes the layers' products in `kind`, their weights kept in it; those that train stay in fp32, and biases are added in it.
    ///
    /// On the CPU everything else stays fp32 too, which only products are slower in.
    pub fn set_precision(&mut self, kind: Kind) -> Result<()> {
        if kind == Kind::BFloat16 && !self.device().is_cuda() && !native::multiplies_bfloat16() {
            tracing::warn!(
                "this processor does not multiply bfloat16: products take longer than in fp32"
            );
        }
        if kind != Kind::Float && !self.device().is_cuda() {
            native::check_product(kind)?;
        }
        let between = if self.device().is_cuda() { kind } else { Kind::Float };
        self.model.set_kinds(kind, between)
    }

    /// Draws new weights as Hugging Face does, normal(0, initializer_range), biases zero; a function of the seed alone.
    pub fn initialize(&mut self, seed: u64) -> Result<()> {
        let variables = self.store.variables();
        for (stream, name) in self.new.iter().enumerate() {
            let Some(variable) = variables.get(name) else { continue };
            let mut random = Random::new(seed, stream as u64);
            let values: Vec<f32> = if name.ends_with(".bias") {
                vec![0.0; variable.numel()]
            } else {
                (0..variable.numel())
                    .map(|_| (random.normal() * self.config.initializer_range) as f32)
                    .collect()
            };
            set(variable, &Tensor::f_from_slice(&values)?.f_view(&variable.size()[..])?)?;
        }
        Ok(())
    }

    /// Lets `place` put a method's tensors into the store and the model; they take no memory until [`Base::allocate_added`].
    pub fn place(
        &mut self,
        place: impl FnOnce(&mut Classifier, &nn::Path<'_>, &ModelConfig) -> Result<()>,
    ) -> Result<()> {
        let before = self.shapes();
        place(&mut self.model, &self.store.root(), &self.config)?;
        let mut added: Vec<String> = self.shapes().into_keys().collect();
        added.retain(|name| !before.contains_key(name));
        self.added.extend(added);
        self.added.sort();
        Ok(())
    }

    /// Gives what a method placed memory of its own, zero.
    pub fn allocate_added(&mut self) -> Result<()> {
        allocate(&self.store, &self.added)
    }

    /// Gives what a method added the values that `initial` draws for each name and shape; a function of seed and name alone.
    pub fn draw_added(
        &mut self,
        seed: u64,
        initial: impl Fn(&str, &[i64], &mut Random) -> Vec<f32>,
    ) -> Result<()> {
        let variables = self.store.variables();
        for (name, variable) in self.added.iter().filter_map(|name| variables.get_key_value(name)) {
            let hash = Sha256::digest(name);
            let stream = hash.iter().take(8).fold(0, |n, &byte| n << 8 | u64::from(byte));
            let shape = variable.size();
            let values = initial(name, &shape, &mut Random::new(seed, stream));
            set(variable, &Tensor::f_from_slice(&values)?.f_view(&shape[..])?)?;
        }
        Ok(())
    }

    /// Copies `tensor` into the variable `name`.
    pub fn set(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let variables = self.store.variables();
        let variable =
            variables.get(name).ok_or_else(|| Error::Bug(format!("{name} is not in the store")))?;
        set(variable, tensor)
    }
}

/// Gives the variables `names` memory of their own, zero.
fn allocate(store: &nn::VarStore, names: &[String]) -> Result<()> {
    for (_, mut variable) in store.variables().into_iter().filter(|(name, _)| names.contains(name))
    {
        let zeros = Tensor::f_zeros(variable.size(), (Kind::Float, store.device()))?;
        variable.f_set_data(&zeros)?;
    }
    Ok(())
}

fn set(variable: &Tensor, tensor: &Tensor) -> Result<()> {
    let _guard = tch::no_grad_guard();
    Ok(variable.shallow_clone().f_copy_(tensor)?)
}

/// A stream of random numbers.
pub struct Random(ChaCha8Rng);

impl Random {
    fn new(seed: u64, stream: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(stream);
        Self(random)
    }

    /// From 0 and below 1.
    fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From `low` and below `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Standard normal (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let (a, b) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}
