// The arguments of the kernels in kernels.cu. Matrices are row-major and contiguous. `void *`
// points to values of the kernel's own type: float, bfloat16 or float16.
#pragma once
#include <cstdint>

namespace bitfit::gpu {

// The threads of a block, for every kernel.
constexpr int THREADS = 128;

constexpr int WARP = 32, WARPS = THREADS / WARP;

// The most columns of norm_backward_warp, which keeps a row in registers.
constexpr int WARP_COLUMNS = 1024;

// The dropout of rows: their keys, or null for no dropout.
struct Dropout {
  const int64_t *keys;
  int64_t site;
  uint32_t threshold;
  float scale;
};

// Where the rows of a batch of many tasks find their vectors: in tables with a row for each task.
// A row of the batch takes a vector at its task's number times `biases`, or `norm_weights` for a
// weight of LayerNorm, after the vector of the first task. Without tasks, all rows take that one.
struct Tasks {
  const int64_t *of_row;  // [rows], or null
  int64_t biases, norm_weights;
};

// y = LayerNorm(residual + dropout(x + bias)), with weight and shift. One block for each row.
struct NormForward {
  const void *x;          // [rows, columns]
  const float *bias;      // [columns], as are weight and shift; or null
  const float *residual;  // [rows, columns], or null
  const float *weight, *shift;
  Tasks tasks;
  Dropout dropout;
  float eps;
  int64_t columns;
  float *y;          // [rows, columns]
  void *rounded;     // y in the kernel's type; null if that is float
  void *normalized;  // y before weight and shift; null if no backward pass follows
  float *rstd;       // [rows], or null
};

// The backward pass of NormForward. Each block handles a strip of rows.
struct NormBackward {
  const float *grad_y;       // [rows, columns], or null
  const void *grad_rounded;  // of `rounded`, or null
  const void *normalized;
  const float *rstd, *weight;
  Dropout dropout;
  int64_t rows, columns;
  float *grad_residual;  // or null
  void *grad_x;          // or null
  float *sums;           // [strips, 3, columns]: of the gradients of bias, weight and shift
};

// y = activation(x + bias). Each block handles a strip of rows and a chunk of columns.
struct ActivationForward {
  const void *x;
  const float *bias;
  Tasks tasks;
  int64_t kind, rows, columns;
  void *y;
};

// The backward pass of ActivationForward.
struct ActivationBackward {
  const void *x;
  const float *bias;
  const void *grad_y;
  int64_t kind, rows, columns;
  void *grad_x;
  float *sums;  // [strips, columns]: of the bias's gradient
};

// y = dropout(x) of [blocks, rows, columns], with a key for each row.
struct DropoutForward {
  const void *x;
  Dropout dropout;
  int64_t blocks, rows, columns;
  void *y;
};

// The sums over strips of rows of x [rows, columns].
struct StripSums {
  const void *x;
  int64_t rows, columns;
  float *sums;  // [strips, columns]
};

// The most vectors that one product adds, and that a backward pass sums.
constexpr int VECTORS = 3;

// Sums over strips [strips, vectors, columns], which are added over the strips to the vectors.
struct Sums {
  const float *sums;
  int64_t strips, vectors, columns;
  float *to[VECTORS];  // [columns] each; null vectors are left out
};

// The most sums that one kernel finishes.
constexpr int MOST_SUMS = 8;

// Finishes sums of several layers; those of blockIdx.y.
struct FinishSums {
  Sums of[MOST_SUMS];
};

// y = x plus up to three vectors of a task, side by side. Each block handles a strip of rows and a
// chunk of columns.
struct TaskAdd {
  const void *x;
  const float *from[VECTORS];  // of the first task
  Tasks tasks;
  int64_t vectors, rows, columns;  // all columns
  void *y;
};

// Copies up to three vectors, one after the other, into y.
struct JoinVectors {
  const float *from[VECTORS];
  int64_t vectors, columns;
  void *y;  // [vectors, columns]
};

}  // namespace bitfit::gpu
