//! A bank of tasks over one base: each task is a row of the vectors that it may change, and a head
//! of its own. The sequences of a batch may be of any tasks, in any order.

use crate::base::Base;
use crate::delta::{Delta, Meta};
use crate::error::{Error, Result};
use crate::methods::Method;
use crate::native;
use crate::nn::{Packed, TaskRow, to_rows};
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
    /// Whether the dense layer before the output layer is the base's: BERT's pooler.
    has_pooler: bool,
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
        let offset = |name: &str| places.get(name).map(|(offset, _)| *offset);
        model.classifier.route(&model.config, &offset)?;
        let has_pooler = has_pooler(&base);
        Ok(Self { base, model, has_pooler, places, own: values.into() })
    }

    /// Makes a task from `delta`, read from `path`. Errs for LoRA, adapters and full fine-tuning,
    /// which change more than vectors.
    pub fn task(&self, path: &Path, delta: Delta) -> Result<Task> {
        if !matches!(delta.meta.method, Method::Bitfit | Method::Head | Method::LayerNorm) {
            let problem = format!(
                "a task of the method {}, which no batch of several tasks takes; expected bitfit, head or layer_norm",
                delta.meta.method.name()
            );
            return Err(Error::file(path, problem));
        }
        delta.check(path, &TaskModel::new(&self.base, delta.meta.task.outputs(), None)?)?;
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
                    let problem = format!(
                        "{name}: a task of a mixed batch may change only vectors of the base"
                    );
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
        let dense = if self.has_pooler { None } else { Some(take(architecture.head.dense)?) };
        let output = take(architecture.head.output)?;
        delta.check_unchanged()?;
        Ok(Task { meta: delta.meta, row: row.into(), dense, output })
    }

    /// The logits of each sequence of `batch`, one for each label of its own task. `tasks` has the
    /// task of each sequence. Errs if something was written to the base's file.
    pub fn logits(&self, mut batch: Packed, tasks: &[&Task]) -> Result<Vec<Vec<f32>>> {
        if tasks.len() != batch.sequences() {
            let (tasks, sequences) = (tasks.len(), batch.sequences());
            return Err(Error::Bug(format!("{tasks} tasks for {sequences} sequences")));
        }
        let _guard = tch::no_grad_guard();
        batch.task_rows = tasks.iter().map(|task| task.row.clone()).collect();
        // The dummy sequence that pads the batch is of no task.
        batch.task_rows.resize(batch.cu_seqlens.len().saturating_sub(1), self.own.clone());
        let (rows, head) = (batch.first_rows()?, self.model.classifier.head());
        let mut first = self.model.classifier.encode(&batch, &rows)?;
        if self.has_pooler {
            first = head.pooled(&first, &rows)?;
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
            let found = to_rows(&native::product(&x, weight, Some(bias))?)?;
            for (sequence, values) in sequences.into_iter().zip(found) {
                if let Some(place) = logits.get_mut(sequence as usize) {
                    *place = values;
                }
            }
        }
        self.base.info.check_unchanged()?;
        Ok(logits)
    }
}

/// Whether the dense layer before the output layer is the base's: BERT's pooler.
fn has_pooler(base: &Base) -> bool {
    let pooler = base.info.config.architecture.pooler();
    pooler.is_some_and(|pooler| base.tensors().contains_key(&format!("{pooler}.weight")))
}

fn vector(tensor: &Tensor) -> Result<Vec<f32>> {
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
    Ok(Vec::try_from(tensor.f_contiguous()?.f_view([-1])?)?)
}
