//! Products with weights, and the check that this machine computes them right.

use super::{check, ffi, made, raw, threads::OPENMP};
use crate::error::{Error, Result};
use tch::{Kind, Tensor};

/// Computes `x weightᵀ + bias`: `x [R, I]`, `weight [E, I]`, `bias [E]` -> `[R, E]`, in `x`'s kind.
///
/// On the CPU, a half-precision weight makes a half-precision product: `x` and the product are
/// rounded to the weight's kind, and the bias is added in `x`'s kind. On a GPU, the result has half
/// precision if `x` or the weight does.
pub fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    product_by(x, weight, bias.as_slice(), false)
}

/// Like [`product`], with a weight that is part of a model.
///
/// If the weight is frozen, fp32 and on the CPU, it is copied once into the layout that our own
/// product reads, and the copy is kept as long as the weight's memory.
pub fn kept_product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    product_by(x, weight, bias.as_slice(), true)
}

/// Like [`product`], or [`kept_product`] if `kept`, with biases that lie side by side: together
/// `[E]`.
pub fn product_by(x: &Tensor, weight: &Tensor, biases: &[&Tensor], kept: bool) -> Result<Tensor> {
    let biases: Vec<_> = biases.iter().map(|bias| raw(bias)).collect();
    let args = ffi::ProductArgs {
        x: raw(x),
        weight: raw(weight),
        biases: biases.as_ptr(),
        count: biases.len() as i64,
        kept: kept.into(),
    };
    // SAFETY: the tensors and the slice outlive the call, and C++ checks their shapes.
    unsafe { made("product", ffi::bitfit_product, &args) }
}

/// Checks the environment variable `LRU_CACHE_CAPACITY`, the number of entries in libtorch's cache
/// of oneDNN's compiled code. libtorch crashes unless it is a number other than 0.
pub fn check_cache_capacity() -> Result<()> {
    let Ok(capacity) = std::env::var("LRU_CACHE_CAPACITY") else { return Ok(()) };
    if capacity.trim().parse::<i64>().is_ok_and(|entries| entries != 0) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "LRU_CACHE_CAPACITY: found {capacity:?}, expected a whole number other than 0, or no such variable"
    )))
}

/// Checks a small [`product`] on the CPU, with a weight of `kind`, against a plain loop.
///
/// Errs if they differ, because a library then computes wrong results on this machine. One such
/// case is oneDNN with fewer threads than it counts on.
pub fn check_product(kind: Kind) -> Result<()> {
    check_product_by(kind, |x, weight| product(x, weight, None))
}

/// Like [`check_product`], for any function `product` that multiplies `x [R, I]` by the transpose
/// of `weight [E, I]`.
pub fn check_product_by(
    kind: Kind,
    product: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<()> {
    const SHAPE: [usize; 3] = [24, 192, 160];
    let [rows, inputs, outputs] = SHAPE;
    // Multiples of 1/4 from -2 to 2: half precision holds them exactly, and fp32 holds the sums of
    // their products exactly.
    let numbers = |count: usize, step: usize| -> Vec<f32> {
        (0..count).map(|i| ((i * step) % 17) as f32 / 4.0 - 2.0).collect()
    };
    let (x, weight) = (numbers(rows * inputs, 7), numbers(outputs * inputs, 11));
    let tensor = |values: &[f32], rows: usize| {
        Tensor::f_from_slice(values)?.f_view([rows as i64, inputs as i64])
    };
    let product = {
        let _guard = tch::no_grad_guard();
        product(&tensor(&x, rows)?, &tensor(&weight, outputs)?.f_to_kind(kind)?)?
    };
    let found: Vec<f32> = Vec::try_from(product.f_to_kind(Kind::Float)?.f_view([-1])?)?;
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>();
    let expected: Vec<f32> =
        x.chunks(inputs).flat_map(|x| weight.chunks(inputs).map(move |w| dot(x, w))).collect();
    let largest = expected.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
    // The result is rounded to `kind`.
    let most = if kind == Kind::Float { 1e-4 } else { 1e-2 };
    let off = |(found, expected): (&f32, &f32)| {
        let error = (found - expected).abs();
        error.is_nan() || error > most * largest
    };
    match found.iter().zip(&expected).find(|&pair| off(pair)) {
        None if found.len() == expected.len() => Ok(()),
        wrong => {
            let (found, expected) = wrong.unwrap_or((&f32::NAN, &f32::NAN));
            Err(Error::Torch {
                action: "a product of small matrices is wrong".into(),
                message: format!(
                    "found {found}, expected {expected}; with {} threads. Unset {OPENMP}, or set OMP_NUM_THREADS=1",
                    tch::get_num_threads()
                ),
            })
        }
    }
}

/// Whether the processor has instructions that multiply bfloat16, and the level in use allows them.
pub fn multiplies_bfloat16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return super::cpu_level() == "avx512" && std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Measures how many times as long a product with a weight of `kind` takes as one in fp32, on this
/// machine: the median of five turns of both.
pub fn product_time_ratio(kind: Kind) -> Result<f64> {
    const SHAPE: [i64; 3] = [256, 768, 768];
    let [rows, inputs, outputs] = SHAPE;
    let _guard = tch::no_grad_guard();
    let x = Tensor::f_ones([rows, inputs], (Kind::Float, tch::Device::Cpu))?;
    let weight = Tensor::f_ones([outputs, inputs], (Kind::Float, tch::Device::Cpu))?;
    let of_kind = weight.f_to_kind(kind)?;
    let seconds = |weight: &Tensor| {
        let began = std::time::Instant::now();
        let _product = kept_product(&x, weight, None)?;
        Ok::<_, Error>(began.elapsed().as_secs_f64())
    };
    // The first products make what is kept.
    seconds(&of_kind)?;
    seconds(&weight)?;
    let mut ratios = vec![];
    for _ in 0..5 {
        ratios.push(seconds(&of_kind)? / seconds(&weight)?);
    }
    ratios.sort_by(f64::total_cmp);
    Ok(ratios.get(2).copied().unwrap_or(f64::NAN))
}

/// Sets whether fp32 products on CUDA devices may round their factors to TF32's 10-bit mantissa.
pub fn allow_tf32(allow: bool) -> Result<()> {
    // SAFETY: the call only sets a flag of libtorch.
    check(unsafe { ffi::bitfit_allow_tf32(allow) }, "setting TF32")
}
