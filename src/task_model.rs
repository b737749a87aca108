//! The classifier of one task over a base. The classifier shares the base's tensors, except those
//! that the task replaces or adds.

use crate::base::{Base, BaseInfo};
use crate::error::{Error, Result};
use crate::models::{Classifier, Dropouts, ModelConfig, Task};
use crate::native;
use crate::nn::Pooling;
use crate::random::Random;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Device, Kind, Tensor, nn};

/// A classifier over a base, ready to be frozen and trained, or to predict.
#[derive(Debug)]
pub struct TaskModel {
    /// The base.
    pub base: Arc<BaseInfo>,
    /// The model's shape, with the dropouts that it computes with.
    pub config: ModelConfig,
    /// All tensors, under canonical names. Tensors of the base share the base's memory until they
    /// are set, or an optimizer moves them.
    pub store: nn::VarStore,
    /// The layers over the store's tensors.
    pub classifier: Classifier,
    /// The names of the tensors that the base lacks, sorted.
    pub new: Vec<String>,
    /// The names of the tensors that a method added, sorted.
    pub added: Vec<String>,
    /// The addresses of the base's tensors that the model was given, by name.
    shared: BTreeMap<String, usize>,
}

impl TaskModel {
    /// Makes a classifier with `num_labels` outputs, whose head reads texts by `pooling`. Tensors
    /// that the base lacks are zero until [`TaskModel::initialize`] or a delta sets them.
    /// `dropouts` replaces those of `config.json`.
    ///
    /// The model keeps only those tensors of the base alive that it shares.
    pub fn new(
        base: &Base,
        num_labels: usize,
        pooling: Pooling,
        dropouts: Option<Dropouts>,
    ) -> Result<Self> {
        let mut config = base.info.config.clone();
        config.dropouts = dropouts.unwrap_or(config.dropouts);
        let store = nn::VarStore::new(base.device());
        let mut classifier = Classifier::new(&store.root(), &config, num_labels, pooling)?;
        let (mut new, mut shared) = (vec![], BTreeMap::new());
        for (name, mut variable) in store.variables() {
            match base.tensors().get(&name) {
                Some(tensor) => {
                    variable.f_set_data(tensor)?;
                    shared.insert(name, tensor.data_ptr() as usize);
                }
                None => new.push(name),
            }
        }
        new.sort();
        allocate(&store, &new)?;
        classifier.join()?;
        let (base, added) = (base.info.clone(), vec![]);
        Ok(Self { base, config, store, classifier, new, added, shared })
    }

    /// Makes the classifier whose head is in the weight file.
    ///
    /// Returns an error unless `architectures` in `config.json` names the classifier's class, or is
    /// missing while the weights have a head.
    pub fn saved(base: &Base) -> Result<(Self, Task)> {
        let path = base.info.dir.join("config.json");
        let architecture = base.info.config.architecture;
        let longest = usize::try_from(base.info.config.max_length()).unwrap_or(0);
        let has = |name: &String| base.weights().head_shape(name).is_some();
        let has_head = architecture.new_head().iter().all(has);
        let Some(task) = Task::saved(&path, architecture, has_head, longest)? else {
            let class = architecture.class;
            let problem = format!(
                "a base without a task (its architectures are not {class}); name a task with --delta or --run, or tasks with --tasks"
            );
            return Err(Error::file(&path, problem));
        };
        let output = architecture.output_weight();
        let rows = base.weights().head_shape(&output).and_then(|shape| shape.first().copied());
        let outputs = task.outputs();
        if let Some(rows) = rows.filter(|rows| usize::try_from(*rows) != Ok(outputs)) {
            let problem = format!(
                "{outputs} labels by id2label and num_labels (2 where neither is there), and {output} of {} has {rows} rows; expected one a label",
                base.info.file.display()
            );
            return Err(Error::file(&path, problem));
        }
        let mut model = Self::new(base, outputs, task.pooling, None)?;
        let shapes = model.shapes();
        for name in model.new.clone() {
            let shape = shapes.get(&name).map(Vec::as_slice).unwrap_or_default();
            model.set(&name, &base.weights().head(&name, shape)?)?;
        }
        Ok((model, task))
    }

    /// The shape of each tensor, by name.
    pub fn shapes(&self) -> BTreeMap<String, Vec<i64>> {
        self.store.variables().into_iter().map(|(name, tensor)| (name, tensor.size())).collect()
    }

    /// The name of the first tensor that contains NaN or infinity, among those that `of` selects by
    /// name and value.
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

    /// Computes the layers' products in `kind`, and keeps their weights in `kind`. Parameters that
    /// train, residuals and LayerNorm stay in fp32. On a GPU, the inputs and outputs of products,
    /// of attention and of the activation have this kind too.
    pub fn set_precision(&mut self, kind: Kind) -> Result<()> {
        if kind == Kind::BFloat16 && !self.device().is_cuda() && !native::multiplies_bfloat16() {
            tracing::warn!(
                "this processor does not multiply bfloat16: products take {:.1} times as long as in fp32",
                native::product_time_ratio(kind)?
            );
        }
        if kind != Kind::Float && !self.device().is_cuda() {
            native::check_product(kind)?;
        }
        self.classifier.keep_in(kind)
    }

    /// Draws new weights as Hugging Face does: from normal(0, initializer_range), biases zero. The
    /// values depend only on the seed.
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
            copy(variable, &Tensor::f_from_slice(&values)?.f_view(&variable.size()[..])?)?;
        }
        Ok(())
    }

    /// Calls `place` to put a method's tensors into the store and the layers. The tensors take no
    /// memory until [`TaskModel::allocate_added`].
    pub fn place(
        &mut self,
        place: impl FnOnce(&mut Classifier, &nn::Path<'_>, &ModelConfig) -> Result<()>,
    ) -> Result<()> {
        let before = self.shapes();
        place(&mut self.classifier, &self.store.root(), &self.config)?;
        let mut added: Vec<String> = self.shapes().into_keys().collect();
        added.retain(|name| !before.contains_key(name));
        self.added.extend(added);
        self.added.sort();
        Ok(())
    }

    /// Gives the tensors that a method placed zeroed memory of their own.
    pub fn allocate_added(&mut self) -> Result<()> {
        allocate(&self.store, &self.added)
    }

    /// Sets the tensors that a method added to the values that `initial` draws for each name and
    /// shape. The values depend only on the seed and the name.
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
            copy(variable, &Tensor::f_from_slice(&values)?.f_view(&shape[..])?)?;
        }
        Ok(())
    }

    /// Copies `tensor` into the variable `name`. A variable that shares the base's memory gets its
    /// own memory first.
    pub fn set(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        self.set_all([(name, tensor)])
    }

    /// Copies each tensor into the variable of its name, as [`TaskModel::set`] does.
    pub fn set_all<'a>(
        &mut self,
        tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<()> {
        let variables = self.store.variables();
        for (name, tensor) in tensors {
            let variable = variables.get(name);
            let variable =
                variable.ok_or_else(|| Error::Bug(format!("{name} is not in the store")))?;
            if self.shared.get(name) == Some(&(variable.data_ptr() as usize)) {
                let own = Tensor::f_empty(variable.size(), (variable.kind(), variable.device()))?;
                variable.shallow_clone().f_set_data(&own)?;
            }
            copy(variable, tensor)?;
        }
        Ok(())
    }
}

/// Gives the variables `names` zeroed memory of their own.
fn allocate(store: &nn::VarStore, names: &[String]) -> Result<()> {
    for (_, mut variable) in store.variables().into_iter().filter(|(name, _)| names.contains(name))
    {
        let zeros = Tensor::f_zeros(variable.size(), (Kind::Float, store.device()))?;
        variable.f_set_data(&zeros)?;
    }
    Ok(())
}

fn copy(variable: &Tensor, tensor: &Tensor) -> Result<()> {
    let _guard = tch::no_grad_guard();
    Ok(variable.shallow_clone().f_copy_(tensor)?)
}
