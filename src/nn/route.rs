//! Layers whose vectors differ from sequence to sequence: each takes them from the row of its task.
//!
//! In fp32 on the CPU one pass does what it does for a shared vector. Elsewhere the vectors are
//! gathered, one for each row of the batch, and plain operations do the rest.

use super::{Activation, Bias, PackedRows};
use crate::error::{Error, Result};
use crate::native::{self, Routed, RowSpan};
use tch::{Device, Kind, Tensor};

fn is_fast(x: &Tensor) -> bool {
    x.device() == Device::Cpu && x.kind() == Kind::Float
}

fn routed<'a>(rows: &'a PackedRows<'_>) -> Result<Routed<'a>> {
    if rows.keys.is_some() {
        return Err(Error::Bug("tasks of a mixed batch do not train".into()));
    }
    Ok(Routed { values: rows.task_rows, starts: &rows.cu_seqlens })
}

/// Adds vectors that lie side by side in `x [R, E]`, which is used up.
pub fn add(x: &Tensor, places: &[RowSpan], rows: &PackedRows<'_>) -> Result<Tensor> {
    let routed = routed(rows)?;
    if is_fast(x) {
        return native::routed_add(x, places, &routed);
    }
    let vectors = places.iter().map(|place| gathered(*place, &routed, x));
    Ok(x.f_add(&Tensor::f_cat(&vectors.collect::<Result<Vec<_>>>()?, 1)?)?)
}

/// The activation of `x [R, E]` plus a vector.
pub fn activate(
    x: &Tensor,
    place: RowSpan,
    activation: Activation,
    rows: &PackedRows<'_>,
) -> Result<Tensor> {
    let routed = routed(rows)?;
    if is_fast(x) {
        return native::routed_activation(x, place, activation as i64, &routed);
    }
    let sum = x.f_add(&gathered(place, &routed, x)?)?;
    let zero = Tensor::f_zeros([place.1 as i64], (sum.kind(), sum.device()))?;
    native::bias_activation(&sum, &zero, activation as i64)
}

/// Layer normalization of `x [R, E]`, plus `bias` and `residual` where they are given, with
/// `weight` and `shift`.
pub fn normalize(
    x: &Tensor,
    bias: Option<&Bias>,
    residual: Option<&Tensor>,
    weight: &Bias,
    shift: &Bias,
    eps: f64,
    rows: &PackedRows<'_>,
) -> Result<Tensor> {
    let routed = routed(rows)?;
    let place = |bias: &Bias| match bias {
        Bias::Routed { offset, size } => Ok((*offset, *size)),
        Bias::Shared(_) => Err(Error::Bug("a shared vector next to routed ones".into())),
    };
    let (bias, weight, shift) = (bias.map(place).transpose()?, place(weight)?, place(shift)?);
    if is_fast(x) {
        return native::routed_norm(x, bias, residual, weight, shift, eps, &routed);
    }
    let mut sum = x.shallow_clone();
    if let Some(bias) = bias {
        sum = sum.f_add(&gathered(bias, &routed, x)?)?;
    }
    if let Some(residual) = residual {
        sum = sum.f_add(residual)?;
    }
    let none = None::<&Tensor>;
    let hat = sum.f_layer_norm([weight.1 as i64], none, none, eps, false)?;
    Ok(hat.f_mul(&gathered(weight, &routed, x)?)?.f_add(&gathered(shift, &routed, x)?)?)
}

/// A vector for each row of the batch, `[R, E]`, on the device of `like` and in its kind.
fn gathered((offset, size): RowSpan, routed: &Routed<'_>, like: &Tensor) -> Result<Tensor> {
    let (mut values, mut index) = (vec![], vec![]);
    for (i, (row, ends)) in routed.values.iter().zip(routed.starts.windows(2)).enumerate() {
        let vector = row.get(offset..offset + size);
        values
            .extend_from_slice(vector.ok_or_else(|| Error::Bug("a row that is too short".into()))?);
        let &[start, end] = ends else { continue };
        index.resize(index.len() + usize::try_from(end - start).unwrap_or(0), i as i64);
    }
    let vectors = Tensor::f_from_slice(&values)?.f_view([-1, size as i64])?;
    let vectors = vectors.f_to_device(like.device())?.f_to_kind(like.kind())?;
    Ok(vectors.f_index_select(0, &Tensor::f_from_slice(&index)?.f_to_device(like.device())?)?)
}
