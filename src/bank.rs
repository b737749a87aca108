//! A bank of tasks over one base: each task is a row of the vectors that it may change, and a head
//! of its own. The sequences of a batch may be of any tasks, in any order.

use crate::base::{Base, BaseInfo};
use crate::data::Batch;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::files;
use crate::methods::Method;
use crate::models::{Task, is_target};
use crate::native::{self, LoraLayer, TaskLayer, Values};
use crate::nn::{Packed, Pooling, Precision, TaskRow, TaskRows, WindowPooling, mean};
use crate::task_model::TaskModel;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::repeat_n;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tch::{Device, Kind, Tensor};

/// Values that a vector's place in its part of a row is a multiple of: 64 bytes.
const ALIGNED: usize = 16;

/// A base that several tasks predict with in one batch.
#[derive(Debug)]
pub struct Bank {
    base: Base,
    /// The layers over the base's weights; its vectors come from the tasks' rows.
    model: TaskModel,
    plan: Arc<TaskPlan>,
    /// The dtype of the layers' weights, and so of their products.
    kind: Kind,
    /// The task of the last batch, by its number, if that was of one task, and a model of it once
    /// two batches in a row were.
    alone: RefCell<Option<(u64, Option<TaskModel>)>>,
}

/// What a task of a base consists of. A plan holds no tensors, so that any thread can make tasks.
#[derive(Debug)]
pub struct TaskPlan {
    /// The base.
    pub info: Arc<BaseInfo>,
    /// The shape of each tensor, for a head of one output.
    shapes: BTreeMap<String, Vec<i64>>,
    /// The names of the base's tensors.
    of_base: BTreeSet<String>,
    /// The names of the tensors that the base lacks.
    new: Vec<String>,
    /// The dense layers of the encoder, by canonical name: those that LoRA may be added to.
    dense: Vec<String>,
    /// Whether the dense layer before the output layer is the base's: BERT's pooler.
    has_pooler: bool,
    /// Where each vector lies in a row, by canonical name.
    places: BTreeMap<String, Place>,
    /// The base's own vectors.
    own: TaskRow,
}

/// Where a vector lies in a [`TaskRow`].
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Whether it is a weight of LayerNorm, not a bias.
    is_weight: bool,
    offset: usize,
    size: usize,
}

/// A task of a [`Bank`], in plain memory that threads can share.
#[derive(Debug)]
pub struct BankTask {
    /// What the task predicts.
    pub task: Task,
    /// The name of the method that trained the task; `None` for the head that a base was saved
    /// with.
    pub method: Option<&'static str>,
    /// The first digits of the SHA-256 that the task's file holds, or of a saved head's values.
    pub version: Box<str>,
    /// The bytes of the task's values, without those that are the base's.
    pub bytes: usize,
    /// A number that no other task of this process has.
    number: u64,
    row: TaskRow,
    /// The dense layer before the output, where the head has one that is not the base's.
    dense: Option<TaskLayer>,
    /// The output layer, `H` inputs and `L` outputs.
    output: TaskLayer,
}

/// The values of a delta by where a task keeps them.
struct Sorted {
    /// All biases, if the delta has some.
    biases: Option<Vec<f32>>,
    /// All weights of LayerNorm, if the delta has some.
    norm_weights: Option<Vec<f32>>,
    /// The head's values and LoRA's, by canonical name.
    others: BTreeMap<String, Values>,
}

/// Digits of a task's version.
const VERSION: usize = 12;

impl TaskPlan {
    /// Makes a task from `delta`, read from `path`. Errs for adapters and full fine-tuning, which
    /// change more than a batch can take from each task, for a delta of another base, and for NaN
    /// or infinity.
    pub fn task(&self, path: &Path, delta: &Delta) -> Result<BankTask> {
        let Delta { meta, .. } = delta;
        check_method(path, &meta.method)?;
        delta.check_base(path, &self.info)?;
        let architecture = self.info.config.architecture;
        let outputs = meta.task.outputs() as i64;
        let lora = self.lora_shapes(&meta.method);
        let is_mean = !meta.task.pooling.is_first();
        let dense = format!("{}.", architecture.head.dense);
        let lacks = |name: &str| is_mean && name.starts_with(&dense);
        let new = self.new.iter().filter(|name| !lacks(name)).chain(lora.keys());
        let shape = |name: &str| {
            if let Some(shape) = lora.get(name) {
                return Some(shape.clone());
            }
            let shape = self.shapes.get(name).filter(|_| !lacks(name));
            let mut shape = shape?.clone();
            if name.strip_prefix(architecture.head.output).is_some_and(|leaf| leaf.starts_with('.'))
            {
                shape.first_mut().into_iter().for_each(|rows| *rows = outputs);
            }
            Some(shape)
        };
        delta.check_tensors(path, &shape, new)?;
        let Sorted { biases, norm_weights, mut others } = self.sorted(path, delta)?;
        let lora = self.lora(&meta.method, &mut others)?;
        let (dense, output) = self.head(&others, meta.task.pooling)?;
        delta.check_unchanged()?;
        let part = |values: Option<Vec<f32>>, own: &Values| {
            values.map_or_else(|| own.clone(), Values::from)
        };
        let row = TaskRow {
            biases: part(biases, &self.own.biases),
            norm_weights: part(norm_weights, &self.own.norm_weights),
            lora,
        };
        let method = Some(meta.method.name());
        let version = version(delta.checksum.as_deref().unwrap_or_default());
        let (task, number, bytes) = (meta.task.clone(), next_number(), 0);
        Ok(BankTask { task, method, version, bytes, number, row, dense, output }.counted(self))
    }

    /// Sorts the values of `delta`, read from `path`, by where a task keeps them. Errs for NaN and
    /// infinity, and for matrices of the base.
    fn sorted(&self, path: &Path, delta: &Delta) -> Result<Sorted> {
        let mut sorted = Sorted { biases: None, norm_weights: None, others: BTreeMap::new() };
        for (name, tensor) in &delta.tensors {
            let values = Values::of(tensor)?;
            if !values.iter().all(|value| value.is_finite()) {
                return Err(Error::file(path, format!("{name} contains NaN or infinity")));
            }
            match self.places.get(name) {
                Some(&Place { is_weight, offset, size }) => {
                    let (part, own) = match is_weight {
                        true => (&mut sorted.norm_weights, &self.own.norm_weights),
                        false => (&mut sorted.biases, &self.own.biases),
                    };
                    let part = part.get_or_insert_with(|| own.to_vec());
                    let place = part.get_mut(offset..offset + size);
                    let place = place.filter(|place| place.len() == values.len());
                    let place = place.ok_or_else(|| Error::Bug(format!("no place of {name}")))?;
                    place.copy_from_slice(&values);
                }
                None if self.of_base.contains(name) => {
                    let problem =
                        format!("{name}: found in the task, expected only vectors of the base");
                    return Err(Error::file(path, problem));
                }
                None => drop(sorted.others.insert(name.clone(), values)),
            }
        }
        Ok(sorted)
    }

    /// The task of the head that the base `model` was saved with.
    fn saved(&self, model: &TaskModel, task: Task) -> Result<BankTask> {
        if let Some(name) = model.not_finite(|_, _| true)? {
            return Err(Error::file(&self.info.file, format!("{name} contains NaN or infinity")));
        }
        let variables = model.store.variables();
        let values = |name: &String| Some((name.clone(), Values::of(variables.get(name)?)));
        let head = model.new.iter().filter_map(values);
        let head = head.map(|(name, values)| Ok((name, values?)));
        let head: BTreeMap<String, Values> = head.collect::<Result<_>>()?;
        let (dense, output) = self.head(&head, task.pooling)?;
        let row = self.own.clone();
        let mut digest = Sha256::new_with_prefix(&self.info.fingerprint);
        for values in head.values() {
            values.iter().for_each(|value| digest.update(value.to_le_bytes()));
        }
        let version = version(&files::hex(&digest.finalize()));
        let (method, number, bytes) = (None, next_number(), 0);
        Ok(BankTask { task, method, version, bytes, number, row, dense, output }.counted(self))
    }

    /// The layers of a head. The first is `None` if it is the base's, or if the head is on means.
    fn head(
        &self,
        values: &BTreeMap<String, Values>,
        pooling: Pooling,
    ) -> Result<(Option<TaskLayer>, TaskLayer)> {
        let take = |module: &str| {
            let leaf = |leaf: &str| {
                let name = format!("{module}.{leaf}");
                let values = values.get(&name).cloned();
                values.ok_or_else(|| Error::Bug(format!("a task without {name}")))
            };
            TaskLayer::new(leaf("weight")?, leaf("bias")?)
        };
        let head = &self.info.config.architecture.head;
        let is_own = !self.has_pooler && pooling.is_first();
        let dense = if is_own { Some(take(head.dense)?) } else { None };
        Ok((dense, take(head.output)?))
    }

    /// The dense layers that get LoRA by `method`; none for other methods.
    fn lora_modules<'a>(&'a self, method: &'a Method) -> impl Iterator<Item = &'a String> {
        let targets = match method {
            Method::Lora(config) => &config.target_modules[..],
            _ => &[],
        };
        self.dense.iter().filter(move |name| targets.iter().any(|target| is_target(name, target)))
    }

    /// The shapes of LoRA's matrices by `method`, by canonical name.
    fn lora_shapes(&self, method: &Method) -> BTreeMap<String, Vec<i64>> {
        let Method::Lora(config) = method else { return BTreeMap::new() };
        let mut shapes = BTreeMap::new();
        for module in self.lora_modules(method) {
            if let Some([outputs, inputs]) =
                self.shapes.get(&format!("{module}.weight")).map(|s| &s[..])
            {
                shapes.insert(format!("{module}.lora_A.weight"), vec![config.r, *inputs]);
                shapes.insert(format!("{module}.lora_B.weight"), vec![*outputs, config.r]);
            }
        }
        shapes
    }

    /// Takes LoRA's matrices from `values`.
    fn lora(
        &self,
        method: &Method,
        values: &mut BTreeMap<String, Values>,
    ) -> Result<Option<Arc<BTreeMap<usize, LoraLayer>>>> {
        let Method::Lora(config) = method else { return Ok(None) };
        let mut layers = BTreeMap::new();
        for module in self.lora_modules(method) {
            let mut take = |leaf: &str| {
                let name = format!("{module}.{leaf}.weight");
                values.remove(&name).ok_or_else(|| Error::Bug(format!("a task without {name}")))
            };
            let (a, b) = (take("lora_A")?, take("lora_B")?);
            let b: Vec<f32> = b.iter().map(|value| value * config.scaling() as f32).collect();
            let place = self.places.get(&format!("{module}.bias"));
            let place = place.ok_or_else(|| Error::Bug(format!("{module} has no bias")))?;
            let rank = usize::try_from(config.r).map_err(Error::bug)?;
            layers.insert(place.offset, LoraLayer { a, b: b.into(), rank });
        }
        Ok(Some(Arc::new(layers)))
    }
}

/// The version of a file with the SHA-256 `sha256`.
fn version(sha256: &str) -> Box<str> {
    sha256.chars().take(VERSION).collect()
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl BankTask {
    /// The parts of the task's memory that other tasks do not share.
    fn own_parts(&mut self, plan: &TaskPlan) -> Vec<&mut Values> {
        let mut parts = self.row.parts_mut();
        let own = [&plan.own.biases, &plan.own.norm_weights];
        parts.retain(|part| !own.iter().any(|own| part.is(own)));
        parts.extend(self.output.parts_mut());
        parts.extend(self.dense.iter_mut().flat_map(TaskLayer::parts_mut));
        parts
    }

    /// The task with its number of bytes.
    fn counted(mut self, plan: &TaskPlan) -> Self {
        self.bytes = self.own_parts(plan).iter().map(|part| size_of_val(&***part)).sum();
        self
    }

    /// Moves the task's values to other memory, which `keep` makes of them.
    pub fn move_to(
        &mut self,
        plan: &TaskPlan,
        keep: impl FnOnce(&[f32]) -> Result<Values>,
    ) -> Result<()> {
        let mut parts = self.own_parts(plan);
        let mut all: Vec<f32> = vec![];
        let mut places = vec![];
        for part in &parts {
            places.push((all.len(), part.len()));
            all.extend(part.iter());
            all.resize(all.len().next_multiple_of(ALIGNED), 0.0);
        }
        let whole = keep(&all)?;
        for (part, (start, length)) in parts.iter_mut().zip(places) {
            let moved = whole.part(start, length);
            **part = moved.ok_or_else(|| Error::Bug("values that were not kept".into()))?;
        }
        Ok(())
    }

    /// Reads the values in advance that are in a mapped file.
    pub fn touch(&self) {
        self.row.touch();
        self.output.touch();
        self.dense.iter().for_each(TaskLayer::touch);
    }
}

impl Bank {
    /// Makes a bank without tasks, whose products are computed in `precision`. Rows hold every
    /// vector of the base: biases, and LayerNorm's weights.
    pub fn new(mut base: Base, precision: Precision) -> Result<Self> {
        let kind = precision.kind_on(base.device())?;
        base.keep_in(kind)?;
        let mut model = TaskModel::new(&base, 1, Pooling::First, None)?;
        model.store.freeze();
        model.set_precision(kind)?;
        let (mut places, mut biases, mut norm_weights) = (BTreeMap::new(), vec![], vec![]);
        for (name, tensor) in base.tensors().iter().filter(|(_, tensor)| tensor.dim() == 1) {
            let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
            let vector: Vec<f32> = Vec::try_from(tensor)?;
            // A weight with one dimension is LayerNorm's.
            let is_weight = name.ends_with(".weight");
            let part = if is_weight { &mut norm_weights } else { &mut biases };
            let place = Place { is_weight, offset: part.len(), size: vector.len() };
            places.insert(name.clone(), place);
            part.extend(vector);
            part.resize(part.len().next_multiple_of(ALIGNED), 0.0);
        }
        let offset = |name: &str| places.get(name).map(|place| place.offset);
        model.classifier.route(&model.config, &offset)?;
        let shapes = model.shapes();
        let pooler = model.config.architecture.pooler();
        let is_dense = |module: &&str| {
            let weight = shapes.get(&format!("{module}.weight"));
            weight.is_some_and(|shape| shape.len() == 2) && pooler != Some(*module)
        };
        let modules = places.keys().filter_map(|name| name.strip_suffix(".bias"));
        let plan = TaskPlan {
            info: base.info.clone(),
            dense: modules.filter(is_dense).map(str::to_owned).collect(),
            shapes,
            of_base: base.tensors().keys().cloned().collect(),
            new: model.new.clone(),
            has_pooler: has_pooler(&base),
            places,
            own: TaskRow { biases: biases.into(), norm_weights: norm_weights.into(), lora: None },
        };
        Ok(Self { base, model, plan: Arc::new(plan), kind, alone: RefCell::new(None) })
    }

    /// The base.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// What a task of the base consists of.
    pub fn plan(&self) -> &Arc<TaskPlan> {
        &self.plan
    }

    /// The task of the head that the base was saved with. Errs if there is none.
    pub fn saved_task(&self) -> Result<BankTask> {
        let (model, task) = TaskModel::saved(&self.base)?;
        self.plan.saved(&model, task)
    }

    /// The logits of each text of `batch` by its own task. `tasks` has the task of each text. Errs
    /// if something was written to the base's file.
    ///
    /// The encoder of the second of two batches of one task has that task's vectors in its layers,
    /// which is faster, unless the task has LoRA. Setting them takes some milliseconds.
    pub fn logits(&self, batch: &Batch, tasks: &[&BankTask]) -> Result<Vec<Vec<f32>>> {
        if tasks.len() != batch.texts() {
            let (tasks, texts) = (tasks.len(), batch.texts());
            return Err(Error::Bug(format!("{tasks} tasks for {texts} texts")));
        }
        if batch.windows.is_empty() {
            return self.logits_of_sequences(batch, tasks);
        }
        let counts = batch.sequences_by_text();
        let of_windows = tasks.iter().zip(&counts).flat_map(|(task, &n)| repeat_n(*task, n));
        let of_windows: Vec<&BankTask> = of_windows.collect();
        let mut logits = self.logits_of_sequences(batch, &of_windows)?.into_iter();
        let by_text = tasks.iter().zip(counts).map(|(task, count)| {
            let windows: Vec<Vec<f32>> = logits.by_ref().take(count).collect();
            pooled(task.task.long_texts.pooling(), windows)
        });
        by_text.collect()
    }

    /// The logits of each sequence of `batch` by its own task. `tasks` has the task of each
    /// sequence.
    fn logits_of_sequences(&self, batch: &Batch, tasks: &[&BankTask]) -> Result<Vec<Vec<f32>>> {
        let mut packed = self.packed(batch)?;
        let _guard = tch::no_grad_guard();
        let Some((task, others)) = tasks.split_first() else { return Ok(vec![]) };
        let is_one = others.iter().all(|other| other.number == task.number);
        let first = if self.was_last(task, is_one) && is_one && task.row.lora.is_none() {
            let mut alone = self.alone.borrow_mut();
            let model = match alone.take() {
                Some((_, Some(model))) => model,
                _ => self.alone(task)?,
            };
            let (_, model) = alone.insert((task.number, Some(model)));
            let model = model.as_ref().ok_or_else(|| Error::Bug("no model of a task".into()))?;
            self.encoded(model, &packed, tasks)?
        } else {
            let mut rows: Vec<TaskRow> = tasks.iter().map(|task| task.row.clone()).collect();
            // The dummy sequence that pads the batch is of no task.
            rows.resize(packed.cu_seqlens.len().saturating_sub(1), self.plan.own.clone());
            packed.tasks = Some(TaskRows::new(rows));
            self.encoded(&self.model, &packed, tasks)?
        };
        let first = first.f_narrow(0, 0, tasks.len() as i64)?;
        let logits = match first.device() {
            Device::Cpu => self.logits_by_row(first, tasks)?,
            _ => self.logits_by_task(&first, tasks)?,
        };
        self.base.info.check_unchanged()?;
        Ok(logits)
    }

    /// The tensors of `batch`. Padded, unless all products are by our own kernels: oneDNN compiles
    /// code for every new shape.
    fn packed(&self, batch: &Batch) -> Result<Packed> {
        let device = self.base.device();
        if (device, self.kind) == (Device::Cpu, Kind::Float) {
            return batch.unpadded(device);
        }
        let (mut packed, _) = batch.to_device(device)?;
        packed.fill_first()?;
        Ok(packed)
    }

    /// The output of the encoder of `model` for each sequence, pooled as its task says, `[B, H]`;
    /// first tokens after the base's pooler if there is one. `tasks` has the task of each sequence.
    fn encoded(&self, model: &TaskModel, batch: &Packed, tasks: &[&BankTask]) -> Result<Tensor> {
        let rows = batch.first_rows()?;
        let classifier = &model.classifier;
        let with_pooler = |first: Tensor| match self.plan.has_pooler {
            true => classifier.head().dense(&first, &rows),
            false => Ok(first),
        };
        let pooling = |task: &BankTask| task.task.pooling;
        if tasks.iter().all(|task| pooling(task) == Pooling::Mean) {
            return classifier.encode(batch, &rows, Pooling::Mean);
        }
        if tasks.iter().all(|task| pooling(task) == Pooling::First) {
            return with_pooler(classifier.encode(batch, &rows, Pooling::First)?);
        }
        let tokens = classifier.encode_tokens(batch)?;
        let means = mean(&tokens, batch)?;
        let first = with_pooler(tokens.f_index_select(0, &batch.first)?)?;
        let mut is_first: Vec<bool> = tasks.iter().map(|task| pooling(task).is_first()).collect();
        is_first.resize(batch.first.numel(), true);
        let is_first = Tensor::f_from_slice(&is_first)?.f_to_device(first.device())?;
        Ok(first.f_where_self(&is_first.f_unsqueeze(1)?, &means)?)
    }

    /// The logits of each row of `x [B, H]` by its own task, by a kernel that reads each task's
    /// layers in place. `x` holds the input of the dense layer of tasks that have one.
    fn logits_by_row(&self, mut x: Tensor, tasks: &[&BankTask]) -> Result<Vec<Vec<f32>>> {
        let dense: Vec<(i64, &TaskLayer)> =
            (0..).zip(tasks).filter_map(|(row, task)| Some((row, task.dense.as_ref()?))).collect();
        if !dense.is_empty() {
            let (rows, layers): (Vec<i64>, Vec<&TaskLayer>) = dense.into_iter().unzip();
            let rows = Tensor::f_from_slice(&rows)?;
            let own = native::routed_linear(&x.f_index_select(0, &rows)?, &layers)?;
            let own =
                self.model.classifier.head().activated(own.f_view([rows.numel() as i64, -1])?)?;
            x = x.f_index_copy(0, &rows, &own)?;
        }
        let outputs: Vec<&TaskLayer> = tasks.iter().map(|task| &task.output).collect();
        let flat = Vec::<f32>::try_from(native::routed_linear(&x, &outputs)?)?;
        let mut rest = flat.into_iter();
        Ok(outputs.iter().map(|layer| rest.by_ref().take(layer.outputs()).collect()).collect())
    }

    /// Like [`Bank::logits_by_row`] for other devices: the rows of one task are one product.
    fn logits_by_task(&self, x: &Tensor, tasks: &[&BankTask]) -> Result<Vec<Vec<f32>>> {
        let mut of_task: BTreeMap<u64, (&BankTask, Vec<i64>)> = BTreeMap::new();
        for (task, row) in tasks.iter().zip(0..) {
            of_task.entry(task.number).or_insert((*task, vec![])).1.push(row);
        }
        let groups: Vec<(&BankTask, Vec<i64>)> = of_task.into_values().collect();
        let layers = |layers: Vec<&TaskLayer>| TaskLayer::tensors(&layers, x.device());
        let mut dense =
            layers(groups.iter().filter_map(|(task, _)| task.dense.as_ref()).collect())?
                .into_iter();
        let outputs = layers(groups.iter().map(|(task, _)| &task.output).collect())?;
        let mut all = vec![];
        for ((task, rows), (weight, bias)) in groups.iter().zip(&outputs) {
            let own = Tensor::f_from_slice(rows)?.f_to_device(x.device())?;
            let mut x = x.f_index_select(0, &own)?;
            if let Some((weight, bias)) = task.dense.as_ref().and_then(|_| dense.next()) {
                let head = self.model.classifier.head();
                x = head.activated(native::product(&x, &weight, Some(&bias))?)?;
            }
            all.push(native::product(&x, weight, Some(bias))?.f_reshape([-1])?);
        }
        // One copy from the device.
        let flat = Tensor::f_cat(&all, 0)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
        let (flat, mut logits) = (Vec::<f32>::try_from(flat)?, vec![vec![]; tasks.len()]);
        let mut rest = flat.into_iter();
        for (task, rows) in groups {
            for row in rows {
                let own = rest.by_ref().take(task.output.outputs()).collect();
                if let Some(place) = logits.get_mut(row as usize) {
                    *place = own;
                }
            }
        }
        Ok(logits)
    }

    /// Whether the last batch was of `task` alone too, for a batch of it alone if `is_one`.
    fn was_last(&self, task: &BankTask, is_one: bool) -> bool {
        let mut alone = self.alone.borrow_mut();
        let was_last = matches!(&*alone, Some((number, _)) if *number == task.number);
        if !is_one {
            *alone = None;
        } else if !was_last {
            *alone = Some((task.number, None));
        }
        was_last
    }

    /// A model whose encoder and pooler have the vectors of `task`. Its head is of no task.
    fn alone(&self, task: &BankTask) -> Result<TaskModel> {
        let mut model = TaskModel::new(&self.base, 1, Pooling::First, None)?;
        for (name, &Place { is_weight, offset, size }) in &self.plan.places {
            let [own, vector] = [&self.plan.own, &task.row].map(|row| {
                let part = if is_weight { &row.norm_weights } else { &row.biases };
                part.get(offset..offset + size)
            });
            if let Some(vector) = vector.filter(|vector| Some(*vector) != own) {
                model.set(name, &Tensor::f_from_slice(vector)?)?;
            }
        }
        model.store.freeze();
        model.classifier.keep_in(self.kind)?;
        Ok(model)
    }
}

/// The logits of a text, from those of its windows.
fn pooled(pooling: WindowPooling, mut windows: Vec<Vec<f32>>) -> Result<Vec<f32>> {
    let count = windows.len() as i64;
    if count == 1 {
        return Ok(windows.pop().unwrap_or_default());
    }
    let logits = Tensor::f_from_slice(&windows.concat())?.f_view([count, -1])?;
    Ok(Vec::try_from(pooling.pool(&logits, &[count])?.f_flatten(0, -1)?)?)
}

/// Errs if tasks of `method` cannot share a batch with others.
fn check_method(path: &Path, method: &Method) -> Result<()> {
    let advice = match method {
        Method::Bitfit | Method::Head | Method::LayerNorm | Method::Lora(_) | Method::Probe(_) => {
            return Ok(());
        }
        Method::Full => {
            "is a base of its own: export it with bitfit export --format hf, and name the export \
             with --model"
        }
        Method::Adapter(_) => "is for one task at a time: bitfit predict --run RUN",
    };
    let method = method.name();
    let problem = format!(
        "a task of the method {method}, which {advice}; expected bitfit, head, layer_norm, lora or \
         probe, whose tasks share a batch"
    );
    Err(Error::file(path, problem))
}

/// Whether the dense layer before the output layer is the base's: BERT's pooler.
fn has_pooler(base: &Base) -> bool {
    let pooler = base.info.config.architecture.pooler();
    pooler.is_some_and(|pooler| base.tensors().contains_key(&format!("{pooler}.weight")))
}
