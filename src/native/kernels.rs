//! The fused kernels of the encoder: attention, bias and activation, bias and residual and
//! LayerNorm, and the dropout inside them.

use super::{check, ffi, made, made_rounded, raw, raw_or_null};
use crate::error::{Error, Result};
use tch::Tensor;

/// Loads compiled kernels on the CUDA device `index`. From then on they compute there, instead of
/// tensor operations.
pub fn load_kernels(index: usize, image: &[u8]) -> Result<()> {
    let index = i64::try_from(index).unwrap_or(-1);
    // SAFETY: the driver reads the image only during the call, and an image has its own length.
    check(unsafe { ffi::bitfit_kernels_load(index, image.as_ptr().cast()) }, "loading the kernels")
}

/// The name of the CUDA device `index`, such as `NVIDIA H100 80GB HBM3`.
pub fn gpu_name(index: usize) -> Result<String> {
    let (mut out, index) = (std::ptr::null(), i64::try_from(index).unwrap_or(-1));
    // SAFETY: on success `out` points to a text that lives until this thread's next call.
    unsafe {
        check(ffi::bitfit_gpu_name(&mut out, index), "reading the device's name")?;
        Ok(std::ffi::CStr::from_ptr(out).to_string_lossy().into_owned())
    }
}

/// The compute capability of the CUDA device `index`, such as 80 for 8.0.
pub fn capability(index: usize) -> Result<i64> {
    let (mut found, index) = (0, i64::try_from(index).unwrap_or(-1));
    // SAFETY: C++ writes to `found` only during the call.
    check(unsafe { ffi::bitfit_capability(&mut found, index) }, "reading the compute capability")?;
    Ok(found)
}

/// Dropout at one place of the model.
#[derive(Debug, Clone, Copy)]
pub struct Dropped<'a> {
    /// One int64 key for each row; `None` disables dropout.
    pub keys: Option<&'a Tensor>,
    /// The number of the place in the model. The mask is a function of the keys and the site.
    pub site: i64,
    /// The probability that an entry is dropped, in [0, 1).
    pub probability: f64,
}

impl Dropped<'_> {
    fn mask(&self) -> ffi::MaskArgs {
        let Self { keys, site, probability } = *self;
        ffi::MaskArgs { keys: raw_or_null(keys), site, probability }
    }
}

/// Applies dropout to `x [.., R, C]`. The mask is a pure function of `keys [R]` (int64, one for
/// each row), `site`, the leading index and the column.
///
/// Kept entries are scaled by `1 / (1 - probability)`. The result is differentiable. Backward
/// computes the mask again, so that no mask is stored.
pub fn dropout(x: &Tensor, keys: &Tensor, site: i64, probability: f64) -> Result<Tensor> {
    let mask = Dropped { keys: Some(keys), site, probability }.mask();
    let args = ffi::DropoutArgs { x: raw(x), mask };
    // SAFETY: the tensors outlive the call, and C++ checks their shapes.
    unsafe { made("dropout", ffi::bitfit_dropout, &args) }
}

/// Scaled dot-product attention with `heads` heads, inside each sequence of a packed batch. Returns
/// `[R, H]`.
///
/// Without `queries`, `rest [T, 3 H]` holds queries, keys and values of every token, and `R = T`.
/// With `queries [R, H]`, the queries of selected rows, `rest [T, 2 H]` holds keys and values.
/// `rows` and `tokens` hold the index at which each sequence's rows and tokens begin, and end with
/// `R` and `T`.
///
/// CUDA's memory-efficient kernel takes no dropout keys. There, the mask is a function of `seed`
/// and the site.
pub fn attention(
    queries: Option<&Tensor>,
    rest: &Tensor,
    rows: &[i64],
    tokens: &[i64],
    heads: i64,
    dropped: Dropped<'_>,
    seed: i64,
) -> Result<Tensor> {
    if rows.len() != tokens.len() || rows.len() < 2 {
        let (rows, tokens) = (rows.len(), tokens.len());
        return Err(Error::Bug(format!(
            "attention over {rows} starts of rows, {tokens} of tokens"
        )));
    }
    let args = ffi::AttentionArgs {
        queries: raw_or_null(queries),
        rest: raw(rest),
        rows: rows.as_ptr(),
        tokens: tokens.as_ptr(),
        sequences: rows.len() as i64 - 1,
        heads,
        seed,
        mask: dropped.mask(),
    };
    // SAFETY: tensors and slices outlive the call; both slices have `sequences + 1` elements. C++
    // checks the shapes.
    unsafe { made("attention", ffi::bitfit_attention, &args) }
}

/// Applies the activation `kind` to `x [R, C] + bias [C]`. `kind` is the number of a
/// [`crate::nn::Activation`].
///
/// If no input requires a gradient, the result may overwrite `x`.
pub fn bias_activation(x: &Tensor, bias: &Tensor, kind: i64) -> Result<Tensor> {
    let args = ffi::BiasActivationArgs { x: raw(x), bias: raw(bias), kind };
    // SAFETY: the tensors outlive the call, and C++ checks their shapes.
    unsafe { made("bias and activation", ffi::bitfit_bias_activation, &args) }
}

/// Computes the LayerNorm, with `weight` and `shift`, of `residual + dropout(x + bias)`. `x` and
/// `residual` are `[R, C]`; `bias`, `weight` and `shift` are `[C]`.
///
/// Returns the result in the kind of the residual and, if `x` has half precision and a kernel made
/// both at once, in the kind of `x`.
pub fn residual_norm(
    x: &Tensor,
    bias: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    shift: &Tensor,
    eps: f64,
    dropped: Dropped<'_>,
) -> Result<(Tensor, Option<Tensor>)> {
    let args = ffi::ResidualNormArgs {
        x: raw(x),
        bias: raw(bias),
        residual: raw(residual),
        weight: raw(weight),
        shift: raw(shift),
        eps,
        mask: dropped.mask(),
    };
    // SAFETY: the tensors outlive the call, and C++ checks their shapes.
    unsafe { made_rounded("residual and LayerNorm", ffi::bitfit_residual_norm, &args) }
}
