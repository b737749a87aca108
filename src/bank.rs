//! A bank of tasks over one base: each task is a row of the vectors that it may change, and a head
//! of its own. The sequences of a batch may be of any tasks, in any order.

use crate::base::Base;
use crate::delta::{Delta, Meta};
use crate::error::{Error, Result};
use crate::methods::Method;
use crate::native;
use crate::nn::{Packed, TaskRow};
use crate::task_model::TaskModel;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Values that a vector's place in a row is a multiple of: 64 bytes.
const ALIGNED: usize = 16;

/// A base that several tasks predict with in one batch.
#[derive(Debug)]
pub struct Bank {
    base: Base,
    /// The layers over the base's weights; its vectors come from the tasks' rows.
    model: TaskModel,
    /// Where each vector lies in a row, and its size, by canonical name.
    places: BTreeMap<String, (usize, usize)>,
    /// The base's own vectors.
    own: TaskRow,
}

/// A task of a [`Bank`].
#[derive(Debug)]
pub struct Task {
    /// What the task's delta says of itself.
    pub meta: Meta,
    row: TaskRow,
    /// The dense layer before the output, weight and bias, where the base has none.
    dense: Option<(Tensor, Tensor)>,
    /// The output layer, weight `[L, H]` and bias `[L]`.
    output: (Tensor, Tensor),
}

impl Bank {
    /// Makes a bank without tasks. Rows hold every vector of the base: biases, and LayerNorm's
    /// weights.
    pub fn new(base: Base) -> Result<Self> {
        let mut model = TaskModel::new(&base, 1, None)?;
        model.store.freeze();
        let (mut places, mut values) = (BTreeMap::new(), vec![]);
        for (name, tensor) in base.tensors().iter().filter(|(_, tensor)| tensor.dim() == 1) {
            let (start, vector) = (values.len(), vector(tensor)?);
            places.insert(name.clone(), (start, vector.len()));
            values.extend(vector);
            values.resize(values.len().next_multiple_of(ALIGNED), 0.0);
        }
        let offset = |name: &str| {
            let place = places.get(name).map(|(offset, _)| *offset);
            place.ok_or_else(|| Error::Bug(format!("{name} is no vector of the base")))
        };
        model.classifier.route(&model.config, &offset)?;
        if let Some(pooler) = shared_dense(&base)
            && let Some((offset, _)) = places.get(&format!("{pooler}.bias"))
        {
            model.classifier.head_mut().route_dense(*offset);
        }
        Ok(Self { base, model, places, own: values.into() })
    }

    /// Makes a task of a delta, read from `path`. One that is not a row is refused: of LoRA,
    /// adapters or full fine-tuning.
    pub fn task(&self, path: &Path, delta: Delta) -> Result<Task> {
        if !matches!(delta.meta.method, Method::Bitfit | Method::Head | Method::LayerNorm) {
            let problem = format!(
                "a task of the method {}, which no batch of several tasks takes; expected bitfit, head or layer_norm",
                delta.meta.method.name()
            );
            return Err(Error::file(path, problem));
        }
        let outputs = delta.meta.task_type.outputs(delta.meta.labels.len());
        delta.check(path, &TaskModel::new(&self.base, outputs, None)?)?;
        let mut row = self.own.to_vec();
        let mut head = BTreeMap::new();
        for (name, tensor) in &delta.tensors {
            match self.places.get(name) {
                Some(&(offset, size)) => {
                    let place = row.get_mut(offset..offset + size);
                    let place = place.ok_or_else(|| Error::Bug(format!("no place of {name}")))?;
                    place.copy_from_slice(&vector(tensor)?);
                }
                None if self.base.tensors().contains_key(name) => {
                    let problem = format!("{name} differs from the base's, and is no vector");
                    return Err(Error::file(path, problem));
                }
                None => {
                    let own = tensor.f_detach_copy()?.f_to_device(self.base.device())?;
                    head.insert(name.clone(), own);
                }
            }
        }
        let mut take = |module: &str| {
            let mut leaf = |leaf: &str| {
                let name = format!("{module}.{leaf}");
                head.remove(&name).ok_or_else(|| Error::Bug(format!("a task without {name}")))
            };
            Ok::<_, Error>((leaf("weight")?, leaf("bias")?))
        };
        let architecture = self.base.info.config.architecture;
        let dense = match shared_dense(&self.base) {
            Some(_) => None,
            None => Some(take(architecture.dense())?),
        };
        let output = take(architecture.output())?;
        Ok(Task { meta: delta.meta, row: row.into(), dense, output })
    }

    /// The logits of each sequence of `batch`, by its own task's labels; `tasks` has the task of
    /// each sequence.
    pub fn logits(&self, mut batch: Packed, tasks: &[&Task]) -> Result<Vec<Vec<f32>>> {
        if tasks.len() != batch.sequences() {
            let (tasks, sequences) = (tasks.len(), batch.sequences());
            return Err(Error::Bug(format!("{tasks} tasks for {sequences} sequences")));
        }
        let _guard = tch::no_grad_guard();
        batch.task_rows = tasks.iter().map(|task| task.row.clone()).collect();
        // What fills the batch up is of no task.
        batch.task_rows.resize(batch.cu_seqlens.len().saturating_sub(1), self.own.clone());
        let head = self.model.classifier.head();
        let mut first = self.model.classifier.encode(&batch)?;
        if shared_dense(&self.base).is_some() {
            first = head.pooled(&first, &batch.first_rows()?)?;
        }
        // The sequences of one task are one product.
        let mut of_task: BTreeMap<*const f32, (&Task, Vec<i64>)> = BTreeMap::new();
        for (task, sequence) in tasks.iter().zip(0..) {
            of_task.entry(task.row.as_ptr()).or_insert_with(|| (*task, vec![])).1.push(sequence);
        }
        let mut logits = vec![vec![]; tasks.len()];
        for (task, sequences) in of_task.into_values() {
            let index = Tensor::f_from_slice(&sequences)?.f_to_device(first.device())?;
            let mut x = first.f_index_select(0, &index)?;
            if let Some((weight, bias)) = &task.dense {
                x = head.activated(native::product(&x, weight, Some(bias))?)?;
            }
            let (weight, bias) = &task.output;
            let found = native::product(&x, weight, Some(bias))?;
            let found = found.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
            let width = usize::try_from(weight.size().first().copied().unwrap_or(1)).unwrap_or(1);
            let values = Vec::<f32>::try_from(found.f_contiguous()?.f_view([-1])?)?;
            for (sequence, values) in sequences.into_iter().zip(values.chunks(width)) {
                if let Some(place) = logits.get_mut(sequence as usize) {
                    *place = values.to_vec();
                }
            }
        }
        Ok(logits)
    }
}

/// The dense layer before the output layer, where it is the base's: BERT's pooler.
fn shared_dense(base: &Base) -> Option<&'static str> {
    let pooler = base.info.config.architecture.pooler()?;
    base.tensors().contains_key(&format!("{pooler}.weight")).then_some(pooler)
}

fn vector(tensor: &Tensor) -> Result<Vec<f32>> {
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
    Ok(Vec::try_from(tensor.f_contiguous()?.f_view([-1])?)?)
}
