//! The fused kernels for batches whose sequences belong to several tasks.

use super::{ffi, made, raw, raw_or_null};
use crate::error::{Error, Result};
use std::sync::Arc;
use tch::Tensor;

/// The task's values of each sequence of a batch, and where the sequence's rows begin.
#[derive(Debug, Clone, Copy)]
pub struct Routed<'a> {
    /// The values of each sequence's task.
    pub rows: &'a [Arc<[f32]>],
    /// The first row of each sequence, ascending, and the number of rows.
    pub starts: &'a [i64],
}

impl Routed<'_> {
    /// The address of each sequence's values, and the number of sequences. Errs if a vector of
    /// `places` (offset and size) lies outside a task's values.
    fn addresses(&self, places: &[(usize, usize)]) -> Result<(Vec<*const f32>, i64)> {
        let ends = places.iter().map(|(offset, size)| offset.saturating_add(*size));
        let end = ends.max().unwrap_or(0);
        let in_order = self.starts.windows(2).all(|pair| matches!(pair, [a, b] if a <= b));
        if self.rows.iter().any(|row| row.len() < end)
            || self.starts.len() != self.rows.len() + 1
            || !in_order
        {
            let (rows, starts) = (self.rows.len(), self.starts.len());
            let problem = format!("{rows} sequences for {starts} starts, or a row below {end}");
            return Err(Error::Bug(problem));
        }
        let addresses = self.rows.iter().map(|row| row.as_ptr()).collect();
        Ok((addresses, i64::try_from(self.rows.len()).unwrap_or(i64::MAX)))
    }
}

/// Adds the vectors at `places` (offset and size) to `x [R, E]`, where they lie side by side.
/// Overwrites `x`.
pub fn routed_add(x: &Tensor, places: &[(usize, usize)], routed: &Routed<'_>) -> Result<Tensor> {
    let (rows, count) = routed.addresses(places)?;
    let offsets: Vec<i64> = places.iter().map(|(offset, _)| *offset as i64).collect();
    let sizes = |size: usize| places.iter().all(|place| place.1 == size);
    let columns = x.size().last().copied().unwrap_or(0) as usize;
    if places.is_empty() || !sizes(columns / places.len()) || !columns.is_multiple_of(places.len())
    {
        return Err(Error::Bug(format!("{columns} columns for vectors {places:?}")));
    }
    let pieces = offsets.len() as i64;
    // SAFETY: the tensors outlive the call; each row has the vectors, and there is a start for each
    // and one more.
    made("routed bias", |out| unsafe {
        let (starts, offsets) = (routed.starts.as_ptr(), offsets.as_ptr());
        ffi::bitfit_routed_add(out, raw(x), rows.as_ptr(), starts, count, offsets, pieces)
    })
}

/// The activation `kind` of `x [R, C]` plus the vector at `place`. Overwrites `x`.
pub fn routed_activation(
    x: &Tensor,
    place: (usize, usize),
    kind: i64,
    routed: &Routed<'_>,
) -> Result<Tensor> {
    let (rows, count) = routed.addresses(&[place])?;
    fits(x, &[place])?;
    // SAFETY: as in `routed_add`.
    made("routed bias and activation", |out| unsafe {
        let (rows, starts) = (rows.as_ptr(), routed.starts.as_ptr());
        ffi::bitfit_routed_activation(out, raw(x), rows, starts, count, place.0 as i64, kind)
    })
}

/// LayerNorm, with the vectors at `weight` and `shift`, of `x [R, C]` plus `residual` and the
/// vector at `bias`, where they are given.
pub fn routed_norm(
    x: &Tensor,
    bias: Option<(usize, usize)>,
    residual: Option<&Tensor>,
    weight: (usize, usize),
    shift: (usize, usize),
    eps: f64,
    routed: &Routed<'_>,
) -> Result<Tensor> {
    let places: Vec<_> = bias.into_iter().chain([weight, shift]).collect();
    let (rows, count) = routed.addresses(&places)?;
    fits(x, &places)?;
    let offsets = [bias.map_or(-1, |bias| bias.0 as i64), weight.0 as i64, shift.0 as i64];
    // SAFETY: as in `routed_add`.
    made("routed LayerNorm", |out| unsafe {
        let (rows, starts) = (rows.as_ptr(), routed.starts.as_ptr());
        ffi::bitfit_routed_norm(
            out,
            raw(x),
            raw_or_null(residual),
            rows,
            starts,
            count,
            offsets.as_ptr(),
            eps,
        )
    })
}

/// Checks that vectors are as long as the rows of `x`.
fn fits(x: &Tensor, places: &[(usize, usize)]) -> Result<()> {
    let columns = x.size().last().copied().unwrap_or(0);
    if places.iter().all(|place| place.1 as i64 == columns) {
        return Ok(());
    }
    Err(Error::Bug(format!("{columns} columns for vectors {places:?}")))
}
