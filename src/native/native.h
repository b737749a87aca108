// The C side of ffi.rs, which declares the same structs and functions. tests/native.rs compares the
// two files.
//
// Every function that returns int catches all exceptions. It returns 0 on success. On failure,
// bitfit_last_error() returns the message, which belongs to the calling thread and lives until the
// thread's next failure. Functions with `out` write there a tensor that the caller owns.
#pragma once
#include <cstdint>

typedef void *bitfit_tensor;  // at::Tensor *, as torch-sys has it

namespace bitfit {

// Counter-based dropout at one place of the model. `keys` is int64, one key for each row, or null
// for no dropout. Whether column c of row r is dropped depends only on keys[r], `site`, c and, for
// inputs of several blocks, the block.
struct MaskArgs {
  bitfit_tensor keys;
  int64_t site;
  double probability;
};
static_assert(sizeof(MaskArgs) == 3 * 8);

// Dropout of x [.., R, C], with a mask for each of the leading blocks. `mask.keys` is not null.
struct DropoutArgs {
  bitfit_tensor x;
  MaskArgs mask;
};
static_assert(sizeof(DropoutArgs) == 4 * 8);

// Scaled dot-product attention with `heads` heads, inside each sequence. Without queries (null),
// `rest` [T, 3 H] holds queries, keys and values of every token. With queries [R, H], those of
// selected rows, `rest` [T, 2 H] holds keys and values. `rows` and `tokens` [sequences + 1] hold
// the index at which each sequence's rows and tokens begin, and end with R and T.
//
// Heads are the blocks of the mask. A CUDA kernel that makes its own random numbers is seeded from
// `seed` and the mask's site.
struct AttentionArgs {
  bitfit_tensor queries;
  bitfit_tensor rest;
  const int64_t *rows;
  const int64_t *tokens;
  int64_t sequences;
  int64_t heads;
  int64_t seed;
  MaskArgs mask;
};
static_assert(sizeof(AttentionArgs) == 10 * 8);

// x [R, I] times the transpose of weight [E, I], plus `count` biases side by side, together [E]. If
// `kept` is not 0, the weight is part of a model: while it is frozen, a copy of it may be kept that
// is faster to read.
struct ProductArgs {
  bitfit_tensor x;
  bitfit_tensor weight;
  const bitfit_tensor *biases;
  int64_t count;
  int64_t kept;
};
static_assert(sizeof(ProductArgs) == 5 * 8);

// The activation `kind`, its number in src/nn/activation.rs, of x [R, C] + bias [C]. If no input
// requires a gradient, the result may overwrite x.
struct BiasActivationArgs {
  bitfit_tensor x;
  bitfit_tensor bias;
  int64_t kind;
};
static_assert(sizeof(BiasActivationArgs) == 3 * 8);

// The LayerNorm, with weight and shift [C], of residual + dropout(x + bias), where x and residual
// are [R, C]. The result has the kind of the residual.
struct ResidualNormArgs {
  bitfit_tensor x;
  bitfit_tensor bias;
  bitfit_tensor residual;
  bitfit_tensor weight;
  bitfit_tensor shift;
  double eps;
  MaskArgs mask;
};
static_assert(sizeof(ResidualNormArgs) == 9 * 8);

// The sequences of a batch, `count` of them, each of its own task. `values` holds the address of
// the biases of each sequence's task. The rows of each sequence begin at `starts` [count + 1].
struct RouteArgs {
  const float *const *values;
  const int64_t *starts;
  int64_t count;
};
static_assert(sizeof(RouteArgs) == 3 * 8);

// The next three are for x [R, C] in fp32 on the CPU. Offsets say where a vector begins in `values`
// of a task.

// x plus `pieces` vectors that lie side by side. Overwrites x.
struct RoutedAddArgs {
  bitfit_tensor x;
  RouteArgs route;
  const int64_t *offsets;
  int64_t pieces;
};
static_assert(sizeof(RoutedAddArgs) == 6 * 8);

// The activation of x plus a vector. Overwrites x.
struct RoutedActivationArgs {
  bitfit_tensor x;
  RouteArgs route;
  int64_t offset;
  int64_t kind;
};
static_assert(sizeof(RoutedActivationArgs) == 6 * 8);

// The LayerNorm of x plus residual (or null) plus the vector `bias` (or -1). `weights` holds the
// address of the LayerNorm weights of each sequence's task; there `weight` is an offset.
struct RoutedNormArgs {
  bitfit_tensor x;
  bitfit_tensor residual;
  RouteArgs route;
  const float *const *weights;
  int64_t bias;
  int64_t weight;
  int64_t shift;
  double eps;
};
static_assert(sizeof(RoutedNormArgs) == 10 * 8);

// The product of each row of x [count, I], in fp32 on the CPU, with a weight [E, I] of its own,
// plus a bias [E]. `outputs` holds E of each row. The result is flat: the E values of each row.
struct RoutedLinearArgs {
  bitfit_tensor x;
  const float *const *weights;
  const float *const *biases;
  const int64_t *outputs;
  int64_t count;
};
static_assert(sizeof(RoutedLinearArgs) == 5 * 8);

// The vectors of many tasks on a device with kernels: biases [K, P] and LayerNorm weights [K, W] in
// fp32, and the row of them that each row of a batch takes, int64 [R].
struct TablesArgs {
  bitfit_tensor biases;
  bitfit_tensor norm_weights;
  bitfit_tensor of_row;
};
static_assert(sizeof(TablesArgs) == 3 * 8);

// x plus `pieces` biases that lie side by side. Overwrites x.
struct TaskAddArgs {
  bitfit_tensor x;
  TablesArgs tables;
  const int64_t *offsets;
  int64_t pieces;
};
static_assert(sizeof(TaskAddArgs) == 6 * 8);

// The activation of x plus a bias. Overwrites x.
struct TaskActivationArgs {
  bitfit_tensor x;
  TablesArgs tables;
  int64_t offset;
  int64_t kind;
};
static_assert(sizeof(TaskActivationArgs) == 6 * 8);

// The LayerNorm of x plus residual (or null) plus the vector `bias` (or -1).
struct TaskNormArgs {
  bitfit_tensor x;
  bitfit_tensor residual;
  TablesArgs tables;
  int64_t bias;
  int64_t weight;
  int64_t shift;
  double eps;
};
static_assert(sizeof(TaskNormArgs) == 9 * 8);

// The step count and the moments of an AdamW for one parameter.
struct AdamwArgs {
  int64_t step;
  bitfit_tensor exp_avg;
  bitfit_tensor exp_avg_sq;
};
static_assert(sizeof(AdamwArgs) == 3 * 8);

struct Flag;

}  // namespace bitfit

extern "C" {
const char *bitfit_last_error();

// The kernels, as their arguments describe them.
int bitfit_dropout(bitfit_tensor *out, const bitfit::DropoutArgs *args);
int bitfit_attention(bitfit_tensor *out, const bitfit::AttentionArgs *args);
int bitfit_product(bitfit_tensor *out, const bitfit::ProductArgs *args);
int bitfit_bias_activation(bitfit_tensor *out, const bitfit::BiasActivationArgs *args);

// Writes null to `rounded`, or, if x has another kind than the residual and a kernel makes both at
// once, the result in the kind of x.
int bitfit_residual_norm(bitfit_tensor *out, bitfit_tensor *rounded,
                         const bitfit::ResidualNormArgs *args);

int bitfit_routed_add(bitfit_tensor *out, const bitfit::RoutedAddArgs *args);
int bitfit_routed_activation(bitfit_tensor *out, const bitfit::RoutedActivationArgs *args);
int bitfit_routed_norm(bitfit_tensor *out, const bitfit::RoutedNormArgs *args);

int bitfit_routed_linear(bitfit_tensor *out, const bitfit::RoutedLinearArgs *args);

// Whether the device of x has kernels for its kind.
int bitfit_has_kernels(bool *out, bitfit_tensor x);
int bitfit_task_add(bitfit_tensor *out, const bitfit::TaskAddArgs *args);
int bitfit_task_activation(bitfit_tensor *out, const bitfit::TaskActivationArgs *args);
// `rounded` is like that of bitfit_residual_norm.
int bitfit_task_norm(bitfit_tensor *out, bitfit_tensor *rounded, const bitfit::TaskNormArgs *args);

// Makes `piece` a view of flat[offset .. offset + numel], keeping its values, and its gradient a
// view of the same range of `gradient`.
int bitfit_bind(bitfit_tensor piece, bitfit_tensor flat, bitfit_tensor gradient, int64_t offset);

// Sets the gradient of `flat` to the tensor `gradient`; tch has only a getter.
int bitfit_set_gradient(bitfit_tensor flat, bitfit_tensor gradient);

// Writes the state of an AdamW, a torch::optim::Optimizer *. The moments are handles to the
// optimizer's tensors. Before the first step, writes nothing.
int bitfit_adamw_get(void *optimizer, bitfit_tensor parameter, bitfit::AdamwArgs *args);

// Sets the state of an AdamW.
int bitfit_adamw_set(void *optimizer, bitfit_tensor parameter, const bitfit::AdamwArgs *args);

// Takes a step of an AdamW over one parameter, in one pass over values, gradient and moments.
// libtorch's own AdamW makes a pass for each operation. Where `skip`, an fp32 scalar on the device
// or null, is 1, the step only counts.
int bitfit_adamw_step(void *optimizer, bitfit_tensor parameter, bitfit_tensor skip);

// Copies a boolean scalar to the host. `send` starts the copy and does not wait; `receive` waits
// for it; `free` releases the flag.
int bitfit_flag_send(bitfit::Flag **out, bitfit_tensor value);
int bitfit_flag_receive(bitfit::Flag *flag, bool *out);
void bitfit_flag_free(bitfit::Flag *flag);

// Sets whether fp32 products on CUDA may round their factors to TF32's 10-bit mantissa.
int bitfit_allow_tf32(bool allow);

// Loads compiled kernels (a cubin, or PTX with a NUL at its end) on a CUDA device. Without them,
// plain tensor operations compute there.
int bitfit_kernels_load(int64_t device, const void *image);

// Writes the compute capability of a CUDA device, such as 80 for 8.0.
int bitfit_capability(int64_t *out, int64_t device);

// Writes the name of a CUDA device. The text lives until the calling thread's next call.
int bitfit_gpu_name(const char **out, int64_t device);

// Returns the CUDA allocator's free blocks to the device.
int bitfit_release_gpu_memory();

// Writes the peak memory of tensors on a CUDA device so far, in bytes. `reset` begins a new peak.
int bitfit_peak_gpu_bytes(int64_t *out, int64_t index);
int bitfit_reset_gpu_peak(int64_t index);

// Copies a CPU tensor to memory that a GPU can read while the host goes on.
int bitfit_pinned(bitfit_tensor *out, bitfit_tensor t);

// Sets libtorch's thread count to the number of threads that OpenMP gives the calling thread
// (`found`), as each product does. `wanted` gets the count before.
int bitfit_fit_threads(int64_t *wanted, int64_t *found);

// Sets the number of OpenMP threads that operations of the calling thread use. `before` gets the
// number before.
int bitfit_set_thread_count(int64_t wanted, int64_t *before);

// Records the seconds in each operation, without those of the operations that it calls, until the
// profile is stopped. The report has one line for each operation: name, tab, seconds, tab, calls.
// Names of products include their sizes. The text lives until the next report.
int bitfit_profile_start();
int bitfit_profile_stop();
int bitfit_profile_report(const char **out);

// The level of processor in use, and the levels of this processor, the highest first, separated by
// spaces.
const char *bitfit_cpu_level();
const char *bitfit_cpu_levels();

// Drops the pages of a mapped file, which was never written to, that lie in a tensor's memory. They
// are read again when they are needed. Does nothing to other tensors.
void bitfit_forget(bitfit_tensor t);

// `use` makes large CPU tensors come from a pool from now on, in the whole process. `empty` returns
// the pool's free blocks to the system.
void bitfit_pool_use();
void bitfit_pool_empty();
}
