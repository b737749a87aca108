//! Layers for batches of several tasks: each sequence takes biases and LayerNorm weights from the
//! row of its task.
//!
//! In fp32 on the CPU, a kernel reads the row of each sequence in place. On a GPU, a kernel reads a
//! table with the rows of the batch's tasks. Elsewhere, a copy of the vector is gathered for each
//! row of the batch, and plain tensor operations follow.

use super::{Activation, Bias, PackedRows};
use crate::error::{Error, Result};
use crate::native::{self, Routed, RowSpan, TaskRow, TaskTables};
use std::cell::OnceCell;
use tch::{Device, Kind, Tensor};

/// The row of each sequence's task, for a batch whose sequences are of several tasks.
#[derive(Debug)]
pub struct TaskRows {
    rows: Vec<TaskRow>,
    /// The same on the device of a layer that asked for them.
    table: OnceCell<Table>,
}

/// The rows of the tasks of a batch, on a device.
#[derive(Debug)]
struct Table {
    /// The biases of each task, `[K, P]`.
    biases: Tensor,
    /// The LayerNorm weights of each task, `[K, W]`.
    norm_weights: Tensor,
    /// The number of each sequence's task, below `K`.
    of_sequence: Vec<i64>,
}

impl TaskRows {
    /// Takes the row of each sequence's task, in the order of the sequences.
    pub fn new(rows: Vec<TaskRow>) -> Self {
        Self { rows, table: OnceCell::new() }
    }

    /// Sends the row of each task to `device`, once for all layers.
    fn table(&self, device: Device) -> Result<&Table> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let (mut tasks, mut of_sequence): (Vec<&TaskRow>, Vec<i64>) = (vec![], vec![]);
        for row in &self.rows {
            let known = tasks.iter().position(|task| task.is(row));
            of_sequence.push(known.unwrap_or(tasks.len()) as i64);
            if known.is_none() {
                tasks.push(row);
            }
        }
        let sent = |part: fn(&TaskRow) -> &[f32]| -> Result<Tensor> {
            let values = tasks.iter().map(|task| part(task)).collect::<Vec<_>>().concat();
            let values = Tensor::f_from_slice(&values)?.f_view([tasks.len() as i64, -1])?;
            Ok(values.f_to_device(device)?)
        };
        let (biases, norm_weights) = (sent(|task| &task.biases)?, sent(|task| &task.norm_weights)?);
        Ok(self.table.get_or_init(|| Table { biases, norm_weights, of_sequence }))
    }
}

/// The rows of a batch whose sequences are of several tasks.
fn task_rows<'a>(rows: &PackedRows<'a>) -> Result<&'a TaskRows> {
    if rows.keys.is_some() {
        return Err(Error::Bug("tasks of a mixed batch do not train".into()));
    }
    rows.tasks.ok_or_else(|| Error::Bug("routed vectors without tasks".into()))
}

/// How the vectors of a batch's tasks are reached.
enum Way<'a> {
    /// A kernel reads each task's row in place.
    InPlace(Routed<'a>),
    /// A kernel reads tables.
    Tables(TaskTables<'a>),
    /// Tensor operations read a copy for each row.
    Gathered,
}

impl<'a> Way<'a> {
    /// The way for rows like `x`.
    fn of(x: &Tensor, rows: &'a PackedRows<'_>) -> Result<Self> {
        if native::has_kernels(x)? {
            let Table { biases, norm_weights, .. } = task_rows(rows)?.table(x.device())?;
            let of_row = task_of_row(rows, x.device())?;
            return Ok(Self::Tables(TaskTables { biases, norm_weights, of_row }));
        }
        Ok(match (x.device(), x.kind()) {
            (Device::Cpu, Kind::Float) => {
                Self::InPlace(Routed { tasks: &task_rows(rows)?.rows, starts: &rows.cu_seqlens })
            }
            _ => Self::Gathered,
        })
    }
}

/// Adds vectors that lie side by side to `x [R, E]`, which may be overwritten.
pub fn add(x: &Tensor, places: &[RowSpan], rows: &PackedRows<'_>) -> Result<Tensor> {
    match Way::of(x, rows)? {
        Way::InPlace(routed) => return native::routed_add(x, places, &routed),
        Way::Tables(tables) => return tables.add(x, places),
        Way::Gathered => {}
    }
    let vectors = places.iter().map(|place| gathered(*place, |table| &table.biases, rows, x));
    Ok(x.f_add(&Tensor::f_cat(&vectors.collect::<Result<Vec<_>>>()?, 1)?)?)
}

/// Adds the LoRA of each sequence's task, if it has one there, to the columns of `y [R, E]` from
/// `column` on, in place: the output of the dense layer with the input `x [R, I]` and the bias at
/// `offset`.
pub fn add_lora(
    y: &Tensor,
    x: &Tensor,
    offset: usize,
    column: i64,
    rows: &PackedRows<'_>,
) -> Result<()> {
    let Some(tasks) = rows.tasks else { return Ok(()) };
    for (task, ends) in tasks.rows.iter().zip(rows.cu_seqlens.windows(2)) {
        let (Some(lora), &[start, end]) = (&task.lora, ends) else { continue };
        let Some(layer) = lora.get(&offset).filter(|_| end > start) else { continue };
        let [a, b] = layer.tensors(y.device(), y.kind())?;
        let own = x.f_narrow(0, start, end - start)?.f_to_kind(y.kind())?;
        let outputs = b.size().first().copied().unwrap_or(0);
        let mut y = y.f_narrow(0, start, end - start)?.f_narrow(1, column, outputs)?;
        let _ = y.f_addmm_(&own.f_mm(&a.f_tr()?)?, &b.f_tr()?)?;
    }
    Ok(())
}

/// Applies `activation` to `x [R, E]` plus a vector; `x` may be overwritten.
pub fn activate(
    x: &Tensor,
    place: RowSpan,
    activation: Activation,
    rows: &PackedRows<'_>,
) -> Result<Tensor> {
    match Way::of(x, rows)? {
        Way::InPlace(routed) => {
            return native::routed_activation(x, place, activation as i64, &routed);
        }
        Way::Tables(tables) => return tables.activation(x, place, activation as i64),
        Way::Gathered => {}
    }
    let sum = x.f_add(&gathered(place, |table| &table.biases, rows, x)?)?;
    let zero = Tensor::f_zeros([place.1 as i64], (sum.kind(), sum.device()))?;
    native::bias_activation(&sum, &zero, activation as i64)
}

/// Layer normalization of `x [R, E]`, plus `bias` and `residual` where they are given, with
/// `weight` and `shift`. Returns it in the kind of the residual, or of `x` without one, and in half
/// precision if a kernel made both.
pub fn normalize(
    x: &Tensor,
    bias: Option<&Bias>,
    residual: Option<&Tensor>,
    weight: &Bias,
    shift: &Bias,
    eps: f64,
    rows: &PackedRows<'_>,
) -> Result<(Tensor, Option<Tensor>)> {
    let place = |bias: &Bias| match bias {
        Bias::Routed { offset, size } => Ok((*offset, *size)),
        Bias::Shared(_) => Err(Error::Bug("a shared vector beside routed ones".into())),
    };
    let (bias, weight, shift) = (bias.map(place).transpose()?, place(weight)?, place(shift)?);
    match Way::of(x, rows)? {
        Way::InPlace(routed) => {
            let y = native::routed_norm(x, bias, residual, weight, shift, eps, &routed)?;
            return Ok((y, None));
        }
        Way::Tables(tables) => return tables.norm(x, bias, residual, weight, shift, eps),
        Way::Gathered => {}
    }
    let kind = residual.map_or(x.kind(), Tensor::kind);
    let mut sum = x.f_to_kind(kind)?;
    if let Some(bias) = bias {
        sum = sum.f_add(&gathered(bias, |table| &table.biases, rows, &sum)?)?;
    }
    if let Some(residual) = residual {
        sum = sum.f_add(residual)?;
    }
    let none = None::<&Tensor>;
    let normalized = sum.f_layer_norm([weight.1 as i64], none, none, eps, false)?;
    let weight = gathered(weight, |table| &table.norm_weights, rows, &sum)?;
    let shift = gathered(shift, |table| &table.biases, rows, &sum)?;
    Ok((normalized.f_mul(&weight)?.f_add(&shift)?, None))
}

/// The vector at `place` of a part of the tasks' rows, for each row of the batch, `[R, E]`, on the
/// device of `like` and in its kind.
fn gathered(
    (offset, size): RowSpan,
    part: fn(&Table) -> &Tensor,
    rows: &PackedRows<'_>,
    like: &Tensor,
) -> Result<Tensor> {
    let table = task_rows(rows)?.table(like.device())?;
    let vectors = part(table).f_narrow(1, offset as i64, size as i64)?;
    let of_row = task_of_row(rows, like.device())?;
    Ok(vectors.f_index_select(0, of_row)?.f_to_kind(like.kind())?)
}

/// The row of the table that each row of the batch takes, int64 `[R]` on `device`.
fn task_of_row<'a>(rows: &'a PackedRows<'_>, device: Device) -> Result<&'a Tensor> {
    let table = task_rows(rows)?.table(device)?;
    if rows.cu_seqlens.len() != table.of_sequence.len() + 1 {
        let (sequences, starts) = (table.of_sequence.len(), rows.cu_seqlens.len());
        return Err(Error::Bug(format!("{sequences} sequences for {starts} starts")));
    }
    if let Some(index) = rows.task_index.get() {
        return Ok(index);
    }
    let mut index = vec![];
    for (task, ends) in table.of_sequence.iter().zip(rows.cu_seqlens.windows(2)) {
        let &[start, end] = ends else { continue };
        index.resize(index.len() + usize::try_from(end - start).unwrap_or(0), *task);
    }
    let index = Tensor::f_from_slice(&index)?.f_to_device(device)?;
    Ok(rows.task_index.get_or_init(|| index))
}
