//! The C++ side, as native.h declares and describes it: the same structs and functions, which
//! `tests/native.rs` compares.

use std::ffi::{c_char, c_int, c_void};

#[repr(C)]
pub struct MaskArgs {
    pub keys: *mut c_void,
    pub site: i64,
    pub probability: f64,
}
const _: () = assert!(size_of::<MaskArgs>() == 3 * 8);

#[repr(C)]
pub struct DropoutArgs {
    pub x: *mut c_void,
    pub mask: MaskArgs,
}
const _: () = assert!(size_of::<DropoutArgs>() == 4 * 8);

#[repr(C)]
pub struct AttentionArgs {
    pub queries: *mut c_void,
    pub rest: *mut c_void,
    pub rows: *const i64,
    pub tokens: *const i64,
    pub sequences: i64,
    pub heads: i64,
    pub seed: i64,
    pub mask: MaskArgs,
}
const _: () = assert!(size_of::<AttentionArgs>() == 10 * 8);

#[repr(C)]
pub struct ProductArgs {
    pub x: *mut c_void,
    pub weight: *mut c_void,
    pub biases: *const *mut c_void,
    pub count: i64,
    pub kept: i64,
}
const _: () = assert!(size_of::<ProductArgs>() == 5 * 8);

#[repr(C)]
pub struct BiasActivationArgs {
    pub x: *mut c_void,
    pub bias: *mut c_void,
    pub kind: i64,
}
const _: () = assert!(size_of::<BiasActivationArgs>() == 3 * 8);

#[repr(C)]
pub struct ResidualNormArgs {
    pub x: *mut c_void,
    pub bias: *mut c_void,
    pub residual: *mut c_void,
    pub weight: *mut c_void,
    pub shift: *mut c_void,
    pub eps: f64,
    pub mask: MaskArgs,
}
const _: () = assert!(size_of::<ResidualNormArgs>() == 9 * 8);

#[repr(C)]
pub struct RouteArgs {
    pub values: *const *const f32,
    pub starts: *const i64,
    pub count: i64,
}
const _: () = assert!(size_of::<RouteArgs>() == 3 * 8);

#[repr(C)]
pub struct RoutedAddArgs {
    pub x: *mut c_void,
    pub route: RouteArgs,
    pub offsets: *const i64,
    pub pieces: i64,
}
const _: () = assert!(size_of::<RoutedAddArgs>() == 6 * 8);

#[repr(C)]
pub struct RoutedActivationArgs {
    pub x: *mut c_void,
    pub route: RouteArgs,
    pub offset: i64,
    pub kind: i64,
}
const _: () = assert!(size_of::<RoutedActivationArgs>() == 6 * 8);

#[repr(C)]
pub struct RoutedNormArgs {
    pub x: *mut c_void,
    pub residual: *mut c_void,
    pub route: RouteArgs,
    pub weights: *const *const f32,
    pub bias: i64,
    pub weight: i64,
    pub shift: i64,
    pub eps: f64,
}
const _: () = assert!(size_of::<RoutedNormArgs>() == 10 * 8);

#[repr(C)]
pub struct RoutedLinearArgs {
    pub x: *mut c_void,
    pub weights: *const *const f32,
    pub biases: *const *const f32,
    pub outputs: *const i64,
    pub count: i64,
}
const _: () = assert!(size_of::<RoutedLinearArgs>() == 5 * 8);

#[repr(C)]
pub struct TablesArgs {
    pub biases: *mut c_void,
    pub norm_weights: *mut c_void,
    pub of_row: *mut c_void,
}
const _: () = assert!(size_of::<TablesArgs>() == 3 * 8);

#[repr(C)]
pub struct TaskAddArgs {
    pub x: *mut c_void,
    pub tables: TablesArgs,
    pub offsets: *const i64,
    pub pieces: i64,
}
const _: () = assert!(size_of::<TaskAddArgs>() == 6 * 8);

#[repr(C)]
pub struct TaskActivationArgs {
    pub x: *mut c_void,
    pub tables: TablesArgs,
    pub offset: i64,
    pub kind: i64,
}
const _: () = assert!(size_of::<TaskActivationArgs>() == 6 * 8);

#[repr(C)]
pub struct TaskNormArgs {
    pub x: *mut c_void,
    pub residual: *mut c_void,
    pub tables: TablesArgs,
    pub bias: i64,
    pub weight: i64,
    pub shift: i64,
    pub eps: f64,
}
const _: () = assert!(size_of::<TaskNormArgs>() == 9 * 8);

#[repr(C)]
pub struct AdamwArgs {
    pub step: i64,
    pub exp_avg: *mut c_void,
    pub exp_avg_sq: *mut c_void,
}
const _: () = assert!(size_of::<AdamwArgs>() == 3 * 8);

unsafe extern "C" {
    pub fn bitfit_last_error() -> *const c_char;
    pub fn bitfit_dropout(out: *mut *mut c_void, args: *const DropoutArgs) -> c_int;
    pub fn bitfit_attention(out: *mut *mut c_void, args: *const AttentionArgs) -> c_int;
    pub fn bitfit_product(out: *mut *mut c_void, args: *const ProductArgs) -> c_int;
    pub fn bitfit_bias_activation(out: *mut *mut c_void, args: *const BiasActivationArgs) -> c_int;
    pub fn bitfit_residual_norm(
        out: *mut *mut c_void,
        rounded: *mut *mut c_void,
        args: *const ResidualNormArgs,
    ) -> c_int;
    pub fn bitfit_routed_add(out: *mut *mut c_void, args: *const RoutedAddArgs) -> c_int;
    pub fn bitfit_routed_activation(
        out: *mut *mut c_void,
        args: *const RoutedActivationArgs,
    ) -> c_int;
    pub fn bitfit_routed_norm(out: *mut *mut c_void, args: *const RoutedNormArgs) -> c_int;
    pub fn bitfit_routed_linear(out: *mut *mut c_void, args: *const RoutedLinearArgs) -> c_int;
    pub fn bitfit_has_kernels(out: *mut bool, x: *mut c_void) -> c_int;
    pub fn bitfit_task_add(out: *mut *mut c_void, args: *const TaskAddArgs) -> c_int;
    pub fn bitfit_task_activation(out: *mut *mut c_void, args: *const TaskActivationArgs) -> c_int;
    pub fn bitfit_task_norm(
        out: *mut *mut c_void,
        rounded: *mut *mut c_void,
        args: *const TaskNormArgs,
    ) -> c_int;
    pub fn bitfit_bind(
        piece: *mut c_void,
        flat: *mut c_void,
        gradient: *mut c_void,
        offset: i64,
    ) -> c_int;
    pub fn bitfit_set_gradient(flat: *mut c_void, gradient: *mut c_void) -> c_int;
    pub fn bitfit_adamw_get(
        optimizer: *mut c_void,
        parameter: *mut c_void,
        args: *mut AdamwArgs,
    ) -> c_int;
    pub fn bitfit_adamw_set(
        optimizer: *mut c_void,
        parameter: *mut c_void,
        args: *const AdamwArgs,
    ) -> c_int;
    pub fn bitfit_adamw_step(
        optimizer: *mut c_void,
        parameter: *mut c_void,
        skip: *mut c_void,
    ) -> c_int;
    pub fn bitfit_flag_send(out: *mut *mut c_void, value: *mut c_void) -> c_int;
    pub fn bitfit_flag_receive(flag: *mut c_void, out: *mut bool) -> c_int;
    pub fn bitfit_flag_free(flag: *mut c_void);
    pub fn bitfit_allow_tf32(allow: bool) -> c_int;
    pub fn bitfit_kernels_load(device: i64, image: *const c_void) -> c_int;
    pub fn bitfit_capability(out: *mut i64, device: i64) -> c_int;
    pub fn bitfit_gpu_name(out: *mut *const c_char, device: i64) -> c_int;
    pub fn bitfit_release_gpu_memory() -> c_int;
    pub fn bitfit_peak_gpu_bytes(out: *mut i64, index: i64) -> c_int;
    pub fn bitfit_reset_gpu_peak(index: i64) -> c_int;
    pub fn bitfit_pinned(out: *mut *mut c_void, t: *mut c_void) -> c_int;
    pub fn bitfit_fit_threads(wanted: *mut i64, found: *mut i64) -> c_int;
    pub fn bitfit_set_thread_count(wanted: i64, before: *mut i64) -> c_int;
    pub fn bitfit_profile_start() -> c_int;
    pub fn bitfit_profile_stop() -> c_int;
    pub fn bitfit_profile_report(out: *mut *const c_char) -> c_int;
    pub fn bitfit_cpu_level() -> *const c_char;
    pub fn bitfit_cpu_levels() -> *const c_char;
    pub fn bitfit_forget(t: *mut c_void);
    pub fn bitfit_pool_use();
    pub fn bitfit_pool_empty();
}
