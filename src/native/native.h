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

// The step and the moments (the tensors themselves) of an AdamW, a torch::optim::Optimizer *; nothing is written before its first step.
int bitfit_adamw_get(void *optimizer, bitfit_tensor parameter, int64_t *step, bitfit_tensor *mean, bitfit_tensor *square);

// Gives an AdamW this step and these moments.
int bitfit_adamw_set(void *optimizer, bitfit_tensor parameter, int64_t step, bitfit_tensor mean, bitfit_tensor square);

// A step of an AdamW over one parameter, in one pass over its gradient, its moments and itself: libtorch's AdamW makes a pass for each operation.
int bitfit_adamw_step(void *optimizer, bitfit_tensor parameter);

// Sends a boolean scalar to the host without waiting for it; received when it has arrived, then freed.
struct bitfit_flag;
int bitfit_flag_send(bitfit_flag **out, bitfit_tensor flag);
int bitfit_flag_receive(bitfit_flag *flag, bool *out);
void bitfit_flag_free(bitfit_flag *flag);

// Lets CUDA's fp32 products round their factors to TF32's 10 bits.
int bitfit_allow_tf32(bool allow);

// Gives the CUDA allocator's free blocks back.
int bitfit_release_gpu_memory();

// The most bytes that tensors took on a CUDA device so far.
int bitfit_peak_gpu_bytes(int64_t *out, int64_t index);

// Counter-based dropout of x [.., R, C]: what is dropped in row r, column c of block n depends on keys[r] (int64), site, n and c alone.
int bitfit_dropout(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor keys, int64_t site, double probability);

// Scaled dot-product attention inside each sequence, `heads` heads: rest [T, 3 H] holds queries, keys and values of every token; with
// q [R, H], the queries of the rows asked for, it is [T, 2 H], keys and values. The sequences' rows and tokens begin at `rows` and
// `tokens`, [sequences + 1]. With keys, int64 [R] or null, probabilities are dropped as bitfit_dropout does, heads being its blocks; a kernel that makes its
// own random numbers takes them from the seed.
int bitfit_attention(bitfit_tensor *out, bitfit_tensor q, bitfit_tensor rest, const int64_t *rows, const int64_t *tokens, int64_t sequences, int64_t heads, bitfit_tensor keys, int64_t seed, int64_t site, double probability);

// Makes libtorch count on as many threads as OpenMP gives the calling thread, as each product does; says how many were counted on before.
int bitfit_fit_threads(int64_t *wanted, int64_t *found);

// x [R, I] times weight [E, I], transposed, plus bias [E], or null.
int bitfit_product(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor weight, bitfit_tensor bias);

// The activation, by its number in src/nn/activation.rs, of x [R, C] + bias [C]. Without a gradient it may be written over x.
int bitfit_bias_activation(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor bias, int64_t kind);

// LayerNorm, with weight and shift [C], of residual + dropout(x + bias), x [R, C]; keys, int64 [R] or null, as in bitfit_dropout.
int bitfit_residual_norm(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor bias, bitfit_tensor residual, bitfit_tensor weight, bitfit_tensor shift, bitfit_tensor keys, int64_t site, double probability, double eps);

// The three that follow are for batches whose sequences are of several tasks. `rows` has the values of each sequence's task, `count` of
// them; a sequence's rows of x [R, C], fp32 on the CPU, begin at `starts`, [count + 1]. Vectors begin at the offsets in a task's values.

// Adds `pieces` vectors that lie side by side; written over x.
int bitfit_routed_add(bitfit_tensor *out, bitfit_tensor x, const float *const *rows, const int64_t *starts, int64_t count, const int64_t *offsets, int64_t pieces);

// The activation of x plus a vector; written over x.
int bitfit_routed_activation(bitfit_tensor *out, bitfit_tensor x, const float *const *rows, const int64_t *starts, int64_t count, int64_t offset, int64_t kind);

// LayerNorm of x plus residual, or null; offsets of bias, or -1, of weight, and of shift.
int bitfit_routed_norm(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor residual, const float *const *rows, const int64_t *starts, int64_t count, const int64_t *offsets, double eps);

// Notes the seconds in each operation, those it calls left out, until it is stopped; the report has a line for each: name, tab, seconds,
// tab, calls. Products' names go on with their sizes. The text lives until the next report.
int bitfit_profile_start();
int bitfit_profile_stop();
int bitfit_profile_report(const char **out);

// From now on large tensors on the CPU come from a pool; what is free in it goes back to the system when it is emptied.
void bitfit_pool_use();
void bitfit_pool_empty();
}
