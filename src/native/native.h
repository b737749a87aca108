// The C side of src/native/mod.rs. Every function catches everything, returns 0 on success, and else leaves its
// message in bitfit_last_error(), which belongs to the calling thread and lives until its next failure.
#pragma once
#include <cstdint>

extern "C" {
typedef void *bitfit_tensor;  // at::Tensor *, as torch-sys has it

const char *bitfit_last_error();

// Makes `piece` a view of flat[offset .. offset + numel], keeping its values, and its gradient a view of the same place in `gradient`.
int bitfit_bind(bitfit_tensor piece, bitfit_tensor flat, bitfit_tensor gradient, int64_t offset);

// Sets flat's gradient itself; tch has a getter only.
int bitfit_set_gradient(bitfit_tensor flat, bitfit_tensor gradient);

// The most bytes that tensors took on a CUDA device so far.
int bitfit_peak_gpu_bytes(int64_t *out, int64_t index);

// Counter-based dropout of x [.., R, C]: what is dropped in row r, column c of block n depends on keys[r] (int64), site, n and c alone.
int bitfit_dropout(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor keys, int64_t site, double probability);
}
