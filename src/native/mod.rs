//! Bindings to the C++ side: libtorch features that `tch` does not bind. All unsafe code of this
//! crate is here.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;
use tch::{COptimizer, Device, Kind, Tensor};

unsafe extern "C" {
    fn bitfit_last_error() -> *const c_char;
    fn bitfit_bind(
        piece: *mut c_void,
        flat: *mut c_void,
        gradient: *mut c_void,
        offset: i64,
    ) -> c_int;
    fn bitfit_set_gradient(flat: *mut c_void, gradient: *mut c_void) -> c_int;
    fn bitfit_adamw_get(
        optimizer: *mut c_void,
        parameter: *mut c_void,
        step: *mut i64,
        mean: *mut *mut c_void,
        square: *mut *mut c_void,
    ) -> c_int;
    fn bitfit_adamw_step(optimizer: *mut c_void, parameter: *mut c_void) -> c_int;
    fn bitfit_adamw_set(
        optimizer: *mut c_void,
        parameter: *mut c_void,
        step: i64,
        mean: *mut c_void,
        square: *mut c_void,
    ) -> c_int;
    fn bitfit_flag_send(out: *mut *mut c_void, flag: *mut c_void) -> c_int;
    fn bitfit_flag_receive(flag: *mut c_void, out: *mut bool) -> c_int;
    fn bitfit_flag_free(flag: *mut c_void);
    fn bitfit_allow_tf32(allow: bool) -> c_int;
    fn bitfit_release_gpu_memory() -> c_int;
    fn bitfit_peak_gpu_bytes(out: *mut i64, index: i64) -> c_int;
    fn bitfit_dropout(
        out: *mut *mut c_void,
        x: *mut c_void,
        keys: *mut c_void,
        site: i64,
        probability: f64,
    ) -> c_int;
    fn bitfit_attention(
        out: *mut *mut c_void,
        q: *mut c_void,
        rest: *mut c_void,
        rows: *const i64,
        tokens: *const i64,
        sequences: i64,
        heads: i64,
        keys: *mut c_void,
        seed: i64,
        site: i64,
        probability: f64,
    ) -> c_int;
    fn bitfit_fit_threads(wanted: *mut i64, found: *mut i64) -> c_int;
    fn bitfit_product(
        out: *mut *mut c_void,
        x: *mut c_void,
        weight: *mut c_void,
        bias: *mut c_void,
    ) -> c_int;
    fn bitfit_pool_use();
    fn bitfit_pool_empty();
    fn bitfit_profile_start() -> c_int;
    fn bitfit_profile_stop() -> c_int;
    fn bitfit_profile_report(out: *mut *const c_char) -> c_int;
    fn bitfit_bias_activation(
        out: *mut *mut c_void,
        x: *mut c_void,
        bias: *mut c_void,
        kind: i64,
    ) -> c_int;
    fn bitfit_residual_norm(
        out: *mut *mut c_void,
        x: *mut c_void,
        bias: *mut c_void,
        residual: *mut c_void,
        weight: *mut c_void,
        shift: *mut c_void,
        keys: *mut c_void,
        site: i64,
        probability: f64,
        eps: f64,
    ) -> c_int;
    fn bitfit_routed_add(
        out: *mut *mut c_void,
        x: *mut c_void,
        rows: *const *const f32,
        starts: *const i64,
        count: i64,
        offsets: *const i64,
        pieces: i64,
    ) -> c_int;
    fn bitfit_routed_activation(
        out: *mut *mut c_void,
        x: *mut c_void,
        rows: *const *const f32,
        starts: *const i64,
        count: i64,
        offset: i64,
        kind: i64,
    ) -> c_int;
    fn bitfit_routed_norm(
        out: *mut *mut c_void,
        x: *mut c_void,
        residual: *mut c_void,
        rows: *const *const f32,
        starts: *const i64,
        count: i64,
        offsets: *const i64,
        eps: f64,
    ) -> c_int;
}

fn raw(tensor: &Tensor) -> *mut c_void {
    tensor.as_ptr().cast_mut().cast()
}

fn raw_or_null(tensor: Option<&Tensor>) -> *mut c_void {
    tensor.map_or(std::ptr::null_mut(), raw)
}

fn check(code: c_int, action: &str) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the message is NUL-terminated, belongs to this thread and lives until the thread's
    // next failing call.
    let message = unsafe { CStr::from_ptr(bitfit_last_error()) }.to_string_lossy();
    Err(Error::torch(action, &message))
}

/// Makes `piece` a view of `flat[offset .. offset + numel]` and its gradient a view of the same
/// range of `gradient`. The values of `piece` are kept.
///
/// An optimizer of `flat` then sees the gradients that backward accumulates in `piece`.
pub fn bind(piece: &Tensor, flat: &Tensor, gradient: &Tensor, offset: i64) -> Result<()> {
    // SAFETY: the pointers are live tensors for the duration of the call, and C++ checks the
    // ranges.
    check(
        unsafe { bitfit_bind(raw(piece), raw(flat), raw(gradient), offset) },
        "binding a tensor to the flat vector",
    )
}

/// Sets the gradient of `flat` to the tensor `gradient`, which has the same shape.
pub fn set_gradient(flat: &Tensor, gradient: &Tensor) -> Result<()> {
    // SAFETY: as in `bind`.
    check(unsafe { bitfit_set_gradient(raw(flat), raw(gradient)) }, "setting the flat gradient")
}

// tch does not expose an optimizer's state. `COptimizer` holds nothing but a pointer to a
// `torch::optim::Optimizer`, so we read that pointer.
const _: () = assert!(size_of::<COptimizer>() == size_of::<*mut c_void>());

fn raw_optimizer(optimizer: &COptimizer) -> *mut c_void {
    // SAFETY: the assertion above checks the size, and Cargo.toml pins the exact version of tch.
    unsafe { std::ptr::from_ref(optimizer).cast::<*mut c_void>().read() }
}

/// AdamW's state for one parameter: the step count and the moments of the gradient. The moments
/// share the optimizer's tensors and are not copies.
#[derive(Debug)]
pub struct Moments {
    /// The number of steps taken.
    pub step: i64,
    /// The first moment.
    pub exp_avg: Tensor,
    /// The second moment.
    pub exp_avg_sq: Tensor,
}

/// Returns the state of `optimizer`, an AdamW, for `parameter`; `None` before the first step.
pub fn moments(optimizer: &COptimizer, parameter: &Tensor) -> Result<Option<Moments>> {
    let (mut step, mut mean, mut square) = (0, std::ptr::null_mut(), std::ptr::null_mut());
    let optimizer = raw_optimizer(optimizer);
    // SAFETY: as in `bind`; on success the moments are new handles that the caller owns, or both
    // are null.
    let code =
        unsafe { bitfit_adamw_get(optimizer, raw(parameter), &mut step, &mut mean, &mut square) };
    check(code, "reading AdamW's moments")?;
    if mean.is_null() || square.is_null() {
        return Ok(None);
    }
    // SAFETY: as above.
    let (exp_avg, exp_avg_sq) =
        unsafe { (Tensor::from_ptr(mean.cast()), Tensor::from_ptr(square.cast())) };
    Ok(Some(Moments { step, exp_avg, exp_avg_sq }))
}

/// Sets the state of `optimizer`, an AdamW, for `parameter`.
///
/// Errs if a moment's shape, kind or device differs from the parameter's.
pub fn set_moments(
    optimizer: &mut COptimizer,
    parameter: &Tensor,
    moments: &Moments,
) -> Result<()> {
    let Moments { step, exp_avg, exp_avg_sq } = moments;
    let optimizer = raw_optimizer(optimizer);
    // SAFETY: as in `bind`; C++ keeps tensors of its own and checks their shapes.
    let code = unsafe {
        bitfit_adamw_set(optimizer, raw(parameter), *step, raw(exp_avg), raw(exp_avg_sq))
    };
    check(code, "setting AdamW's moments")
}

/// Takes one step of `optimizer`, an AdamW whose only parameter is `parameter`, in one fused pass
/// over gradient, moments and values. Errs if `parameter` has no gradient.
pub fn adamw_step(optimizer: &mut COptimizer, parameter: &Tensor) -> Result<()> {
    // SAFETY: as in `bind`; C++ checks that there is a gradient.
    let code = unsafe { bitfit_adamw_step(raw_optimizer(optimizer), raw(parameter)) };
    check(code, "AdamW's step")
}

/// A boolean that is copied from the device to the host while the host goes on.
#[derive(Debug)]
pub struct Flag(*mut c_void);

// SAFETY: a flag owns its tensor and its event, and neither is bound to a thread.
unsafe impl Send for Flag {}

impl Flag {
    /// Starts the copy of `flag`, a boolean scalar.
    pub fn send(flag: &Tensor) -> Result<Self> {
        let mut out = std::ptr::null_mut();
        // SAFETY: as in `bind`; on success `out` is freed by `drop` alone.
        check(unsafe { bitfit_flag_send(&mut out, raw(flag)) }, "sending a flag")?;
        Ok(Self(out))
    }

    /// Waits for the copy and returns the value.
    pub fn receive(&self) -> Result<bool> {
        let mut value = false;
        // SAFETY: the pointer is alive until `drop`.
        check(unsafe { bitfit_flag_receive(self.0, &mut value) }, "receiving a flag")?;
        Ok(value)
    }
}

impl Drop for Flag {
    fn drop(&mut self) {
        // SAFETY: only `drop` frees the pointer.
        unsafe { bitfit_flag_free(self.0) };
    }
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

/// Calls `function` with an output pointer and returns the tensor that `function` stores there.
fn made(action: &str, function: impl FnOnce(*mut *mut c_void) -> c_int) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    check(function(&mut out), action)?;
    // SAFETY: on success `out` points to a new tensor that the caller owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// Applies dropout to `x [.., R, C]`. The mask is a pure function of `keys [R]` (int64, one for
/// each row), `site`, the leading index and the column.
///
/// Kept entries are scaled by `1 / (1 - probability)`. The result is differentiable. Backward
/// computes the mask again, so that no mask is stored.
pub fn dropout(x: &Tensor, keys: &Tensor, site: i64, probability: f64) -> Result<Tensor> {
    // SAFETY: as in `bind`.
    made("dropout", |out| unsafe { bitfit_dropout(out, raw(x), raw(keys), site, probability) })
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
    let sequences = rows.len() as i64 - 1;
    let (queries, keys) = (raw_or_null(queries), raw_or_null(dropped.keys));
    let (rows, tokens) = (rows.as_ptr(), tokens.as_ptr());
    // SAFETY: as in `bind`; both slices have `sequences + 1` elements.
    made("attention", |out| unsafe {
        bitfit_attention(
            out,
            queries,
            raw(rest),
            rows,
            tokens,
            sequences,
            heads,
            keys,
            seed,
            dropped.site,
            dropped.probability,
        )
    })
}

/// Computes `x weightᵀ + bias`: `x [R, I]`, `weight [E, I]`, `bias [E]` -> `[R, E]`, in `x`'s kind.
///
/// On the CPU, a half-precision weight makes a half-precision product: `x` and the product are
/// rounded to the weight's kind, and the bias is added in `x`'s kind.
pub fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    // SAFETY: as in `bind`.
    made("product", |out| unsafe { bitfit_product(out, raw(x), raw(weight), raw_or_null(bias)) })
}

/// The environment variables that decide how many threads OpenMP gives, as messages list them.
const OPENMP: &str = "OMP_THREAD_LIMIT, OMP_DYNAMIC, OMP_MAX_ACTIVE_LEVELS and OMP_NUM_THREADS";

/// Sets libtorch's thread count to the number of threads that OpenMP gives the calling thread. If
/// OpenMP gives fewer than libtorch counted on, warns once per process.
pub fn fit_threads() -> Result<()> {
    static WARNED: std::sync::Once = std::sync::Once::new();
    let (mut wanted, mut found) = (0, 0);
    // SAFETY: C++ writes to both variables only during the call.
    check(unsafe { bitfit_fit_threads(&mut wanted, &mut found) }, "counting OpenMP's threads")?;
    if found < wanted {
        WARNED.call_once(|| {
            tracing::warn!(
                "OpenMP gives {found} of {wanted} threads, so {found} compute; {OPENMP} decide that, or a limit of threads"
            );
        });
    }
    Ok(())
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
    // The variable sets the number of entries in libtorch's cache of oneDNN's compiled code.
    // libtorch does not check that the number is positive.
    if let Ok(capacity) = std::env::var("LRU_CACHE_CAPACITY")
        && !capacity.trim().parse::<i64>().is_ok_and(|entries| entries != 0)
    {
        let problem = format!(
            "LRU_CACHE_CAPACITY: found {capacity:?}, expected a whole number other than 0, or no such variable"
        );
        return Err(Error::Usage(problem));
    }
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

/// Applies the activation `kind` to `x [R, C] + bias [C]`. `kind` is the number of a
/// [`crate::nn::Activation`].
///
/// If no input requires a gradient, the result may overwrite `x`.
pub fn bias_activation(x: &Tensor, bias: &Tensor, kind: i64) -> Result<Tensor> {
    // SAFETY: as in `bind`.
    made("bias and activation", |out| unsafe {
        bitfit_bias_activation(out, raw(x), raw(bias), kind)
    })
}

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
    // SAFETY: as in `bind`; each row has the vectors, and there is a start for each and one more.
    made("routed bias", |out| unsafe {
        let (starts, offsets) = (routed.starts.as_ptr(), offsets.as_ptr());
        bitfit_routed_add(out, raw(x), rows.as_ptr(), starts, count, offsets, pieces)
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
        bitfit_routed_activation(out, raw(x), rows, starts, count, place.0 as i64, kind)
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
        bitfit_routed_norm(
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

/// Computes the LayerNorm, with `weight` and `shift`, of `residual + dropout(x + bias)`. `x` and
/// `residual` are `[R, C]`; `bias`, `weight` and `shift` are `[C]`.
pub fn residual_norm(
    x: &Tensor,
    bias: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    shift: &Tensor,
    eps: f64,
    dropped: Dropped<'_>,
) -> Result<Tensor> {
    // SAFETY: as in `bind`.
    made("residual and LayerNorm", |out| unsafe {
        bitfit_residual_norm(
            out,
            raw(x),
            raw(bias),
            raw(residual),
            raw(weight),
            raw(shift),
            raw_or_null(dropped.keys),
            dropped.site,
            dropped.probability,
            eps,
        )
    })
}

/// Starts the profile, which records the seconds in each operation of all threads until
/// [`profile_stop`].
pub fn profile_start() -> Result<()> {
    // SAFETY: the call takes no pointers.
    check(unsafe { bitfit_profile_start() }, "starting the profile")
}

/// Stops the profile. The next [`profile_start`] adds to the same figures.
pub fn profile_stop() -> Result<()> {
    // SAFETY: as in `profile_start`.
    check(unsafe { bitfit_profile_stop() }, "stopping the profile")
}

/// Returns each operation's name, its own seconds and its number of calls. The operations that it
/// calls are not counted in its seconds. Names of products include their sizes.
pub fn profile_report() -> Result<Vec<(String, f64, u64)>> {
    let mut out = std::ptr::null();
    // SAFETY: on success `out` points to a string that lives until the next report, and there is
    // one caller at a time.
    check(unsafe { bitfit_profile_report(&mut out) }, "reading the profile")?;
    // SAFETY: as above.
    let text = unsafe { CStr::from_ptr(out) }.to_string_lossy().into_owned();
    let entry = |line: &str| {
        let mut fields = line.split('\t');
        let name = fields.next()?.to_owned();
        Some((name, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Ok(text.lines().filter_map(entry).collect())
}

/// Peak resident memory of this process so far, in MiB; 0 where Linux's /proc is not available.
///
/// Unlike getrusage's figure, it does not start from the parent's peak when a process is spawned.
pub fn peak_rss_mib() -> u64 {
    of_status("VmHWM:")
}

/// Resident memory of this process now, in MiB; 0 where Linux's /proc is not available.
pub fn rss_mib() -> u64 {
    of_status("VmRSS:")
}

/// Reads a line of /proc/self/status, which is in kB, and returns it in MiB.
fn of_status(key: &str) -> u64 {
    let read = || {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    read().unwrap_or(0) / 1024
}

/// Whether the processor has instructions that multiply bfloat16.
pub fn multiplies_bfloat16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Sets whether fp32 products on CUDA devices may round their factors to TF32's 10-bit mantissa.
pub fn allow_tf32(allow: bool) -> Result<()> {
    // SAFETY: the call only sets a flag of libtorch.
    check(unsafe { bitfit_allow_tf32(allow) }, "setting TF32")
}

/// Returns free memory of the host and of `device` to the system, before a failed allocation is
/// tried again.
fn release_device_memory(device: Device) {
    release_free_memory();
    if device.is_cuda() {
        // SAFETY: the call frees only unused blocks, and a failure changes nothing.
        let _ = unsafe { bitfit_release_gpu_memory() };
    }
}

/// Returns the number of rows to try at once after a computation over `rows` rows failed with
/// `error`.
///
/// Returns `error` if it is not [`Error::OutOfMemory`] or if there are fewer than 2 rows.
pub fn fewer_at_once(error: Error, rows: usize, device: Device) -> Result<usize> {
    if rows < 2 || !matches!(error, Error::OutOfMemory(_)) {
        return Err(error);
    }
    release_device_memory(device);
    let half = rows.div_ceil(2);
    tracing::warn!("{error}; going on with {half} rows at once instead of {rows}");
    Ok(half)
}

/// Makes large CPU tensors come from a pool from now on. The pool reuses a freed block for the next
/// tensor of about its size.
pub fn pool_memory() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: each tensor keeps the deleter of the allocator that it came from.
    ONCE.call_once(|| unsafe { bitfit_pool_use() });
}

/// Drops the pages of `file` from memory; later accesses read them from disk again. `file` is a
/// mapped file, or a part of one, that was never written to.
pub fn forget(file: &Tensor) {
    // SAFETY: the pages belong to a private, unchanged mapping of a file, so that reading them
    // again gives the same bytes.
    #[cfg(target_os = "linux")]
    let _ = unsafe { libc::madvise(file.data_ptr(), file.numel(), libc::MADV_DONTNEED) };
}

/// Returns the process's free memory to the system.
pub fn release_free_memory() {
    // SAFETY: the call frees only unused blocks.
    unsafe { bitfit_pool_empty() };
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: as above.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Peak memory of tensors on a CUDA device so far, in MiB; `None` on the CPU.
pub fn peak_gpu_mib(device: Device) -> Result<Option<u64>> {
    let Device::Cuda(index) = device else { return Ok(None) };
    let mut bytes = 0;
    let index = i64::try_from(index).unwrap_or(-1);
    // SAFETY: C++ writes to `bytes` only during the call.
    check(
        unsafe { bitfit_peak_gpu_bytes(&mut bytes, index) },
        "reading the device's memory statistics",
    )?;
    Ok(Some(bytes.unsigned_abs() >> 20))
}

/// Makes a write beyond the file size limit (`ulimit -f`) fail, as on a full disk, instead of
/// ending the process.
pub fn ignore_file_size_signal() {
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// The address range of a mapped file, and the error line for when the file cannot be read any
/// more.
struct Mapping {
    start: AtomicUsize,
    end: AtomicUsize,
    text: AtomicPtr<u8>,
    length: AtomicUsize,
}

/// The most recently mapped files. A new file replaces the oldest entry.
static MAPPINGS: [Mapping; 1024] = [const {
    Mapping {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        text: AtomicPtr::new(std::ptr::null_mut()),
        length: AtomicUsize::new(0),
    }
}; 1024];

/// The format of the lines that [`name_mapped`] keeps: 0 keeps none (the value before
/// [`report_bus_errors`]), 1 is text, 2 is JSON.
static REPORTS: AtomicU8 = AtomicU8::new(0);

/// Installs a SIGBUS handler that reports a mapped file that is truncated while it is read. The
/// handler writes a line to stderr that names the file, as JSON or text, and exits with code 1.
///
/// Only programs should call this function: a library leaves signal handlers to its caller.
pub fn report_bus_errors(as_json: bool) {
    REPORTS.store(if as_json { 2 } else { 1 }, Ordering::SeqCst);
    // SAFETY: all bytes zero are a valid sigaction, and the handler makes only async-signal-safe
    // calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

extern "C" fn on_bus_error(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the system passes a valid siginfo_t, and SIGBUS sets its address.
    let address = unsafe { (*info).si_addr() } as usize;
    for mapping in &MAPPINGS {
        let end = mapping.end.load(Ordering::Acquire);
        let start = mapping.start.load(Ordering::Relaxed);
        if (start..end).contains(&address) {
            let text = mapping.text.load(Ordering::Relaxed);
            // SAFETY: the text is never freed, and both calls are async-signal-safe.
            unsafe {
                libc::write(2, text.cast(), mapping.length.load(Ordering::Relaxed));
                libc::_exit(1)
            }
        }
    }
    // The address is in no file of ours. The instruction runs again, and the process ends as it
    // would have without this handler.
}

/// Records that the tensor `whole` maps the file `path`, for the handler of [`report_bus_errors`].
/// Returns the record's place, for [`forget_mapped`]; `None` before [`report_bus_errors`].
pub fn name_mapped(whole: &Tensor, path: &Path) -> Option<usize> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let problem = "it was cut short, or its disk failed, while it was in use; bring it back as it was, and start the same command again (a training \
                   with --resume)";
    let shown: String = crate::escape::line(path.display());
    let line = match REPORTS.load(Ordering::SeqCst) {
        0 => return None,
        1 => format!("error: {shown}: {problem}\n"),
        _ => {
            let error = format!("{shown}: {problem}");
            format!("{}\n", serde_json::json!({"error": error, "exit_code": 1}))
        }
    };
    let text: &'static mut [u8] = line.into_bytes().leak();
    let place = NEXT.fetch_add(1, Ordering::SeqCst) % MAPPINGS.len();
    let mapping = MAPPINGS.get(place)?;
    let start = whole.data_ptr() as usize;
    mapping.end.store(0, Ordering::SeqCst);
    mapping.start.store(start, Ordering::SeqCst);
    mapping.length.store(text.len(), Ordering::SeqCst);
    mapping.text.store(text.as_mut_ptr(), Ordering::SeqCst);
    mapping.end.store(start + whole.numel(), Ordering::SeqCst);
    Some(place)
}

/// Removes a record of [`name_mapped`]: another mapping may take the addresses.
pub fn forget_mapped(place: usize) {
    if let Some(mapping) = MAPPINGS.get(place) {
        mapping.end.store(0, Ordering::SeqCst);
    }
}

/// Sends SIGKILL to this process, so that nothing is cleaned up.
pub fn kill_this_process() -> ! {
    // SAFETY: raising a signal touches no memory, and neither call returns.
    unsafe {
        libc::raise(libc::SIGKILL);
        libc::_exit(137)
    }
}

/// Stops this process until it receives SIGCONT.
pub fn stop_this_process() {
    // SAFETY: raising a signal touches no memory.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Blocks `signals` in the calling thread if `hold`, else unblocks them. Unblocking delivers
/// pending signals. The mask is inherited through exec.
pub fn hold_signals(signals: &[i32], hold: bool) {
    let how = if hold { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: sigemptyset initialises the set before it is read, and the set outlives the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        libc::pthread_sigmask(how, &set, std::ptr::null_mut());
    }
}

/// Under a memory limit (RLIMIT_AS or RLIMIT_DATA), installs a SIGSEGV handler that explains the
/// likely cause: oneDNN does not check whether its allocations succeed.
pub fn explain_segmentation_faults() {
    extern "C" fn explain(_: c_int) {
        const WHY: &str = "error: segmentation fault: the memory is limited (ulimit -v or -d), and oneDNN does not check whether it got memory; \
                           raise that limit, or limit memory by a control group\n";
        // SAFETY: both calls are async-signal-safe, and the text is static.
        unsafe {
            libc::write(libc::STDERR_FILENO, WHY.as_ptr().cast(), WHY.len());
            libc::_exit(1)
        }
    }
    let is_limited = |what| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: getrlimit writes to `limit` only during the call.
        let code = unsafe { libc::getrlimit(what, &mut limit) };
        code == 0 && limit.rlim_cur != libc::RLIM_INFINITY
    };
    if !is_limited(libc::RLIMIT_AS) && !is_limited(libc::RLIMIT_DATA) {
        return;
    }
    // SAFETY: all bytes zero are a valid sigaction, and the handler makes only the calls above.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = explain as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
    }
}

/// Whether this process was started with `signal` ignored, as nohup does.
pub fn ignores(signal: i32) -> bool {
    // SAFETY: all bytes zero are a valid sigaction. The call sets no new action and only writes the
    // current one to `action`.
    let (code, action) = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &mut action), action)
    };
    code == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// The time of day, for messages and for timestamps in files. No computed result depends on it.
#[allow(clippy::disallowed_methods)]
pub fn time_of_day() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// Ends the process at once, without destructors. `std::process::exit` would run libtorch's
/// destructors while other threads still compute.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return and runs no handlers.
    unsafe { libc::_exit(code) }
}

/// Time since this process started, which includes the loading of its libraries; zero where Linux's
/// /proc is not available.
pub fn process_age() -> Duration {
    let age = || {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Field 22 of the line. We count from the last parenthesis, because the command's name
        // (field 2, in parentheses) may hold spaces and parentheses.
        let started: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        let uptime: f64 = std::fs::read_to_string("/proc/uptime")
            .ok()?
            .split_whitespace()
            .next()?
            .parse()
            .ok()?;
        // SAFETY: sysconf only reads a constant.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        Duration::try_from_secs_f64(uptime - started / ticks).ok()
    };
    age().unwrap_or_default()
}
