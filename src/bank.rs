//! A bank of tasks over one base: each task is a row of the vectors that it may change, and a head
//! of its own. The sequences of a batch may be of any tasks, in any order.

use crate::base::{Base, BaseInfo};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::methods::Method;
use crate::models::Task;
use crate::native::{self, TaskLayer};
use crate::nn::{Packed, Precision, TaskRow, TaskRows, to_rows};
use crate::task_model::TaskModel;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
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
    /// The model of the last batch that was of one task.
    alone: RefCell<Option<(TaskRow, TaskModel)>>,
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
    row: TaskRow,
    /// The dense layer before the output, where the base has none.
    dense: Option<TaskLayer>,
    /// The output layer, `H` inputs and `L` outputs.
    output: TaskLayer,
}

impl TaskPlan {
    /// Makes a task from `delta`, read from `path`. Errs for LoRA, adapters and full fine-tuning,
    /// which change more than vectors, for a delta of another base, and for NaN or infinity.
    pub fn task(&self, path: &Path, delta: &Delta) -> Result<BankTask> {
        let Delta { meta, .. } = delta;
        check_method(path, &meta.method)?;
        delta.check_base(path, &self.info)?;
        let architecture = self.info.config.architecture;
        let outputs = meta.task.outputs() as i64;
        let shape = |name: &str| {
            let mut shape = self.shapes.get(name)?.clone();
            if name.strip_prefix(architecture.head.output).is_some_and(|leaf| leaf.starts_with('.'))
            {
                shape.first_mut().into_iter().for_each(|rows| *rows = outputs);
            }
            Some(shape)
        };
        delta.check_tensors(path, &shape, &self.new)?;
        let (mut biases, mut norm_weights) = (self.own.biases.to_vec(), None);
        let mut head = BTreeMap::new();
        for (name, tensor) in &delta.tensors {
            match self.places.get(name) {
                Some(&Place { is_weight, offset, size }) => {
                    let part = match is_weight {
                        true => norm_weights.get_or_insert_with(|| self.own.norm_weights.to_vec()),
                        false => &mut biases,
                    };
                    let place = part.get_mut(offset..offset + size);
                    let place = place.ok_or_else(|| Error::Bug(format!("no place of {name}")))?;
                    tensor.f_copy_data(place, size)?;
                    if !place.iter().all(|value| value.is_finite()) {
                        return Err(Error::file(path, format!("{name} contains NaN or infinity")));
                    }
                }
                None if self.of_base.contains(name) => {
                    let problem =
                        format!("{name}: found in the task, expected only vectors of the base");
                    return Err(Error::file(path, problem));
                }
                None => {
                    if !bool::try_from(tensor.f_isfinite()?.f_all()?)? {
                        return Err(Error::file(path, format!("{name} contains NaN or infinity")));
                    }
                    head.insert(name.clone(), tensor);
                }
            }
        }
        let mut take = |module: &str| {
            let mut leaf = |leaf: &str| {
                let name = format!("{module}.{leaf}");
                head.remove(&name).ok_or_else(|| Error::Bug(format!("a task without {name}")))
            };
            TaskLayer::new(leaf("weight")?, leaf("bias")?)
        };
        let dense = if self.has_pooler { None } else { Some(take(architecture.head.dense)?) };
        let output = take(architecture.head.output)?;
        delta.check_unchanged()?;
        let norm_weights = norm_weights.map_or_else(|| self.own.norm_weights.clone(), Arc::from);
        let row = TaskRow { biases: biases.into(), norm_weights };
        Ok(BankTask { task: meta.task.clone(), row, dense, output })
    }
}

impl BankTask {
    /// The dense layer, for a base that has none.
    fn own_dense(&self) -> Result<&TaskLayer> {
        self.dense.as_ref().ok_or_else(|| Error::Bug("a task without a dense layer".into()))
    }
}

impl Bank {
    /// Makes a bank without tasks, whose products are computed in `precision`. Rows hold every
    /// vector of the base: biases, and LayerNorm's weights.
    pub fn new(mut base: Base, precision: Precision) -> Result<Self> {
        let kind = precision.kind_on(base.device())?;
        base.keep_in(kind)?;
        let mut model = TaskModel::new(&base, 1, None)?;
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
        let plan = TaskPlan {
            info: base.info.clone(),
            shapes: model.shapes(),
            of_base: base.tensors().keys().cloned().collect(),
            new: model.new.clone(),
            has_pooler: has_pooler(&base),
            places,
            own: TaskRow { biases: biases.into(), norm_weights: norm_weights.into() },
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

    /// The scores of each sequence of `batch` by its own task: probabilities by label, or the
    /// number of a regression. `tasks` has the task of each sequence. Errs if something was written
    /// to the base's file.
    ///
    /// A batch of one task is computed as by a model of that task alone.
    pub fn scores(&self, batch: Packed, tasks: &[&BankTask]) -> Result<Vec<Vec<f32>>> {
        if tasks.len() != batch.sequences() {
            let (tasks, sequences) = (tasks.len(), batch.sequences());
            return Err(Error::Bug(format!("{tasks} tasks for {sequences} sequences")));
        }
        let _guard = tch::no_grad_guard();
        let scores = match tasks.split_first() {
            None => vec![],
            Some((first, others)) if others.iter().all(|task| task.row.is(&first.row)) => {
                self.scores_of_one(&batch, first)?
            }
            Some(_) => self.scores_of_several(batch, tasks)?,
        };
        self.base.info.check_unchanged()?;
        Ok(scores)
    }

    /// The scores of a batch of any tasks.
    fn scores_of_several(&self, mut batch: Packed, tasks: &[&BankTask]) -> Result<Vec<Vec<f32>>> {
        let mut rows: Vec<TaskRow> = tasks.iter().map(|task| task.row.clone()).collect();
        // The dummy sequence that pads the batch is of no task.
        rows.resize(batch.cu_seqlens.len().saturating_sub(1), self.plan.own.clone());
        batch.tasks = Some(TaskRows::new(rows));
        let (rows, head) = (batch.first_rows()?, self.model.classifier.head());
        let mut first = self.model.classifier.encode(&batch, &rows)?;
        if self.plan.has_pooler {
            first = head.pooled(&first, &rows)?;
        }
        let logits = match first.device() {
            Device::Cpu => self.logits_by_row(first, tasks)?,
            _ => self.logits_by_task(&first, tasks)?,
        };
        Ok(tasks.iter().zip(logits).map(|(t, row)| t.task.task_type.scores_of_row(&row)).collect())
    }

    /// The logits of each row of `x [B, H]` by its own task, by a kernel that reads each task's
    /// layers in place. `x` holds the input of the dense layer if the base has none.
    fn logits_by_row(&self, mut x: Tensor, tasks: &[&BankTask]) -> Result<Vec<Vec<f32>>> {
        if !self.plan.has_pooler {
            let dense: Vec<&TaskLayer> =
                tasks.iter().map(|task| task.own_dense()).collect::<Result<_>>()?;
            let rows = native::routed_linear(&x, &dense)?.f_view([tasks.len() as i64, -1])?;
            x = self.model.classifier.head().activated(rows)?;
        }
        let outputs: Vec<&TaskLayer> = tasks.iter().map(|task| &task.output).collect();
        let flat = Vec::<f32>::try_from(native::routed_linear(&x, &outputs)?)?;
        let mut rest = flat.into_iter();
        Ok(outputs.iter().map(|layer| rest.by_ref().take(layer.outputs()).collect()).collect())
    }

    /// Like [`Bank::logits_by_row`] for other devices: the rows of one task are one product.
    fn logits_by_task(&self, x: &Tensor, tasks: &[&BankTask]) -> Result<Vec<Vec<f32>>> {
        let mut of_task: BTreeMap<*const f32, (&BankTask, Vec<i64>)> = BTreeMap::new();
        for (task, row) in tasks.iter().zip(0..) {
            of_task.entry(task.row.biases.as_ptr()).or_insert((*task, vec![])).1.push(row);
        }
        let groups: Vec<(&BankTask, Vec<i64>)> = of_task.into_values().collect();
        let layers = |layer: &dyn Fn(&BankTask) -> Result<&TaskLayer>| -> Result<_> {
            let own = groups.iter().map(|(task, _)| layer(task)).collect::<Result<Vec<_>>>()?;
            TaskLayer::tensors(&own, x.device())
        };
        let dense = if self.plan.has_pooler { vec![] } else { layers(&BankTask::own_dense)? };
        let outputs = layers(&|task| Ok(&task.output))?;
        let mut all = vec![];
        for (index, ((_, rows), (weight, bias))) in groups.iter().zip(&outputs).enumerate() {
            let own = Tensor::f_from_slice(rows)?.f_to_device(x.device())?;
            let mut x = x.f_index_select(0, &own)?;
            if let Some((weight, bias)) = dense.get(index) {
                let head = self.model.classifier.head();
                x = head.activated(native::product(&x, weight, Some(bias))?)?;
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

    /// The scores of a batch of one task.
    fn scores_of_one(&self, batch: &Packed, task: &BankTask) -> Result<Vec<Vec<f32>>> {
        let mut alone = self.alone.borrow_mut();
        let model = match alone.take() {
            Some((row, model)) if row.is(&task.row) => model,
            _ => self.alone(task)?,
        };
        let (_, model) = alone.insert((task.row.clone(), model));
        let logits = model.classifier.forward(batch)?;
        to_rows(&task.task.task_type.scores(&logits)?)
    }

    /// A model of `task` alone.
    fn alone(&self, task: &BankTask) -> Result<TaskModel> {
        let mut model = TaskModel::new(&self.base, task.task.outputs(), None)?;
        for (name, &Place { is_weight, offset, size }) in &self.plan.places {
            let [own, vector] = [&self.plan.own, &task.row].map(|row| {
                let part = if is_weight { &row.norm_weights } else { &row.biases };
                part.get(offset..offset + size)
            });
            if let Some(vector) = vector.filter(|vector| Some(*vector) != own) {
                model.set(name, &Tensor::f_from_slice(vector)?)?;
            }
        }
        let architecture = self.base.info.config.architecture;
        let mut layers = vec![(architecture.head.output, &task.output)];
        layers.extend(task.dense.as_ref().map(|dense| (architecture.head.dense, dense)));
        let own: Vec<&TaskLayer> = layers.iter().map(|(_, layer)| *layer).collect();
        let tensors = TaskLayer::tensors(&own, self.base.device())?;
        for ((module, _), (weight, bias)) in layers.iter().zip(&tensors) {
            model.set(&format!("{module}.weight"), weight)?;
            model.set(&format!("{module}.bias"), bias)?;
        }
        model.store.freeze();
        model.classifier.keep_in(self.kind)?;
        Ok(model)
    }
}

/// Errs if tasks of `method` change more than vectors of the base.
fn check_method(path: &Path, method: &Method) -> Result<()> {
    if matches!(method, Method::Bitfit | Method::Head | Method::LayerNorm) {
        return Ok(());
    }
    let problem = format!(
        "a task of the method {}; expected bitfit, head or layer_norm, whose tasks share a batch",
        method.name()
    );
    Err(Error::file(path, problem))
}

/// Whether the dense layer before the output layer is the base's: BERT's pooler.
fn has_pooler(base: &Base) -> bool {
    let pooler = base.info.config.architecture.pooler();
    pooler.is_some_and(|pooler| base.tensors().contains_key(&format!("{pooler}.weight")))
}
