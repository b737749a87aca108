//! The C++ side: what libtorch can do and `tch` has no binding for. The only unsafe code of this crate.
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
    // SAFETY: the message is a NUL-terminated string of this thread, alive until its next failing call.
    let message = unsafe { CStr::from_ptr(bitfit_last_error()) }.to_string_lossy();
    Err(Error::torch(action, &message))
}

/// Makes `piece` a view of `flat[offset .. offset + numel]` (keeping its values) and its gradient a view of the same
/// place in `gradient`: what backward accumulates there, an optimizer of `flat` sees.
pub fn bind(piece: &Tensor, flat: &Tensor, gradient: &Tensor, offset: i64) -> Result<()> {
    // SAFETY: the pointers are live tensors for the duration of the call, and C++ checks the ranges.
    check(
        unsafe { bitfit_bind(raw(piece), raw(flat), raw(gradient), offset) },
        "binding a tensor to the flat vector",
    )
}

/// Gives `flat` the gradient tensor `gradient`, of the same shape.
pub fn set_gradient(flat: &Tensor, gradient: &Tensor) -> Result<()> {
    // SAFETY: as in `bind`.
    check(unsafe { bitfit_set_gradient(raw(flat), raw(gradient)) }, "setting the flat gradient")
}

// tch has no way to an optimizer's state, but its type is a pointer to `torch::optim::Optimizer` and nothing else.
const _: () = assert!(size_of::<COptimizer>() == size_of::<*mut c_void>());

fn raw_optimizer(optimizer: &COptimizer) -> *mut c_void {
    // SAFETY: the assertion above, with the exact version of tch in Cargo.toml.
    unsafe { std::ptr::from_ref(optimizer).cast::<*mut c_void>().read() }
}

/// What AdamW remembers of a parameter: its steps, and the moments of its gradient (the tensors themselves, not copies).
#[derive(Debug)]
pub struct Moments {
    /// Steps taken.
    pub step: i64,
    /// The first moment.
    pub exp_avg: Tensor,
    /// The second.
    pub exp_avg_sq: Tensor,
}

/// What `optimizer`, an AdamW, remembers of `parameter`; nothing before its first step.
pub fn moments(optimizer: &COptimizer, parameter: &Tensor) -> Result<Option<Moments>> {
    let (mut step, mut mean, mut square) = (0, std::ptr::null_mut(), std::ptr::null_mut());
    let optimizer = raw_optimizer(optimizer);
    // SAFETY: as in `bind`; on success both moments are new handles that the caller owns, or both are null.
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

/// Gives `optimizer`, an AdamW, these memories of `parameter`.
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

/// A step of `optimizer`, an AdamW, over `parameter`, its only one: one pass over gradient, moments and values.
pub fn adamw_step(optimizer: &mut COptimizer, parameter: &Tensor) -> Result<()> {
    // SAFETY: as in `bind`; C++ checks that there is a gradient.
    let code = unsafe { bitfit_adamw_step(raw_optimizer(optimizer), raw(parameter)) };
    check(code, "AdamW's step")
}

/// A boolean on its way from the device to the host, which need not wait for it.
#[derive(Debug)]
pub struct Flag(*mut c_void);

// SAFETY: it is a tensor of its own and an event, neither bound to a thread.
unsafe impl Send for Flag {}

impl Flag {
    /// Sends `flag`, a boolean scalar.
    pub fn send(flag: &Tensor) -> Result<Self> {
        let mut out = std::ptr::null_mut();
        // SAFETY: as in `bind`; on success `out` is freed by `drop` alone.
        check(unsafe { bitfit_flag_send(&mut out, raw(flag)) }, "sending a flag")?;
        Ok(Self(out))
    }

    /// Waits until it is here.
    pub fn receive(&self) -> Result<bool> {
        let mut value = false;
        // SAFETY: the pointer is alive until `drop`.
        check(unsafe { bitfit_flag_receive(self.0, &mut value) }, "receiving a flag")?;
        Ok(value)
    }
}

impl Drop for Flag {
    fn drop(&mut self) {
        // SAFETY: nobody else frees it.
        unsafe { bitfit_flag_free(self.0) };
    }
}

/// What is dropped at a place of the model: as `site` and the keys say, int64 and one a row; nothing without keys.
#[derive(Debug, Clone, Copy)]
pub struct Dropped<'a> {
    /// A key for each row.
    pub keys: Option<&'a Tensor>,
    /// The number of the place.
    pub site: i64,
    /// The share of entries.
    pub probability: f64,
}

/// Calls `function` with a place for a tensor that it makes.
fn made(action: &str, function: impl FnOnce(*mut *mut c_void) -> c_int) -> Result<Tensor> {
    let mut out = std::ptr::null_mut();
    check(function(&mut out), action)?;
    // SAFETY: on success it is a new tensor that the caller owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// Dropout of `x [.., R, C]` whose mask is a pure function of `keys [R]` (int64, one a row), `site`, the leading index and the column.
///
/// Kept entries are scaled by `1 / (1 - probability)`. Differentiable; the mask is computed again in backward, not stored.
pub fn dropout(x: &Tensor, keys: &Tensor, site: i64, probability: f64) -> Result<Tensor> {
    // SAFETY: as in `bind`.
    made("dropout", |out| unsafe { bitfit_dropout(out, raw(x), raw(keys), site, probability) })
}

/// Attention inside each sequence, `heads` heads. `rest [T, 3 H]` holds queries, keys and values of every token; with `queries [R, H]`,
/// those of some rows alone, it is `[T, 2 H]`, keys and values. Each sequence's rows and tokens begin at `rows` and `tokens`, which
/// end with `R` and `T`. Gives `[R, H]`.
///
/// On CUDA a kernel that takes no keys drops what `seed` and the site say.
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
    // SAFETY: as in `bind`; `sequences + 1` numbers are in both slices.
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

/// `x weightᵀ + bias`: `x [R, I]`, `weight [E, I]`, `bias [E]` -> `[R, E]`, in `x`'s kind.
///
/// On the CPU a weight of half precision makes the product one of half precision, its factors and its result rounded to that.
pub fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    // SAFETY: as in `bind`.
    made("product", |out| unsafe { bitfit_product(out, raw(x), raw(weight), raw_or_null(bias)) })
}

/// The variables that decide how many threads OpenMP gives, for messages.
const OPENMP: &str = "OMP_THREAD_LIMIT, OMP_DYNAMIC, OMP_MAX_ACTIVE_LEVELS and OMP_NUM_THREADS";

/// Makes libtorch count on as many threads as OpenMP gives the calling thread; where these are fewer, one warning of the process.
pub fn fit_threads() -> Result<()> {
    static WARNED: std::sync::Once = std::sync::Once::new();
    let (mut wanted, mut found) = (0, 0);
    // SAFETY: both places are written to during the call alone.
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

/// Compares a small [`product`] on the CPU, its weight in `kind`, with the same sums made one by one.
///
/// The check is against libraries that compute nonsense on a machine, as oneDNN does without the threads that it counts on.
pub fn check_product(kind: Kind) -> Result<()> {
    check_product_by(kind, |x, weight| product(x, weight, None))
}

/// [`check_product`] for another way to make a product, `x [R, I]` by `weight [E, I]`.
pub fn check_product_by(
    kind: Kind,
    product: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<()> {
    // libtorch keeps oneDNN's code in a cache of so many entries, and does not check that there are any.
    if let Ok(capacity) = std::env::var("LRU_CACHE_CAPACITY")
        && capacity.trim().parse::<i64>().unwrap_or(0) == 0
    {
        let problem = format!(
            "LRU_CACHE_CAPACITY: found {capacity:?}, expected a positive number, or no such variable"
        );
        return Err(Error::Usage(problem));
    }
    const SHAPE: [usize; 3] = [24, 192, 160];
    let [rows, inputs, outputs] = SHAPE;
    // Quarters from -2 to 2, which half precision holds exactly, and so do their sums in fp32.
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

/// The activation `kind`, the number of a [`crate::nn::Activation`], of `x [R, C] + bias [C]`. Where nothing learns it may be written over `x`.
pub fn bias_activation(x: &Tensor, bias: &Tensor, kind: i64) -> Result<Tensor> {
    // SAFETY: as in `bind`.
    made("bias and activation", |out| unsafe {
        bitfit_bias_activation(out, raw(x), raw(bias), kind)
    })
}

/// The tasks of a batch's sequences: the values of each one's task, and where its rows begin; at last, how many rows there are.
#[derive(Debug, Clone, Copy)]
pub struct Routed<'a> {
    /// A task's values for each sequence.
    pub rows: &'a [Arc<[f32]>],
    /// One more than sequences, none below the one before.
    pub starts: &'a [i64],
}

impl Routed<'_> {
    /// The addresses of the tasks' values, in which vectors of these offsets and sizes must lie; and how many tasks they are.
    fn addresses(&self, places: &[(usize, usize)]) -> Result<(Vec<*const f32>, i64)> {
        let ends = places.iter().map(|(offset, size)| offset.saturating_add(*size));
        let end = ends.max().unwrap_or(0);
        let in_order = self.starts.windows(2).all(|pair| matches!(pair, [a, b] if a <= b));
        if self.rows.iter().any(|row| row.len() < end)
            || self.starts.len() != self.rows.len() + 1
            || !in_order
        {
            let (rows, starts) = (self.rows.len(), self.starts.len());
            return Err(Error::Bug(format!(
                "{rows} tasks' rows for {starts} starts, or too short"
            )));
        }
        let addresses = self.rows.iter().map(|row| row.as_ptr()).collect();
        Ok((addresses, i64::try_from(self.rows.len()).unwrap_or(i64::MAX)))
    }
}

/// Adds vectors of `places` (offset and size), which lie side by side in `x [R, E]`; written over `x`.
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

/// The activation `kind` of `x [R, C]` plus the vector at `place`; written over `x`.
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

/// LayerNorm, with the vectors at `weight` and `shift`, of `x [R, C]` plus `residual` and the vector at `bias`, where they are given.
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

/// LayerNorm, with `weight` and `shift`, of `residual + dropout(x + bias)`: `x [R, C]`, vectors `[C]`.
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

/// Notes the seconds in each operation of all threads, until [`profile_stop`].
pub fn profile_start() -> Result<()> {
    // SAFETY: it touches nothing of ours.
    check(unsafe { bitfit_profile_start() }, "starting the profile")
}

/// Stops noting; the next [`profile_start`] goes on.
pub fn profile_stop() -> Result<()> {
    // SAFETY: as in `profile_start`.
    check(unsafe { bitfit_profile_stop() }, "stopping the profile")
}

/// An operation's name (of a product, with its sizes), the seconds in it, those that it calls left out, and how often it ran.
pub fn profile_report() -> Result<Vec<(String, f64, u64)>> {
    let mut out = std::ptr::null();
    // SAFETY: on success it is a string that lives until the next report; there is one caller at a time.
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

/// Peak resident memory of this process so far, in MiB; zero where Linux's /proc does not say.
///
/// Not getrusage's figure, which starts from the parent's when a process is spawned.
pub fn peak_rss_mib() -> u64 {
    of_status("VmHWM:")
}

/// Resident memory of this process now, in MiB; zero where Linux's /proc does not say.
pub fn rss_mib() -> u64 {
    of_status("VmRSS:")
}

/// A line of /proc/self/status that is in kB, in MiB.
fn of_status(key: &str) -> u64 {
    let read = || {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    read().unwrap_or(0) / 1024
}

/// Whether the processor multiplies bfloat16.
pub fn multiplies_bfloat16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Lets fp32 products on CUDA devices round their factors to TF32's 10 bits, or not.
pub fn allow_tf32(allow: bool) -> Result<()> {
    // SAFETY: it sets a flag of libtorch's.
    check(unsafe { bitfit_allow_tf32(allow) }, "setting TF32")
}

/// Gives memory that is free on `device` back, before an allocation that failed is tried again.
fn release_device_memory(device: Device) {
    release_free_memory();
    if device.is_cuda() {
        // SAFETY: it touches nothing that is in use; a failure changes nothing.
        let _ = unsafe { bitfit_release_gpu_memory() };
    }
}

/// After a computation over `rows` rows failed with `error`: how many to try at once, if it was for want of memory and they can be
/// split; else the error.
pub fn fewer_at_once(error: Error, rows: usize, device: Device) -> Result<usize> {
    if rows < 2 || !matches!(error, Error::OutOfMemory(_)) {
        return Err(error);
    }
    release_device_memory(device);
    let half = rows.div_ceil(2);
    tracing::warn!("{error}; going on with {half} rows at once instead of {rows}");
    Ok(half)
}

/// From now on, large tensors on the CPU come from a pool, which hands freed ones on to the next of about their size.
pub fn pool_memory() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: tensors know for themselves who frees them.
    ONCE.call_once(|| unsafe { bitfit_pool_use() });
}

/// Lets go of what was read of `file`, a mapped file that nothing was written to: what is looked at again is read again.
pub fn forget(file: &Tensor) {
    // SAFETY: the pages are a file's, private and unchanged, so that reading them again gives the same.
    #[cfg(target_os = "linux")]
    let _ = unsafe { libc::madvise(file.data_ptr(), file.numel(), libc::MADV_DONTNEED) };
}

/// Gives memory that is free back to the system.
pub fn release_free_memory() {
    // SAFETY: it touches nothing that is in use.
    unsafe { bitfit_pool_empty() };
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: as above.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// The most memory that tensors took on a CUDA device so far, in MiB; `None` on the CPU.
pub fn peak_gpu_mib(device: Device) -> Result<Option<u64>> {
    let Device::Cuda(index) = device else { return Ok(None) };
    let mut bytes = 0;
    let index = i64::try_from(index).unwrap_or(-1);
    // SAFETY: `bytes` is written to during the call alone.
    check(
        unsafe { bitfit_peak_gpu_bytes(&mut bytes, index) },
        "reading the device's memory statistics",
    )?;
    Ok(Some(bytes.unsigned_abs() >> 20))
}

/// Lets a write beyond the limit of a file's size (`ulimit -f`) fail, as one to a full disk does, instead of ending the process.
pub fn ignore_file_size_signal() {
    // SAFETY: to ignore a signal needs no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// A mapped file, and what is said where it can't be read any more.
struct Mapping {
    start: AtomicUsize,
    end: AtomicUsize,
    text: AtomicPtr<u8>,
    length: AtomicUsize,
}

/// The files that were mapped last; later ones take the places of the first.
static MAPPINGS: [Mapping; 1024] = [const {
    Mapping {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        text: AtomicPtr::new(std::ptr::null_mut()),
        length: AtomicUsize::new(0),
    }
}; 1024];

/// How [`name_mapped`] writes: not at all, before [`report_bus_errors`]; for people; as JSON.
static REPORTS: AtomicU8 = AtomicU8::new(0);

/// From now on, a mapped file that is cut while it is read ends the process with exit code 1 and a line on stderr that names the file,
/// `as_json` or for people. For programs: a library leaves signals to who uses it.
pub fn report_bus_errors(as_json: bool) {
    REPORTS.store(if as_json { 2 } else { 1 }, Ordering::SeqCst);
    // SAFETY: the structure is plain data, for which zeros are a value; the handler makes only calls that signals allow.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

extern "C" fn on_bus_error(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the system hands a signal's description over, and SIGBUS's has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    for mapping in &MAPPINGS {
        let end = mapping.end.load(Ordering::Acquire);
        let start = mapping.start.load(Ordering::Relaxed);
        if (start..end).contains(&address) {
            let text = mapping.text.load(Ordering::Relaxed);
            // SAFETY: the text is never freed; both calls are allowed in a signal handler.
            unsafe {
                libc::write(2, text.cast(), mapping.length.load(Ordering::Relaxed));
                libc::_exit(1)
            }
        }
    }
    // Not a file of ours: the instruction is tried again, and the process ends as it would have without this handler.
}

/// Notes that the tensor `whole` is the mapped file `path`, for [`report_bus_errors`].
pub fn name_mapped(whole: &Tensor, path: &Path) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let problem = "it was cut short, or its disk failed, while it was in use; bring it back as it was, and start the same command again (a training \
                   with --resume)";
    let shown: String = crate::escape::line(path.display());
    let line = match REPORTS.load(Ordering::SeqCst) {
        0 => return,
        1 => format!("error: {shown}: {problem}\n"),
        _ => {
            let error = format!("{shown}: {problem}");
            format!("{}\n", serde_json::json!({"error": error, "exit_code": 1}))
        }
    };
    let text: &'static mut [u8] = line.into_bytes().leak();
    let place = NEXT.fetch_add(1, Ordering::SeqCst) % MAPPINGS.len();
    let Some(mapping) = MAPPINGS.get(place) else { return };
    let start = whole.data_ptr() as usize;
    mapping.end.store(0, Ordering::SeqCst);
    mapping.start.store(start, Ordering::SeqCst);
    mapping.length.store(text.len(), Ordering::SeqCst);
    mapping.text.store(text.as_mut_ptr(), Ordering::SeqCst);
    mapping.end.store(start + whole.numel(), Ordering::SeqCst);
}

/// Kills this process as SIGKILL of another does: nothing is cleaned up.
pub fn kill_this_process() -> ! {
    // SAFETY: to raise a signal touches nothing; it returns to nobody.
    unsafe {
        libc::raise(libc::SIGKILL);
        libc::_exit(137)
    }
}

/// Stops this process until it gets SIGCONT.
pub fn stop_this_process() {
    // SAFETY: to raise a signal touches nothing.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Lets `signals` wait, or with `hold` false come; what waits comes then. A program that this one becomes goes on with it.
pub fn hold_signals(signals: &[i32], hold: bool) {
    let how = if hold { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: the set is made by sigemptyset before it is read, and lives longer than the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        libc::pthread_sigmask(how, &set, std::ptr::null_mut());
    }
}

/// Says what a segmentation fault is likely to mean under a limit of address space: oneDNN uses memory without asking whether it got it.
pub fn explain_segmentation_faults() {
    extern "C" fn explain(_: c_int) {
        const WHY: &str = "error: segmentation fault: the memory is limited (ulimit -v or -d), and oneDNN does not check whether it got memory; \
                           raise that limit, or limit memory by a control group\n";
        // SAFETY: both may be called in a handler, and the text lives for ever.
        unsafe {
            libc::write(libc::STDERR_FILENO, WHY.as_ptr().cast(), WHY.len());
            libc::_exit(1)
        }
    }
    let is_limited = |what| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the limit is written to during the call alone.
        let code = unsafe { libc::getrlimit(what, &mut limit) };
        code == 0 && limit.rlim_cur != libc::RLIM_INFINITY
    };
    if !is_limited(libc::RLIMIT_AS) && !is_limited(libc::RLIMIT_DATA) {
        return;
    }
    // SAFETY: all bytes zero are a sigaction, and the handler only makes the calls above.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = explain as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
    }
}

/// Whether this process was started with `signal` ignored, as nohup does.
pub fn ignores(signal: i32) -> bool {
    // SAFETY: all bytes zero are a sigaction, and without a new one the call only writes the old one there.
    let (code, action) = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &mut action), action)
    };
    code == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// The time of day, for what people read and for files that carry it: nothing that is computed depends on it.
#[allow(clippy::disallowed_methods)]
pub fn time_of_day() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// Ends the process at once. `std::process::exit` would run libtorch's destructors under threads that are computing.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit returns to nobody and runs no handlers.
    unsafe { libc::_exit(code) }
}

/// How long ago this process started, loading its libraries included; zero where Linux's /proc does not say.
pub fn process_age() -> Duration {
    let age = || {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Field 22, counted after the command's name, which is in parentheses and may hold anything.
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
