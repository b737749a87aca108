//! The C++ functions, as native.h declares and describes them.

use std::ffi::{c_char, c_int, c_void};

unsafe extern "C" {
    pub fn bitfit_last_error() -> *const c_char;
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
        step: *mut i64,
        mean: *mut *mut c_void,
        square: *mut *mut c_void,
    ) -> c_int;
    pub fn bitfit_adamw_step(optimizer: *mut c_void, parameter: *mut c_void) -> c_int;
    pub fn bitfit_adamw_set(
        optimizer: *mut c_void,
        parameter: *mut c_void,
        step: i64,
        mean: *mut c_void,
        square: *mut c_void,
    ) -> c_int;
    pub fn bitfit_flag_send(out: *mut *mut c_void, flag: *mut c_void) -> c_int;
    pub fn bitfit_flag_receive(flag: *mut c_void, out: *mut bool) -> c_int;
    pub fn bitfit_flag_free(flag: *mut c_void);
    pub fn bitfit_allow_tf32(allow: bool) -> c_int;
    pub fn bitfit_release_gpu_memory() -> c_int;
    pub fn bitfit_peak_gpu_bytes(out: *mut i64, index: i64) -> c_int;
    pub fn bitfit_dropout(
        out: *mut *mut c_void,
        x: *mut c_void,
        keys: *mut c_void,
        site: i64,
        probability: f64,
    ) -> c_int;
    pub fn bitfit_attention(
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
    pub fn bitfit_fit_threads(wanted: *mut i64, found: *mut i64) -> c_int;
    pub fn bitfit_product(
        out: *mut *mut c_void,
        x: *mut c_void,
        weight: *mut c_void,
        bias: *mut c_void,
    ) -> c_int;
    pub fn bitfit_pool_use();
    pub fn bitfit_pool_empty();
    pub fn bitfit_profile_start() -> c_int;
    pub fn bitfit_profile_stop() -> c_int;
    pub fn bitfit_profile_report(out: *mut *const c_char) -> c_int;
    pub fn bitfit_bias_activation(
        out: *mut *mut c_void,
        x: *mut c_void,
        bias: *mut c_void,
        kind: i64,
    ) -> c_int;
    pub fn bitfit_residual_norm(
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
    pub fn bitfit_routed_add(
        out: *mut *mut c_void,
        x: *mut c_void,
        rows: *const *const f32,
        starts: *const i64,
        count: i64,
        offsets: *const i64,
        pieces: i64,
    ) -> c_int;
    pub fn bitfit_routed_activation(
        out: *mut *mut c_void,
        x: *mut c_void,
        rows: *const *const f32,
        starts: *const i64,
        count: i64,
        offset: i64,
        kind: i64,
    ) -> c_int;
    pub fn bitfit_routed_norm(
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
