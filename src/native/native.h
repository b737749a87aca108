// The C side of src/native/mod.rs. Every function that returns int catches all exceptions. It
// returns 0 on success; on failure, bitfit_last_error() returns the message, which belongs to the
// calling thread and lives until the thread's next failure.
#pragma once
#include <cstdint>

extern "C" {
typedef void *bitfit_tensor;  // at::Tensor *, as torch-sys has it

const char *bitfit_last_error();

// Makes `piece` a view of flat[offset .. offset + numel], keeping its values, and its gradient a
// view of the same range of `gradient`.
int bitfit_bind(bitfit_tensor piece, bitfit_tensor flat, bitfit_tensor gradient, int64_t offset);

// Sets the gradient of `flat` to the tensor `gradient`; tch has only a getter.
int bitfit_set_gradient(bitfit_tensor flat, bitfit_tensor gradient);

// Writes the step and the moments (handles to the same tensors) of an AdamW, a
// torch::optim::Optimizer *. Before the first step, writes nothing.
int bitfit_adamw_get(void *optimizer, bitfit_tensor parameter, int64_t *step, bitfit_tensor *mean, bitfit_tensor *square);

// Sets the step and the moments of an AdamW.
int bitfit_adamw_set(void *optimizer, bitfit_tensor parameter, int64_t step, bitfit_tensor mean, bitfit_tensor square);

// Takes a step of an AdamW over one parameter, in one pass over values, gradient and moments.
// libtorch's own AdamW makes a pass for each operation.
int bitfit_adamw_step(void *optimizer, bitfit_tensor parameter);

// Copies a boolean scalar to the host. `send` starts the copy and does not wait; `receive` waits
// for it; `free` releases the flag.
struct bitfit_flag;
int bitfit_flag_send(bitfit_flag **out, bitfit_tensor flag);
int bitfit_flag_receive(bitfit_flag *flag, bool *out);
void bitfit_flag_free(bitfit_flag *flag);

// Sets whether fp32 products on CUDA may round their factors to TF32's 10-bit mantissa.
int bitfit_allow_tf32(bool allow);

// Returns the CUDA allocator's free blocks to the device.
int bitfit_release_gpu_memory();

// Writes the peak memory of tensors on a CUDA device so far, in bytes.
int bitfit_peak_gpu_bytes(int64_t *out, int64_t index);

// Counter-based dropout of x [.., R, C]. Whether row r, column c of block n is dropped depends only
// on keys[r] (int64), site, n and c.
int bitfit_dropout(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor keys, int64_t site, double probability);

// Scaled dot-product attention with `heads` heads, inside each sequence. Without q (null), `rest`
// [T, 3 H] holds queries, keys and values of every token. With q [R, H], the queries of selected
// rows, `rest` [T, 2 H] holds keys and values. `rows` and `tokens` [sequences + 1] hold the index
// at which each sequence's rows and tokens begin, and end with R and T.
//
// With keys (int64 [R], or null for no dropout), probabilities are dropped as in bitfit_dropout,
// with heads as blocks. A CUDA kernel that makes its own random numbers is seeded from `seed` and
// `site`.
int bitfit_attention(bitfit_tensor *out, bitfit_tensor q, bitfit_tensor rest, const int64_t *rows, const int64_t *tokens, int64_t sequences, int64_t heads, bitfit_tensor keys, int64_t seed, int64_t site, double probability);

// Sets libtorch's thread count to the number of threads that OpenMP gives the calling thread
// (`found`), as each product does. `wanted` gets the count before.
int bitfit_fit_threads(int64_t *wanted, int64_t *found);

// Computes x [R, I] times the transpose of weight [E, I], plus bias ([E], or null).
int bitfit_product(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor weight, bitfit_tensor bias);

// Applies the activation `kind`, its number in src/nn/activation.rs, to x [R, C] + bias [C]. If no
// input requires a gradient, the result may overwrite x.
int bitfit_bias_activation(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor bias, int64_t kind);

// Computes the LayerNorm, with weight and shift [C], of residual + dropout(x + bias), where x and
// residual are [R, C]. keys: int64 [R] as in bitfit_dropout, or null for no dropout.
int bitfit_residual_norm(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor bias, bitfit_tensor residual, bitfit_tensor weight, bitfit_tensor shift, bitfit_tensor keys, int64_t site, double probability, double eps);

// The next three functions are for batches whose sequences are of several tasks. `rows` holds the
// address of each sequence's task values, `count` of them. The rows of each sequence in x [R, C],
// fp32 on the CPU, begin at `starts` [count + 1]. Offsets say where vectors begin in the values.

// Adds `pieces` vectors that lie side by side; overwrites x.
int bitfit_routed_add(bitfit_tensor *out, bitfit_tensor x, const float *const *rows, const int64_t *starts, int64_t count, const int64_t *offsets, int64_t pieces);

// The activation of x plus a vector; overwrites x.
int bitfit_routed_activation(bitfit_tensor *out, bitfit_tensor x, const float *const *rows, const int64_t *starts, int64_t count, int64_t offset, int64_t kind);

// LayerNorm of x plus residual (or null). The three offsets are of bias (or -1), weight and shift.
int bitfit_routed_norm(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor residual, const float *const *rows, const int64_t *starts, int64_t count, const int64_t *offsets, double eps);

// Records the seconds in each operation, without those of the operations that it calls, until the
// profile is stopped. The report has one line for each operation: name, tab, seconds, tab, calls.
// Names of products include their sizes. The text lives until the next report.
int bitfit_profile_start();
int bitfit_profile_stop();
int bitfit_profile_report(const char **out);

// `use` makes large CPU tensors come from a pool from now on. `empty` returns the pool's free
// blocks to the system.
void bitfit_pool_use();
void bitfit_pool_empty();
}
