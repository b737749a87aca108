// The arguments of the kernels in kernels.cu. Matrices are row-major and contiguous. `void *`
// points to values of the kernel's own type: float, bfloat16 or float16.
#pragma once
#include <cstdint>

namespace bitfit::gpu {

// The threads of a block, for every kernel.
constexpr int THREADS = 128;

// The dropout of rows: their keys, or null for no dropout.
struct Dropout {
  const int64_t *keys;
  int64_t site;
  uint32_t threshold;
  float scale;
};

// y = LayerNorm(residual + dropout(x + bias)), with weight and shift. One block for each row.
struct NormForward {
  const void *x;          // [rows, columns]
  const float *bias;      // [columns], as are weight and shift
  const float *residual;  // [rows, columns]
  const float *weight, *shift;
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

// Adds `sums` [strips, vectors, columns] over the strips to up to three vectors.
struct FinishSums {
  const float *sums;
  int64_t strips, vectors, columns;
  float *to[VECTORS];  // [columns] each; null vectors are left out
};

// Copies up to three vectors, one after the other, into y.
struct JoinVectors {
  const float *from[VECTORS];
  int64_t vectors, columns;
  void *y;  // [vectors, columns]
};

}  // namespace bitfit::gpu
