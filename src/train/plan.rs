//! The plan of a run: its data, its model, and what of the model trains. `--dry-run` and `inspect`
//! end here.

use super::data::RunData;
use super::doubts;
use crate::base::Base;
use crate::config::{ClassWeights, Run, RunConfig};
use crate::data::{fits, has_embeddings};
use crate::delta::{self, Meta};
use crate::error::Result;
use crate::files;
use crate::freeze::{FreezePlan, StepCost};
use crate::methods::Method;
use crate::models::{Reading, TargetScale, Task, TaskType, declared_pooling};
use crate::native;
use crate::nn::Pooling;
use crate::sources::{Model, Sources};
use crate::task_model::TaskModel;
use crate::threads;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::{Kind, Tensor};

/// The data and the model of a run, and what of the model trains. Nothing was written, and there is
/// no optimizer.
pub struct ModelPlan {
    /// The data.
    #[doc(hidden)]
    pub data: RunData,
    /// The source of the base.
    #[doc(hidden)]
    pub source: Model,
    /// The model, frozen except for the parameters that train.
    #[doc(hidden)]
    pub model: TaskModel,
    /// The decision for each parameter whether it trains.
    #[doc(hidden)]
    pub freeze: FreezePlan,
    /// The state that the training starts from.
    #[doc(hidden)]
    pub initial: InitialState,
    /// What the targets of a regression are standardized by; `None` if they are not.
    #[doc(hidden)]
    pub target_scale: Option<TargetScale>,
    /// The task, for deltas. The metrics are empty.
    #[doc(hidden)]
    pub meta: Meta,
    /// The resolved configuration, with every key.
    pub resolved: RunConfig,
    /// The run, with what its configuration leaves to the data.
    #[doc(hidden)]
    pub run: Run,
}

/// The state that a training starts from.
pub struct InitialState {
    /// The biases that train, with their values in the base, or zeros if the base lacks them.
    pub biases: BTreeMap<String, Tensor>,
    /// The names of the tensors that may differ from the base.
    pub differs: BTreeSet<String>,
    /// SHA-256 of the file `model.init_delta`; `None` without one.
    pub init_delta_sha256: Option<String>,
}

impl ModelPlan {
    /// Reads the base and the data in parallel, builds the model and freezes it.
    #[doc(hidden)]
    pub fn read(run: &Run, sources: &Sources) -> Result<Self> {
        let Model { dir, weights, .. } = &sources.model;
        let (base, data) = threads::both(
            || Base::read(dir, weights.as_deref(), run.device),
            || RunData::read(run, sources),
        );
        // A missing base is reported before the tokenizer's error, which may follow from it.
        let (base, data) = (base?, data?);
        check_fit(run, dir, &base, &data)?;
        doubts::warn(run, &data);
        Self::new(run, sources, base, data)
    }

    fn new(run: &Run, sources: &Sources, mut base: Base, data: RunData) -> Result<Self> {
        let run = run.clone().with_data(data.size())?;
        let (section, training) = (run.model(), run.training());
        let (task_type, precision) = (section.task_type, training.precision.kind_on(run.device)?);
        let dropouts = run.dropouts(&base.info.config);
        let method = run.method.settled(base.info.config.architecture);
        // Dense weights that stay as in the base need no copy in fp32 beside the one in
        // `precision`.
        if !method.trains_dense_weights() && section.init_delta.is_none() {
            base.keep_in(precision)?;
        }
        let outputs = task_type.outputs(data.labels.names.len());
        let pooling = pooling(&run, &base)?;
        let mut model = TaskModel::new(&base, outputs, pooling, Some(dropouts))?;
        model.initialize(training.seed)?;
        run.named(method.add(&mut model))?;
        method.initialize(&mut model, training.seed)?;
        let mut differs: BTreeSet<String> = model.new.iter().chain(&model.added).cloned().collect();
        let task = task(&run, &data, pooling);
        let target_scale = data.target_scale(&run);
        let init_delta_sha256 = section.init_delta.as_deref().map(files::sha256).transpose()?;
        if let Some(path) = &section.init_delta {
            let scale = target_scale.as_ref();
            differs.extend(delta::start_from(path, &task, &method, scale, &mut model)?);
        }
        let freeze = run.named(method.plan(&model, &run.switches))?;
        freeze.apply(&mut model.store)?;
        differs.extend(freeze.trainable().map(|p| p.name.clone()));
        let biases = base_biases(&base, &freeze)?;
        check_cache(&run, &freeze)?;
        model.set_precision(precision)?;
        native::allow_tf32(training.tf32)?;
        let mut resolved = run.resolved(&data.labels.names, dropouts, pooling, &method)?;
        let weights = run.class_weights(&data.labels, &data.rows_by_label(), data.train.len())?;
        resolved.training.class_weights = weights.map(ClassWeights::List);
        sources.pin(&mut resolved);
        let source = sources.model.clone();
        let meta = meta(task, &source, &data, &model, &freeze, method);
        let initial = InitialState { biases, differs, init_delta_sha256 };
        Ok(Self { data, source, model, freeze, initial, target_scale, meta, resolved, run })
    }

    /// The method that the run trains with.
    pub(crate) fn method(&self) -> &Method {
        &self.meta.method
    }

    /// The weight of each class in the loss; `None` without `training.class_weights`.
    pub(crate) fn class_weights(&self) -> Option<&[f64]> {
        match &self.resolved.training.class_weights {
            Some(ClassWeights::List(weights)) => Some(weights),
            _ => None,
        }
    }

    /// Returns the cost of a step for windows of the training rows' mean length.
    pub(crate) fn cost(&self) -> StepCost {
        let (pooling, length) = (self.meta.task.pooling, self.data.mean_window());
        StepCost::of(&self.freeze, &self.model.config, pooling, length)
    }
}

/// Checks the base in `dir` against the configuration and the tokenized rows.
fn check_fit(run: &Run, dir: &Path, base: &Base, data: &RunData) -> Result<()> {
    let config = &base.info.config;
    run.check_model(config)?;
    fits(dir, &data.tokenizer, config)?;
    let examples = data.train.iter().chain(&data.eval);
    has_embeddings(dir, config, examples.flat_map(|example| example.tokens.iter()))
}

/// The base's values of the biases that train, and zeros for those that the base lacks.
fn base_biases(base: &Base, freeze: &FreezePlan) -> Result<BTreeMap<String, Tensor>> {
    let biases = freeze.trainable().filter(|p| p.is_bias()).map(|p| {
        let own = base.tensors().get(&p.name).map(Tensor::shallow_clone);
        let zero = || Tensor::f_zeros(&p.shape[..], (Kind::Float, base.device()));
        Ok((p.name.clone(), own.map_or_else(zero, Ok)?))
    });
    biases.collect()
}

/// Errs if `training.cache_frozen_layers` is set and the lowest layer is not frozen.
fn check_cache(run: &Run, freeze: &FreezePlan) -> Result<()> {
    if !run.training().cache_frozen_layers || freeze.frozen_layers() > 0 {
        return Ok(());
    }
    let expected = "true where the lowest layers train nothing, as with bitfit.layers = \"4-\"; here something trains in layer 0 or below";
    Err(run.error("training.cache_frozen_layers", &true, expected))
}

/// The pooling of the configuration, or else the one that the base was trained with. Warns if a
/// head on first tokens gets a new dense layer because `base` lacks it.
fn pooling(run: &Run, base: &Base) -> Result<Pooling> {
    let pooling = match run.model().pooling.fixed() {
        Some(pooling) => pooling,
        None => declared_pooling(&base.info.dir)?.unwrap_or_default(),
    };
    if pooling.is_first() && base.lacks_pooler() {
        tracing::warn!(
            "{} has no pooler: it is new, trains whole, and is saved with the task",
            base.info.file.display()
        );
    }
    Ok(pooling)
}

/// The task of `run`.
fn task(run: &Run, data: &RunData, pooling: Pooling) -> Task {
    let Reading { max_length, long_texts } = run.data().reading();
    Task {
        task_type: run.model().task_type,
        labels: data.labels.names.clone(),
        labels_declared: data.labels.declared,
        pairs: Some(run.data().text_pair_column.is_some()),
        max_length,
        pooling,
        long_texts,
        thresholds: vec![],
    }
}

/// Describes the task, without metrics.
fn meta(
    task: Task,
    source: &Model,
    data: &RunData,
    model: &TaskModel,
    freeze: &FreezePlan,
    method: Method,
) -> Meta {
    Meta {
        architecture: model.config.architecture.class.into(),
        base_name: source.name.clone(),
        base_fingerprint: model.base.fingerprint.clone(),
        base_config: model.config.beside_tensors(),
        tokenizer_fingerprint: data.tokenizer.fingerprint.clone(),
        task,
        method,
        freeze_plan: freeze.trainable().map(|p| p.name.clone()).collect(),
        metrics: BTreeMap::new(),
    }
}

/// The overview that is printed before the first step.
impl std::fmt::Display for ModelPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (base, labels) = (&self.model.base, &self.data.labels);
        let file = base.file.file_name().unwrap_or_default().to_string_lossy();
        writeln!(f, "base         {} ({file}), fingerprint {:.16}", self.source, base.fingerprint)?;
        let (train, eval) = (self.data.train.len(), self.data.eval.len());
        let count = labels.names.len();
        write!(f, "data         {train} training rows, {eval} evaluation rows, ")?;
        if !self.data.calibration.is_empty() {
            write!(f, "{} rows for the calibration, ", self.data.calibration.len())?;
        }
        match self.meta.task.task_type {
            TaskType::Classification => writeln!(f, "{count} labels: {labels}")?,
            TaskType::MultiLabel => writeln!(f, "any of {count} labels: {labels}")?,
            TaskType::Regression => writeln!(f, "a number to predict")?,
        }
        match self.model.device() {
            tch::Device::Cuda(index) => {
                writeln!(f, "device       cuda:{index}, {}", self.resolved.training.precision)?
            }
            _ => writeln!(f, "device       cpu, {} threads", tch::get_num_threads())?,
        }
        if self.meta.task.pooling == Pooling::Mean {
            writeln!(f, "head         reads {}", self.meta.task.pooling)?;
        }
        if !self.meta.task.long_texts.is_cut() {
            writeln!(f, "long texts   {}", self.meta.task.long_texts)?;
        }
        writeln!(f, "method       {}", self.meta.method)?;
        let [length, rates] = self.run.describe();
        writeln!(f, "length       {length}")?;
        writeln!(f, "rates        {rates}")?;
        let cost = self.cost();
        if self.method().takes_steps() && cost.saved() >= 0.005 {
            writeln!(f, "backward     {cost}")?;
        }
        let counts = self.freeze.counts();
        write!(f, "{counts}")?;
        match self.method().takes_steps() {
            true => write!(f, "\n{}", counts.memory()),
            false => Ok(()),
        }
    }
}
