//! The fused kernels for batches whose sequences belong to several tasks. On the CPU they read each
//! task's row in place; on a GPU they read tables with the rows of all tasks of the batch.

use super::{Values, check, ffi, made, made_rounded, raw, raw_or_null};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// A task's row of a bank: the vectors of its layers.
#[derive(Debug, Clone)]
pub struct TaskRow {
    /// The biases, one after another.
    pub biases: Values,
    /// The weights of LayerNorm, one after another. Tasks that leave them as they are share the
    /// base's.
    pub norm_weights: Values,
    /// LoRA's matrices of dense layers, by the offset of the layer's bias among the biases.
    pub lora: Option<Arc<BTreeMap<usize, LoraLayer>>>,
}

/// LoRA's matrices of a dense layer, in plain memory.
#[derive(Debug, Clone)]
pub struct LoraLayer {
    /// `A`, `[r, I]`.
    pub a: Values,
    /// `B` times the scaling, `[E, r]`.
    pub b: Values,
    /// The rank, `r`.
    pub rank: usize,
}

impl LoraLayer {
    /// `A` and `B` on `device` in `kind`.
    pub fn tensors(&self, device: Device, kind: Kind) -> Result<[Tensor; 2]> {
        let sent = |values: &Values, shape: [i64; 2]| -> Result<Tensor> {
            let values = Tensor::f_from_slice(values)?.f_view(shape)?;
            Ok(values.f_to_device(device)?.f_to_kind(kind)?)
        };
        let rank = self.rank as i64;
        Ok([sent(&self.a, [rank, -1])?, sent(&self.b, [-1, rank])?])
    }
}

impl TaskRow {
    /// Whether `other` has the same vectors, and neither has LoRA. Tasks that train only the head
    /// share the base's row.
    pub fn is(&self, other: &Self) -> bool {
        self.biases.is(&other.biases)
            && self.norm_weights.is(&other.norm_weights)
            && self.lora.is_none()
            && other.lora.is_none()
    }

    /// Reads the values in advance that are in a mapped file.
    pub fn touch(&self) {
        self.biases.touch();
        self.norm_weights.touch();
        let lora = self.lora.iter().flat_map(|layers| layers.values());
        lora.flat_map(|layer| [&layer.a, &layer.b]).for_each(Values::touch);
    }

    /// The parts of the row's memory.
    pub fn parts_mut(&mut self) -> Vec<&mut Values> {
        let mut parts = vec![&mut self.biases, &mut self.norm_weights];
        if let Some(lora) = self.lora.as_mut().and_then(Arc::get_mut) {
            parts.extend(lora.values_mut().flat_map(|layer| [&mut layer.a, &mut layer.b]));
        }
        parts
    }
}

/// Where a vector lies in its part of a [`TaskRow`], and its size.
pub type RowSpan = (usize, usize);

/// The task's row of each sequence of a batch, and where the sequence's rows begin.
#[derive(Debug, Clone, Copy)]
pub struct Routed<'a> {
    /// The row of each sequence's task.
    pub tasks: &'a [TaskRow],
    /// The first row of each sequence, ascending, and the number of rows.
    pub starts: &'a [i64],
}

impl Routed<'_> {
    /// The address of the biases of each sequence's task. Errs if a vector of `places` lies
    /// outside.
    fn biases(&self, places: &[RowSpan]) -> Result<Vec<*const f32>> {
        self.addresses(places, |task| &task.biases)
    }

    /// The address of a part of each sequence's row. Errs if a vector of `places` lies outside.
    fn addresses(
        &self,
        places: &[RowSpan],
        part: impl Fn(&TaskRow) -> &[f32],
    ) -> Result<Vec<*const f32>> {
        let ends = places.iter().map(|(offset, size)| offset.saturating_add(*size));
        let end = ends.max().unwrap_or(0);
        let in_order = self.starts.windows(2).all(|pair| matches!(pair, [a, b] if a <= b));
        if self.tasks.iter().any(|task| part(task).len() < end)
            || self.starts.len() != self.tasks.len() + 1
            || !in_order
        {
            let (sequences, starts) = (self.tasks.len(), self.starts.len());
            let problem = format!(
                "{sequences} sequences, {starts} starts in order: {in_order}; or fewer than {end} values of a task"
            );
            return Err(Error::Bug(problem));
        }
        Ok(self.tasks.iter().map(|task| part(task).as_ptr()).collect())
    }

    /// The route as C++ takes it. Its pointers are valid as long as `self` and `addresses`.
    fn args(&self, addresses: &[*const f32]) -> ffi::RouteArgs {
        let count = i64::try_from(addresses.len()).unwrap_or(i64::MAX);
        ffi::RouteArgs { values: addresses.as_ptr(), starts: self.starts.as_ptr(), count }
    }
}

/// Adds the vectors at `places` to `x [R, E]`, where they lie side by side. Overwrites `x`.
pub fn routed_add(x: &Tensor, places: &[RowSpan], routed: &Routed<'_>) -> Result<Tensor> {
    let addresses = routed.biases(places)?;
    let offsets: Vec<i64> = places.iter().map(|(offset, _)| *offset as i64).collect();
    let columns = x.size().last().copied().unwrap_or(0) as usize;
    let pieces = places.len();
    if pieces == 0 || places.iter().any(|(_, size)| size * pieces != columns) {
        return Err(Error::Bug(format!("{columns} columns for vectors {places:?}")));
    }
    let args = ffi::RoutedAddArgs {
        x: raw(x),
        route: routed.args(&addresses),
        offsets: offsets.as_ptr(),
        pieces: pieces as i64,
    };
    // SAFETY: tensors and slices outlive the call. Each task's row contains the vectors, there is
    // a start for each sequence and one more, and C++ checks the last.
    unsafe { made("routed bias", ffi::bitfit_routed_add, &args) }
}

/// Applies the activation `kind` to `x [R, C]` plus the vector at `place`. Overwrites `x`.
pub fn routed_activation(
    x: &Tensor,
    place: RowSpan,
    kind: i64,
    routed: &Routed<'_>,
) -> Result<Tensor> {
    let addresses = routed.biases(&[place])?;
    check_columns(x, &[place])?;
    let args = ffi::RoutedActivationArgs {
        x: raw(x),
        route: routed.args(&addresses),
        offset: place.0 as i64,
        kind,
    };
    // SAFETY: as in `routed_add`.
    unsafe { made("routed bias and activation", ffi::bitfit_routed_activation, &args) }
}

/// Computes the LayerNorm, with the weight at `weight` and the bias at `shift`, of `x [R, C]` plus
/// `residual` and the vector at `bias`, where they are given.
pub fn routed_norm(
    x: &Tensor,
    bias: Option<RowSpan>,
    residual: Option<&Tensor>,
    weight: RowSpan,
    shift: RowSpan,
    eps: f64,
    routed: &Routed<'_>,
) -> Result<Tensor> {
    let places: Vec<_> = bias.into_iter().chain([shift]).collect();
    let addresses = routed.biases(&places)?;
    let weights = routed.addresses(&[weight], |task| &task.norm_weights)?;
    check_columns(x, &places)?;
    check_columns(x, &[weight])?;
    let args = ffi::RoutedNormArgs {
        x: raw(x),
        residual: raw_or_null(residual),
        route: routed.args(&addresses),
        weights: weights.as_ptr(),
        bias: bias.map_or(-1, |bias| bias.0 as i64),
        weight: weight.0 as i64,
        shift: shift.0 as i64,
        eps,
    };
    // SAFETY: as in `routed_add`.
    unsafe { made("routed LayerNorm", ffi::bitfit_routed_norm, &args) }
}

/// A dense layer of a task, in plain memory that threads can share.
#[derive(Debug, Clone)]
pub struct TaskLayer {
    /// The weight `[E, I]`.
    weight: Values,
    /// The bias `[E]`.
    bias: Values,
}

impl TaskLayer {
    /// Takes a weight `[E, I]` and a bias `[E]`. Errs if they do not fit together.
    pub fn new(weight: Values, bias: Values) -> Result<Self> {
        if bias.is_empty() || weight.is_empty() || !weight.len().is_multiple_of(bias.len()) {
            let (weight, bias) = (weight.len(), bias.len());
            return Err(Error::Bug(format!("a bias of {bias} values for a weight of {weight}")));
        }
        Ok(Self { weight, bias })
    }

    /// The parts of the layer's memory.
    pub fn parts_mut(&mut self) -> [&mut Values; 2] {
        [&mut self.weight, &mut self.bias]
    }

    /// Reads the values in advance that are in a mapped file.
    pub fn touch(&self) {
        self.weight.touch();
        self.bias.touch();
    }

    /// The number of outputs, `E`.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Copies weight and bias of each layer to `device`, all at once.
    pub fn tensors(layers: &[&Self], device: Device) -> Result<Vec<(Tensor, Tensor)>> {
        let parts = layers.iter().flat_map(|layer| [&layer.weight[..], &layer.bias[..]]);
        let all = Tensor::f_from_slice(&parts.collect::<Vec<_>>().concat())?.f_to_device(device)?;
        let mut start = 0;
        let mut piece = |length: usize| {
            start += length as i64;
            all.f_narrow(0, start - length as i64, length as i64)
        };
        let tensors = layers.iter().map(|layer| {
            let weight = piece(layer.weight.len())?.f_view([layer.outputs() as i64, -1])?;
            Ok((weight, piece(layer.outputs())?))
        });
        tensors.collect()
    }
}

/// Computes, for each row of `x [B, I]` in fp32 on the CPU, the output of its own layer. Returns
/// the outputs of all rows, one row after the other.
pub fn routed_linear(x: &Tensor, layers: &[&TaskLayer]) -> Result<Tensor> {
    let inputs = x.size().last().copied().unwrap_or(0) as usize;
    if layers.iter().any(|layer| layer.weight.len() != layer.outputs() * inputs) {
        return Err(Error::Bug(format!("layers of tasks for other inputs than {inputs}")));
    }
    let weights: Vec<*const f32> = layers.iter().map(|layer| layer.weight.as_ptr()).collect();
    let biases: Vec<*const f32> = layers.iter().map(|layer| layer.bias.as_ptr()).collect();
    let outputs: Vec<i64> = layers.iter().map(|layer| layer.outputs() as i64).collect();
    let args = ffi::RoutedLinearArgs {
        x: raw(x),
        weights: weights.as_ptr(),
        biases: biases.as_ptr(),
        outputs: outputs.as_ptr(),
        count: layers.len() as i64,
    };
    // SAFETY: tensors, slices and layers outlive the call. Each layer has as many values as its
    // outputs and the row's inputs need, and C++ checks that there is a layer for each row.
    unsafe { made("heads of tasks", ffi::bitfit_routed_linear, &args) }
}

/// The vectors of the tasks of a batch on a device with kernels.
#[derive(Debug, Clone, Copy)]
pub struct TaskTables<'a> {
    /// The biases of each task, fp32 `[K, P]`.
    pub biases: &'a Tensor,
    /// The LayerNorm weights of each task, fp32 `[K, W]`.
    pub norm_weights: &'a Tensor,
    /// The task of each row of the batch, int64 `[R]`, below `K`.
    pub of_row: &'a Tensor,
}

impl TaskTables<'_> {
    fn args(&self) -> ffi::TablesArgs {
        ffi::TablesArgs {
            biases: raw(self.biases),
            norm_weights: raw(self.norm_weights),
            of_row: raw(self.of_row),
        }
    }

    /// Adds the vectors at `places` to `x [R, E]`, where they lie side by side. Overwrites `x`.
    pub fn add(&self, x: &Tensor, places: &[RowSpan]) -> Result<Tensor> {
        let offsets: Vec<i64> = places.iter().map(|(offset, _)| *offset as i64).collect();
        let columns = x.size().last().copied().unwrap_or(0) as usize;
        if places.iter().any(|(_, size)| size * places.len() != columns) {
            return Err(Error::Bug(format!("{columns} columns for vectors {places:?}")));
        }
        let args = ffi::TaskAddArgs {
            x: raw(x),
            tables: self.args(),
            offsets: offsets.as_ptr(),
            pieces: offsets.len() as i64,
        };
        // SAFETY: tensors and slices outlive the call. C++ checks that the tables have the vectors,
        // and who made the tables keeps `of_row` below the number of their rows.
        unsafe { made("biases of tasks", ffi::bitfit_task_add, &args) }
    }

    /// Applies the activation `kind` to `x [R, C]` plus the vector at `place`. Overwrites `x`.
    pub fn activation(&self, x: &Tensor, place: RowSpan, kind: i64) -> Result<Tensor> {
        check_columns(x, &[place])?;
        let args = ffi::TaskActivationArgs {
            x: raw(x),
            tables: self.args(),
            offset: place.0 as i64,
            kind,
        };
        // SAFETY: as in `add`.
        unsafe { made("activation of tasks", ffi::bitfit_task_activation, &args) }
    }

    /// Computes the LayerNorm of [`routed_norm`]. Returns it in fp32, and in the kind of `x` if
    /// that has half precision.
    pub fn norm(
        &self,
        x: &Tensor,
        bias: Option<RowSpan>,
        residual: Option<&Tensor>,
        weight: RowSpan,
        shift: RowSpan,
        eps: f64,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let places: Vec<_> = bias.into_iter().chain([weight, shift]).collect();
        check_columns(x, &places)?;
        let args = ffi::TaskNormArgs {
            x: raw(x),
            residual: raw_or_null(residual),
            tables: self.args(),
            bias: bias.map_or(-1, |bias| bias.0 as i64),
            weight: weight.0 as i64,
            shift: shift.0 as i64,
            eps,
        };
        // SAFETY: as in `add`.
        unsafe { made_rounded("LayerNorm of tasks", ffi::bitfit_task_norm, &args) }
    }
}

/// Whether the device of `x` has kernels for its kind.
pub fn has_kernels(x: &Tensor) -> Result<bool> {
    let mut found = false;
    // SAFETY: `x` outlives the call, and C++ writes to `found` only during it.
    check(unsafe { ffi::bitfit_has_kernels(&mut found, raw(x)) }, "looking for kernels")?;
    Ok(found)
}

/// Checks that vectors are as long as the rows of `x`.
fn check_columns(x: &Tensor, places: &[RowSpan]) -> Result<()> {
    let columns = x.size().last().copied().unwrap_or(0);
    if places.iter().all(|place| place.1 as i64 == columns) {
        return Ok(());
    }
    Err(Error::Bug(format!("{columns} columns for vectors {places:?}")))
}
