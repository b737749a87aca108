//! Prepares everything that the training loop needs, from a resolved configuration.

use crate::base::Base;
use crate::checkpoint::Checkpoint;
use crate::config::{ClassWeights, Run, RunConfig};
use crate::data::{
    self, Batch, Columns, Example, Labels, Place, Row, Sampler, Target, Tokenizer, examples, fits,
    has_embeddings,
};
use crate::delta::{self, Delta, Meta};
use crate::error::{Error, Result};
use crate::files;
use crate::freeze::{FreezePlan, StepCost};
use crate::hub::Progress;
use crate::methods::Method;
use crate::models::{Shaping, Task, TaskType};
use crate::native;
use crate::optim::AdamW;
use crate::sources::{Labelled, Model, Sources};
use crate::task_model::TaskModel;
use crate::threads;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::{Kind, Tensor};

/// A run, ready for its first step.
pub struct Prepared {
    /// SHA-256 over the token ids and targets of the training and evaluation rows.
    pub data_fingerprint: String,
    /// The model, frozen except for the parameters that train.
    pub model: TaskModel,
    /// The plan of which parameters train.
    pub plan: FreezePlan,
    /// The optimizer of the parameters that train.
    pub optimizer: AdamW,
    /// The type of the task.
    pub task_type: TaskType,
    /// The names of the classes.
    pub labels: Labels,
    /// Training examples, in the file's order.
    pub train: Vec<Example>,
    /// Evaluation examples.
    pub eval: Vec<Example>,
    /// The tokenizer, whose files go into the run directory.
    pub tokenizer: Tokenizer,
    /// The resolved configuration, with every key.
    pub resolved: RunConfig,
    /// The label smoothing and the class weights of the training loss.
    pub shaping: Shaping,
    /// The biases that train, with their values in the base, or zeros if the base lacks them.
    pub biases: BTreeMap<String, Tensor>,
    /// SHA-256 of the file `model.init_delta`; `None` without one.
    pub init_delta_sha256: Option<String>,
    source: Model,
    meta: Meta,
    /// The weight of each class in the loss; `None` without `training.class_weights`.
    class_weights: Option<Vec<f64>>,
    /// The file and line of each training row.
    places: Vec<Place>,
    /// The names of the tensors that may differ from the base.
    differs: BTreeSet<String>,
}

impl Prepared {
    /// Reads the base and the data in parallel, builds the model and freezes it. Writes nothing.
    pub fn new(run: &Run, sources: &Sources) -> Result<Self> {
        let section = &run.config.model;
        let Model { dir, weights, .. } = &sources.model;
        let (base, rows) = threads::both(
            || Base::read(dir, weights.as_deref(), run.device),
            || {
                let rows = Rows::read(run, &run.columns(), sources)?;
                Ok::<_, Error>((rows.encode(run, dir)?, rows.labels))
            },
        );
        // A missing base is reported before the tokenizer's error, which may follow from it.
        let (mut base, (encoded, labels)) = (base?, rows?);
        let Encoded { tokenizer, train, eval, places } = encoded;
        let config = &base.info.config;
        run.check_model(config)?;
        fits(dir, &tokenizer, config)?;
        has_embeddings(dir, config, train.iter().chain(&eval).map(|example| &example.tokens))?;
        let dropouts = run.dropouts(config);
        let method = run.method.settled(config.architecture);
        let task_type = section.task_type;
        let outputs = task_type.outputs(labels.names.len());
        // Dense weights that stay as in the base need no copy in fp32 beside the one in
        // `precision`.
        if !method.trains_dense_weights() && section.init_delta.is_none() {
            base.keep_in(run.config.training.precision.kind())?;
        }
        let mut model = TaskModel::new(&base, outputs, Some(dropouts))?;
        model.initialize(run.config.training.seed)?;
        run.named(method.add(&mut model))?;
        method.initialize(&mut model, run.config.training.seed)?;
        let mut differs: BTreeSet<String> = model.new.iter().chain(&model.added).cloned().collect();
        let init_delta_sha256 = section.init_delta.as_deref().map(files::sha256).transpose()?;
        if let Some(path) = &section.init_delta {
            differs.extend(delta::start_from(path, task_type, &labels.names, &method, &mut model)?);
        }
        let plan = run.named(method.plan(&model, &run.switches))?;
        plan.apply(&mut model.store)?;
        differs.extend(plan.trainable().map(|p| p.name.clone()));
        let biases = plan.trainable().filter(|p| p.is_bias()).map(|p| {
            let own = base.tensors().get(&p.name).map(Tensor::shallow_clone);
            let zero = || Tensor::f_zeros(&p.shape[..], (Kind::Float, run.device));
            Ok((p.name.clone(), own.map_or_else(zero, Ok)?))
        });
        let biases = biases.collect::<Result<_>>()?;
        let optimizer = AdamW::new(&model.store, &plan, &run.adamw)?;
        optimizer.check_bound(&model.store)?;
        if run.config.training.cache_frozen_layers && plan.frozen_layers() == 0 {
            let expected = "true where the lowest layers train nothing, as with bitfit.layers = \"4-\"; here something trains in layer 0 or below";
            return Err(run.error("training.cache_frozen_layers", &true, expected));
        }
        model.set_precision(run.config.training.precision.kind())?;
        native::allow_tf32(run.config.training.tf32)?;
        let class_weights = class_weights(run, &labels, &train)?;
        let as_tensor = |weights: &Vec<f64>| -> Result<Tensor> {
            let weights: Vec<f32> = weights.iter().map(|&weight| weight as f32).collect();
            Ok(Tensor::f_from_slice(&weights)?.f_to_device(run.device)?)
        };
        let shaping = Shaping {
            label_smoothing: run.config.training.label_smoothing_factor,
            class_weights: class_weights.as_ref().map(as_tensor).transpose()?,
        };
        let meta = Meta {
            architecture: model.config.architecture.class.into(),
            base_name: sources.model.name.clone(),
            base_fingerprint: model.base.fingerprint.clone(),
            base_config: model.config.beside_tensors(),
            tokenizer_fingerprint: tokenizer.fingerprint.clone(),
            task: Task {
                task_type,
                labels: labels.names.clone(),
                labels_declared: labels.declared,
                pairs: Some(run.config.data.text_pair_column.is_some()),
                max_length: run.config.data.max_length,
            },
            method: method.clone(),
            freeze_plan: plan.trainable().map(|p| p.name.clone()).collect(),
            metrics: BTreeMap::new(),
        };
        let mut resolved = run.resolved(&labels.names, dropouts, &method);
        let weights = class_weights.clone().map(ClassWeights::List);
        resolved.training.class_weights = weights;
        sources.pin(&mut resolved);
        let data_fingerprint = fingerprint(&train, &eval);
        Ok(Self {
            data_fingerprint,
            model,
            plan,
            optimizer,
            task_type,
            labels,
            train,
            eval,
            tokenizer,
            resolved,
            shaping,
            biases,
            init_delta_sha256,
            source: sources.model.clone(),
            meta,
            class_weights,
            places,
            differs,
        })
    }

    /// The method that the run trains with.
    pub fn method(&self) -> &Method {
        &self.meta.method
    }

    /// Returns the cost of a step for texts of the training rows' mean length.
    pub fn cost(&self) -> StepCost {
        let tokens: usize = self.train.iter().map(|example| example.tokens.ids.len()).sum();
        let length = tokens as f64 / self.train.len().max(1) as f64;
        StepCost::of(&self.plan, &self.model.config, length)
    }

    /// The source of the base.
    pub fn source(&self) -> &Model {
        &self.source
    }

    /// Returns the sampler, which decides the rows of each step.
    pub fn sampler(&self, run: &Run) -> Sampler {
        let training = &run.config.training;
        Sampler {
            lengths: self.train.iter().map(|example| example.tokens.ids.len()).collect(),
            seed: training.seed,
            shuffle: run.config.data.shuffle,
            step: training.batch_size().times(training.gradient_accumulation_steps),
        }
    }

    /// Returns the divisor of the loss over `rows`: the number of rows, or the sum of their
    /// classes' weights.
    pub fn total(&self, rows: &[usize]) -> f64 {
        let Some(weights) =
            self.class_weights.as_ref().filter(|_| self.task_type == TaskType::Classification)
        else {
            return rows.len() as f64;
        };
        let weight = |&row: &usize| match self.train.get(row).map(|example| &example.target) {
            Some(Target::Class(class)) => weights.get(*class).copied().unwrap_or(1.0),
            _ => 1.0,
        };
        rows.iter().map(weight).sum()
    }

    /// Returns the files and lines of training rows, for messages: `train.tsv:3, 17; more.tsv:4`.
    pub fn places(&self, rows: &[usize]) -> String {
        let mut by_file: BTreeMap<&Path, Vec<String>> = BTreeMap::new();
        for place in rows.iter().filter_map(|&row| self.places.get(row)) {
            by_file.entry(&place.path).or_default().extend(place.line.map(|line| line.to_string()));
        }
        let file = |(path, lines): (&Path, Vec<String>)| match lines.is_empty() {
            true => path.display().to_string(),
            false => format!("{}:{}", path.display(), lines.join(", ")),
        };
        by_file.into_iter().map(file).collect::<Vec<_>>().join("; ")
    }

    /// Restores model and optimizer from `checkpoint`, which was read from `path`. Errs if the
    /// checkpoint belongs to another run, to other rows or to another `model.init_delta`.
    pub fn go_on_from(&mut self, path: &Path, checkpoint: &Checkpoint) -> Result<()> {
        let other =
            |what: &str, found: &dyn std::fmt::Display, expected: &dyn std::fmt::Display| {
                let problem = format!(
                    "the state of another run: its {what} is {found}, and this run's is {expected}"
                );
                Err(Error::file(path, problem))
            };
        let Checkpoint { state, delta, moments } = checkpoint;
        let (found, expected) = (json!(delta.meta), json!(self.meta));
        for (key, expected) in expected.as_object().into_iter().flatten() {
            let found = found.get(key).unwrap_or(&serde_json::Value::Null);
            // Earlier versions did not write `base_config`.
            let is_unknown = key == "base_config" && found.is_null();
            if key != "metrics" && found != expected && !is_unknown {
                let why = found.as_str().filter(|_| key == "tokenizer_fingerprint");
                return match why.and_then(|found| self.tokenizer.why_other(found)) {
                    Some(why) => other(key, found, &format!("{expected}; {why}")),
                    None => other(key, found, expected),
                };
            }
        }
        let (found, expected) = (&state.data_fingerprint, &self.data_fingerprint);
        if found != expected {
            let problem = format!(
                "the rows of {} or of the evaluation are not those that the run began with (fingerprint {found:.16}, and now {expected:.16}); \
                 bring them back, or begin anew with --overwrite",
                self.resolved.data.train.display()
            );
            return Err(Error::file(path, problem));
        }
        let (found, expected) = (&self.init_delta_sha256, &state.init_delta_sha256);
        if let (Some(found), Some(expected), Some(start)) =
            (found, expected, &self.resolved.model.init_delta)
            && found != expected
        {
            let problem = format!(
                "not the file that the run began with (SHA-256 {expected:.16}, and now {found:.16}); bring it back, or begin anew with --overwrite"
            );
            return Err(Error::file(start, problem));
        }
        delta.apply(path, &mut self.model)?;
        for p in self.plan.trainable() {
            let count = p.shape.iter().product::<i64>();
            let good = moments.get(&p.name).is_some_and(|moments| {
                [&moments.exp_avg, &moments.exp_avg_sq]
                    .iter()
                    .all(|moment| moment.numel() as i64 == count)
            });
            if !good {
                return other(
                    "moments",
                    &format!("without {} of {count} numbers", p.name),
                    &"with them",
                );
            }
        }
        self.optimizer.set_moments(state.step, moments)?;
        self.optimizer.check_bound(&self.model.store)
    }

    /// Returns `[T, H]` for each of the training rows `rows`, on the CPU: the output of the lowest
    /// `layers` layers, without dropout.
    pub fn lower(&self, rows: &[usize], layers: usize) -> Result<Vec<Tensor>> {
        let _guard = tch::no_grad_guard();
        let batch = Batch::of(&self.train, rows, None);
        let (packed, _) = batch.to_device(self.model.device())?;
        let output = self.model.classifier.lower(&packed, layers)?.f_to_device(tch::Device::Cpu)?;
        let starts = batch.cu_seqlens.iter().zip(batch.cu_seqlens.iter().skip(1));
        starts.map(|(&a, &b)| Ok(output.f_narrow(0, a, b - a)?.f_detach_copy()?)).collect()
    }

    /// Returns the delta of the current state, with `metrics`. Errs if the base's file was changed,
    /// or if a trained tensor holds NaN or infinity.
    pub fn delta(&self, metrics: &BTreeMap<String, f64>) -> Result<Delta> {
        self.model.base.check_unchanged()?;
        self.optimizer.check_finite()?;
        Delta::take(
            &self.model,
            &self.differs,
            Meta { metrics: metrics.clone(), ..self.meta.clone() },
        )
    }
}

/// SHA-256 over the rows' token ids and targets, in order.
fn fingerprint(train: &[Example], eval: &[Example]) -> String {
    let mut hash = Sha256::new();
    for examples in [train, eval] {
        hash.update(examples.len().to_le_bytes());
        for example in examples {
            let Example { tokens, target } = example;
            hash.update(tokens.ids.len().to_le_bytes());
            hash.update(tokens.first.to_le_bytes());
            tokens.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            match target {
                Target::Class(class) => hash.update(class.to_le_bytes()),
                // One byte for each label of the task.
                Target::Labels { .. } => {
                    let flags = target.flags().unwrap_or_default();
                    hash.update(flags.into_iter().map(u8::from).collect::<Vec<_>>());
                }
                Target::Number(number) => hash.update(number.to_le_bytes()),
            }
        }
    }
    files::hex(&hash.finalize())
}

/// The overview that is printed before the first step.
impl std::fmt::Display for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (base, labels) = (&self.model.base, &self.labels);
        let file = base.file.file_name().unwrap_or_default().to_string_lossy();
        let fingerprint = &base.fingerprint[..16];
        writeln!(f, "base         {} ({file}), fingerprint {fingerprint}", self.source)?;
        let (train, eval, count) = (self.train.len(), self.eval.len(), labels.names.len());
        write!(f, "data         {train} training rows, {eval} evaluation rows, ")?;
        match self.task_type {
            TaskType::Classification => writeln!(f, "{count} labels: {labels}")?,
            TaskType::MultiLabel => writeln!(f, "any of {count} labels: {labels}")?,
            TaskType::Regression => writeln!(f, "a number to predict")?,
        }
        match self.model.device() {
            tch::Device::Cuda(index) => writeln!(f, "device       cuda:{index}")?,
            _ => writeln!(f, "device       cpu, {} threads", tch::get_num_threads())?,
        }
        writeln!(f, "method       {}", self.meta.method)?;
        let cost = self.cost();
        if cost.saved() >= 0.005 {
            writeln!(f, "backward     {cost}")?;
        }
        write!(f, "{}", self.plan.counts())
    }
}

/// The rows of both data sets, before tokenizing.
pub struct Rows {
    /// Training rows.
    pub train: Vec<Row>,
    /// Evaluation rows.
    pub eval: Vec<Row>,
    /// The names of the classes.
    pub labels: Labels,
}

struct Encoded {
    tokenizer: Tokenizer,
    train: Vec<Example>,
    eval: Vec<Example>,
    places: Vec<Place>,
}

/// Returns the weight of each class, from the configuration and the classes of the training rows.
fn class_weights(run: &Run, labels: &Labels, train: &[Example]) -> Result<Option<Vec<f64>>> {
    let mut having = vec![0; labels.names.len()];
    let mut count = |class: usize| having.get_mut(class).into_iter().for_each(|count| *count += 1);
    for example in train {
        match &example.target {
            Target::Class(class) => count(*class),
            Target::Labels { has, .. } => has.iter().for_each(|&class| count(class as usize)),
            Target::Number(_) => {}
        }
    }
    run.class_weights(labels, &having, train.len())
}

impl Rows {
    /// Reads the data and finds the classes. Splits off an evaluation set if none is configured,
    /// and draws the configured numbers of samples.
    pub fn read(run: &Run, columns: &Columns, sources: &Sources) -> Result<Self> {
        let (section, task) = (&run.config.data, run.config.model.task_type);
        let table = data::read_all(&sources.train.files, columns)?;
        let labels = run.label_names().map_or_else(
            || Labels::of(task, &section.train, &table, section.skip_bad_rows),
            |names| Ok(Labels { names, declared: true }),
        )?;
        let mut train = table.rows;
        settle(run, &section.train, task, &labels, &mut train)?;
        let seed = run.data_seed();
        let mut eval = match (&sources.eval, &section.eval) {
            (Some(found), Some(path)) => {
                let mut eval = data::read_all(&found.files, columns)?.rows;
                settle(run, path, task, &labels, &mut eval)?;
                eval
            }
            _ => {
                let classes = classes(task, &labels, &train)?;
                let (keep, take) = data::split_by_class(&classes, section.eval_fraction, seed);
                let eval = pick(&train, &take);
                train = pick(&train, &keep);
                if eval.is_empty() || train.is_empty() {
                    let problem = "too few rows to split an evaluation set off; expected two or more of a class, or data.eval";
                    return Err(Error::data(&section.train, None, problem));
                }
                eval
            }
        };
        draw(run, "train_samples", &mut train, section.train_samples, task, &labels)?;
        draw(run, "eval_samples", &mut eval, section.eval_samples, task, &labels)?;
        Ok(Self { train, eval, labels })
    }

    /// Reads the evaluation rows of a resolved run. `declared` is [`Labels::declared`] for the
    /// configured label names.
    ///
    /// Without `data.eval`, reads all data and splits the evaluation set off again.
    pub fn read_eval(
        run: &Run,
        columns: &Columns,
        declared: bool,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<Row>> {
        let (section, task) = (&run.config.data, run.config.model.task_type);
        let (Some(path), Some(names)) = (&section.eval, run.label_names()) else {
            return Ok(Self::read(run, columns, &Sources::find(run, progress)?)?.eval);
        };
        let found = Labelled::eval(run, None, progress)?;
        let mut rows =
            data::read_all(&found.map(|rows| rows.files).unwrap_or_default(), columns)?.rows;
        let labels = Labels { names, declared };
        settle(run, path, task, &labels, &mut rows)?;
        draw(run, "eval_samples", &mut rows, section.eval_samples, task, &labels)?;
        Ok(rows)
    }

    fn encode(&self, run: &Run, dir: &Path) -> Result<Encoded> {
        let tokenizer = Tokenizer::read(dir)?;
        let (task, length) = (run.config.model.task_type, run.config.data.max_length);
        let encode = |rows| examples(&tokenizer, rows, task, &self.labels, length);
        let (train, eval) = (encode(&self.train)?, encode(&self.eval)?);
        if let Some(Target::Class(first)) = train.first().map(|e| &e.target)
            && train.iter().all(|e| e.target == Target::Class(*first))
        {
            let only = self.labels.names.get(*first).map(String::as_str);
            let only = data::listed(only.into_iter());
            let problem = format!("one class only, {only}; a classifier needs rows of two or more");
            return Err(Error::data(&run.config.data.train, None, problem));
        }
        let places = self.train.iter().map(|row| row.place.clone()).collect();
        Ok(Encoded { tokenizer, train, eval, places })
    }
}

/// Replaces the labels of `rows` by the names of their classes. A row with any other label is an
/// error, or is left out with `data.skip_bad_rows`.
fn settle(
    run: &Run,
    path: &Path,
    task: TaskType,
    labels: &Labels,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let (reading, before) = (labels.reading(task, rows), rows.len());
    if !run.config.data.skip_bad_rows {
        return rows.iter_mut().try_for_each(|row| reading.settle(row));
    }
    let mut first = None;
    rows.retain_mut(|row| match reading.settle(row) {
        Ok(()) => true,
        Err(error) => {
            first.get_or_insert(error);
            false
        }
    });
    if let Some(error) = first {
        let skipped = before - rows.len();
        tracing::warn!(
            "{}: {skipped} rows left out for their labels (data.skip_bad_rows), such as {error}",
            path.display()
        );
    }
    if rows.is_empty() {
        return Err(Error::data(path, None, "no rows without something wrong in them"));
    }
    Ok(())
}

/// Draws `samples` of the rows, each class in proportion. Keeps all rows if `samples` is `None` or,
/// with a warning, if `samples` is larger than their number.
fn draw(
    run: &Run,
    key: &str,
    rows: &mut Vec<Row>,
    samples: Option<usize>,
    task: TaskType,
    labels: &Labels,
) -> Result<()> {
    let Some(samples) = samples else { return Ok(()) };
    if samples > rows.len() {
        tracing::warn!("data.{key}: {samples} asked for, and all {} rows taken", rows.len());
        return Ok(());
    }
    *rows = pick(rows, &data::draw(&classes(task, labels, rows)?, samples, run.data_seed()));
    Ok(())
}

/// Returns the class of each row, 0 for all rows if the task is no classification.
fn classes(task: TaskType, labels: &Labels, rows: &[Row]) -> Result<Vec<usize>> {
    let class = |target| if let Target::Class(class) = target { class } else { 0 };
    Ok(labels.targets(task, rows)?.into_iter().map(class).collect())
}

fn pick(rows: &[Row], numbers: &[usize]) -> Vec<Row> {
    numbers.iter().filter_map(|&row| rows.get(row).cloned()).collect()
}
