// The kernels for CUDA devices: the fused operations of the encoder, forward and backward. NVRTC
// compiles this file when a program first computes on a GPU; tests compile it for the CPU.
//
// A row's sums are added in an order that depends on the sizes alone, so that a run gives the same
// bytes each time. Sums over rows are made in strips of rows, and `finish_sums` adds the strips.
#include "args.h"
#include "rows/activation.h"
#include "rows/mask.h"

// Tests define these for the CPU.
#ifndef BITFIT_KERNEL
#define BITFIT_KERNEL(name, Args) \
  extern "C" __global__ void __launch_bounds__(bitfit::gpu::THREADS) name(const Args args)
// The shared memory whose size is chosen at the launch.
#define BITFIT_SHARED(name) extern __shared__ __align__(16) float name[]
#endif

namespace bitfit::gpu {

using fp32 = float;
struct bf16 {
  uint16_t bits;
};
struct fp16 {
  uint16_t bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}
__device__ __forceinline__ float to_float(fp16 x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
#else
  return static_cast<float>(__builtin_bit_cast(_Float16, x.bits));
#endif
}

// Rounds to the nearest value, and to the even one of two.
template <typename T>
__device__ __forceinline__ T rounded(float x);
template <>
__device__ __forceinline__ float rounded<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bf16 rounded<bf16>(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint16_t fast;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(fast) : "f"(x));
  return {fast};
#else
  const uint32_t bits = __float_as_uint(x);
  const uint32_t up = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return {static_cast<uint16_t>(x != x ? 0x7FC0u : up)};
#endif
}
template <>
__device__ __forceinline__ fp16 rounded<fp16>(float x) {
#ifdef __CUDA_ARCH__
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return {bits};
#else
  return {__builtin_bit_cast(uint16_t, static_cast<_Float16>(x))};
#endif
}

// `n` neighbouring values, read and written at once: `n` values must be aligned to their size.
template <typename T, int n>
struct alignas(n * sizeof(T)) Pack {
  T at[n];
};

template <int n, typename T>
__device__ __forceinline__ void load(const T *from, float (&to)[n]) {
  const auto pack = *reinterpret_cast<const Pack<T, n> *>(from);
#pragma unroll
  for (int i = 0; i < n; ++i) to[i] = to_float(pack.at[i]);
}

// Vectors may begin at any float, so each is read alone.
template <int n>
__device__ __forceinline__ void load_each(const float *from, float (&to)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) to[i] = from[i];
}

template <int n, typename T>
__device__ __forceinline__ void store(const float (&from)[n], T *to) {
  Pack<T, n> pack;
#pragma unroll
  for (int i = 0; i < n; ++i) pack.at[i] = rounded<T>(from[i]);
  *reinterpret_cast<Pack<T, n> *>(to) = pack;
}

// The sums of a and b over the warp, for every thread.
__device__ __forceinline__ void warp_sums(float &a, float &b) {
  for (int offset = WARP / 2; offset; offset /= 2) {
    a += __shfl_xor_sync(~0u, a, offset);
    b += __shfl_xor_sync(~0u, b, offset);
  }
}

// The sums of a and b over the block, for every thread.
__device__ __forceinline__ void block_sums(float &a, float &b) {
  __shared__ float parts[2][WARPS];
  warp_sums(a, b);
  const int warp = threadIdx.x / WARP;
  if (threadIdx.x % WARP == 0) parts[0][warp] = a, parts[1][warp] = b;
  __syncthreads();
  a = b = 0.0f;
  for (int i = 0; i < WARPS; ++i) a += parts[0][i], b += parts[1][i];
  // The next sums write to the same memory.
  __syncthreads();
}

// How far the vectors of a row's task lie after those of the first task.
__device__ __forceinline__ int64_t of_task(const Tasks &tasks, int64_t row, int64_t stride) {
  return tasks.of_row ? tasks.of_row[row] * stride : 0;
}

__device__ __forceinline__ RowDropout row_dropout(const Dropout &dropout, int64_t row,
                                                  int64_t block) {
  const RowKeys keys{dropout.keys, dropout.site, {dropout.threshold, dropout.scale}};
  return keys.row(row, block);
}

__device__ __forceinline__ float keep(const RowDropout &dropout, int64_t column) {
  return dropout.enabled() ? keep_scale(dropout.key, static_cast<uint32_t>(column), dropout.params)
                           : 1.0f;
}

// The rows of a strip, one of gridDim.x.
struct Strip {
  int64_t begin, end;
  __device__ explicit Strip(int64_t rows)
      : begin(rows * blockIdx.x / gridDim.x), end(rows * (blockIdx.x + 1) / gridDim.x) {}
};

template <typename T, int n>
__device__ void norm_forward(const NormForward &args) {
  BITFIT_SHARED(row);
  const int64_t columns = args.columns, at = blockIdx.x * columns;
  const auto dropout = row_dropout(args.dropout, blockIdx.x, 0);
  const auto *x = static_cast<const T *>(args.x) + at;
  const int64_t biases = of_task(args.tasks, blockIdx.x, args.tasks.biases);
  const int64_t weights = of_task(args.tasks, blockIdx.x, args.tasks.norm_weights);
  float sum = 0.0f, none = 0.0f;
  for (int64_t c = threadIdx.x * n; c < columns; c += THREADS * n) {
    float v[n], bias[n], residual[n];
#pragma unroll
    for (int i = 0; i < n; ++i) bias[i] = residual[i] = 0.0f;
    load<n>(x + c, v);
    if (args.bias) load_each<n>(args.bias + biases + c, bias);
    if (args.residual) load<n>(args.residual + at + c, residual);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      v[i] = (v[i] + bias[i]) * keep(dropout, c + i) + residual[i];
      sum += v[i];
    }
    store<n>(v, row + c);
  }
  block_sums(sum, none);
  const float mean = sum / static_cast<float>(columns);
  float squares = 0.0f;
  for (int64_t c = threadIdx.x * n; c < columns; c += THREADS * n) {
    float v[n];
    load<n>(row + c, v);
#pragma unroll
    for (int i = 0; i < n; ++i) squares += (v[i] - mean) * (v[i] - mean);
  }
  block_sums(squares, none);
  const float rstd = 1.0f / sqrtf(squares / static_cast<float>(columns) + args.eps);
  if (threadIdx.x == 0 && args.rstd) args.rstd[blockIdx.x] = rstd;
  for (int64_t c = threadIdx.x * n; c < columns; c += THREADS * n) {
    float v[n], weight[n], shift[n];
    load<n>(row + c, v);
    load_each<n>(args.weight + weights + c, weight);
    load_each<n>(args.shift + biases + c, shift);
#pragma unroll
    for (int i = 0; i < n; ++i) v[i] = (v[i] - mean) * rstd;
    if (args.normalized) store<n>(v, static_cast<T *>(args.normalized) + at + c);
#pragma unroll
    for (int i = 0; i < n; ++i) v[i] = v[i] * weight[i] + shift[i];
    store<n>(v, args.y + at + c);
    if (args.rounded) store<n>(v, static_cast<T *>(args.rounded) + at + c);
  }
}

// The gradient of y at `at`: that of `y` plus that of `rounded`.
template <typename T, int n>
__device__ __forceinline__ void load_grad(const NormBackward &args, int64_t at, float (&to)[n]) {
  float more[n];
#pragma unroll
  for (int i = 0; i < n; ++i) to[i] = more[i] = 0.0f;
  if (args.grad_y) load<n>(args.grad_y + at, to);
  if (args.grad_rounded) load<n>(static_cast<const T *>(args.grad_rounded) + at, more);
#pragma unroll
  for (int i = 0; i < n; ++i) to[i] += more[i];
}

template <typename T, int n>
__device__ void norm_backward(const NormBackward &args) {
  BITFIT_SHARED(sums);
  const int64_t columns = args.columns;
  // Each thread adds to the sums of its own columns only.
  float *biases = sums, *weights = sums + columns, *shifts = sums + 2 * columns;
  for (int64_t c = threadIdx.x * n; c < columns; c += THREADS * n)
#pragma unroll
    for (int i = 0; i < n; ++i) biases[c + i] = weights[c + i] = shifts[c + i] = 0.0f;
  const Strip strip(args.rows);
  for (int64_t r = strip.begin; r < strip.end; ++r) {
    const int64_t at = r * columns;
    const auto *normalized = static_cast<const T *>(args.normalized) + at;
    const auto dropout = row_dropout(args.dropout, r, 0);
    const float rstd = args.rstd[r];
    float sum = 0.0f, dot = 0.0f;
    for (int64_t c = threadIdx.x * n; c < columns; c += THREADS * n) {
      float grad[n], hat[n], weight[n];
      load_grad<T>(args, at + c, grad);
      load<n>(normalized + c, hat);
      load_each<n>(args.weight + c, weight);
#pragma unroll
      for (int i = 0; i < n; ++i) {
        const float g = grad[i] * weight[i];
        sum += g;
        dot += g * hat[i];
        weights[c + i] += grad[i] * hat[i];
        shifts[c + i] += grad[i];
      }
    }
    block_sums(sum, dot);
    const float mean = sum / static_cast<float>(columns), slope = dot / static_cast<float>(columns);
    for (int64_t c = threadIdx.x * n; c < columns; c += THREADS * n) {
      float grad[n], hat[n], weight[n], x[n];
      load_grad<T>(args, at + c, grad);
      load<n>(normalized + c, hat);
      load_each<n>(args.weight + c, weight);
#pragma unroll
      for (int i = 0; i < n; ++i) {
        grad[i] = (grad[i] * weight[i] - mean - hat[i] * slope) * rstd;
        x[i] = grad[i] * keep(dropout, c + i);
        biases[c + i] += x[i];
      }
      if (args.grad_residual) store<n>(grad, args.grad_residual + at + c);
      if (args.grad_x) store<n>(x, static_cast<T *>(args.grad_x) + at + c);
    }
  }
  float *to = args.sums + blockIdx.x * 3 * columns;
  for (int64_t c = threadIdx.x * n; c < columns; c += THREADS * n)
#pragma unroll
    for (int i = 0; i < n; ++i)
      for (int of = 0; of < 3; ++of) to[of * columns + c + i] = sums[of * columns + c + i];
}

// norm_backward for rows of at most WARP_COLUMNS columns: each warp handles rows of its own, reads
// them once, and waits for no other warp.
template <typename T, int n>
__device__ void norm_backward_warp(const NormBackward &args) {
  BITFIT_SHARED(sums);
  constexpr int PACKS = WARP_COLUMNS / WARP / n;
  const int64_t columns = args.columns;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  // Each thread adds to the sums of its own columns, in its warp's part.
  float *biases = sums + warp * 3 * columns, *weights = biases + columns,
        *shifts = weights + columns;
  for (int64_t c = lane * n; c < columns; c += WARP * n)
#pragma unroll
    for (int i = 0; i < n; ++i) biases[c + i] = weights[c + i] = shifts[c + i] = 0.0f;
  const Strip strip(args.rows);
  for (int64_t r = strip.begin + warp; r < strip.end; r += WARPS) {
    const int64_t at = r * columns;
    const auto *normalized = static_cast<const T *>(args.normalized) + at;
    float grad[PACKS][n], hat[PACKS][n];
    float sum = 0.0f, dot = 0.0f;
#pragma unroll
    for (int pack = 0; pack < PACKS; ++pack) {
      const int64_t c = (pack * WARP + lane) * n;
      if (c >= columns) continue;
      load_grad<T>(args, at + c, grad[pack]);
      load<n>(normalized + c, hat[pack]);
    }
#pragma unroll
    for (int pack = 0; pack < PACKS; ++pack) {
      const int64_t c = (pack * WARP + lane) * n;
      if (c >= columns) continue;
      float weight[n];
      load_each<n>(args.weight + c, weight);
#pragma unroll
      for (int i = 0; i < n; ++i) {
        const float g = grad[pack][i];
        weights[c + i] += g * hat[pack][i];
        shifts[c + i] += g;
        grad[pack][i] = g * weight[i];
        sum += grad[pack][i];
        dot += grad[pack][i] * hat[pack][i];
      }
    }
    warp_sums(sum, dot);
    const float mean = sum / static_cast<float>(columns), slope = dot / static_cast<float>(columns);
    const float rstd = args.rstd[r];
    const auto dropout = row_dropout(args.dropout, r, 0);
#pragma unroll
    for (int pack = 0; pack < PACKS; ++pack) {
      const int64_t c = (pack * WARP + lane) * n;
      if (c >= columns) continue;
      float x[n];
#pragma unroll
      for (int i = 0; i < n; ++i) {
        grad[pack][i] = (grad[pack][i] - mean - hat[pack][i] * slope) * rstd;
        x[i] = grad[pack][i] * keep(dropout, c + i);
        biases[c + i] += x[i];
      }
      if (args.grad_residual) store<n>(grad[pack], args.grad_residual + at + c);
      if (args.grad_x) store<n>(x, static_cast<T *>(args.grad_x) + at + c);
    }
  }
  __syncthreads();
  float *to = args.sums + blockIdx.x * 3 * columns;
  for (int64_t c = threadIdx.x; c < 3 * columns; c += THREADS) {
    float sum = 0.0f;
    for (int other = 0; other < WARPS; ++other) sum += sums[other * 3 * columns + c];
    to[c] = sum;
  }
}

// The first column of the thread in a grid of (strips, chunks of columns).
template <int n>
__device__ __forceinline__ int64_t first_column() {
  return (static_cast<int64_t>(blockIdx.y) * THREADS + threadIdx.x) * n;
}

// Calls `body` with the number of an activation as a constant.
template <typename Body>
__device__ __forceinline__ float with_kind(int64_t kind, Body body) {
  switch (kind) {
    case GELU:
      return body.template operator()<GELU>();
    case GELU_TANH:
      return body.template operator()<GELU_TANH>();
    case RELU:
      return body.template operator()<RELU>();
    case SILU:
      return body.template operator()<SILU>();
    case TANH:
      return body.template operator()<TANH>();
    case QUICK_GELU:
      return body.template operator()<QUICK_GELU>();
    case RELU6:
      return body.template operator()<RELU6>();
    default:
      return body.template operator()<MISH>();
  }
}

__device__ __forceinline__ float activation_of(int64_t kind, float x) {
  return with_kind(kind, [x]<int64_t of>() { return activation<of>(x); });
}

__device__ __forceinline__ float activation_gradient_of(int64_t kind, float x) {
  return with_kind(kind, [x]<int64_t of>() { return activation_gradient<of>(x); });
}

template <typename T, int n>
__device__ void activation_forward(const ActivationForward &args) {
  const int64_t c = first_column<n>();
  if (c >= args.columns) return;
  float bias[n];
  load_each<n>(args.bias + c, bias);
  const Strip strip(args.rows);
  for (int64_t r = strip.begin; r < strip.end; ++r) {
    const int64_t at = r * args.columns + c;
    float x[n];
    load<n>(static_cast<const T *>(args.x) + at, x);
    if (args.tasks.of_row)
      load_each<n>(args.bias + of_task(args.tasks, r, args.tasks.biases) + c, bias);
#pragma unroll
    for (int i = 0; i < n; ++i) x[i] = activation_of(args.kind, x[i] + bias[i]);
    store<n>(x, static_cast<T *>(args.y) + at);
  }
}

template <typename T, int n>
__device__ void activation_backward(const ActivationBackward &args) {
  const int64_t c = first_column<n>();
  if (c >= args.columns) return;
  float bias[n], sum[n];
  load_each<n>(args.bias + c, bias);
#pragma unroll
  for (int i = 0; i < n; ++i) sum[i] = 0.0f;
  const Strip strip(args.rows);
  for (int64_t r = strip.begin; r < strip.end; ++r) {
    const int64_t at = r * args.columns + c;
    float x[n], grad[n];
    load<n>(static_cast<const T *>(args.x) + at, x);
    load<n>(static_cast<const T *>(args.grad_y) + at, grad);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      grad[i] *= activation_gradient_of(args.kind, x[i] + bias[i]);
      sum[i] += grad[i];
    }
    store<n>(grad, static_cast<T *>(args.grad_x) + at);
  }
  store<n>(sum, args.sums + blockIdx.x * args.columns + c);
}

template <typename T, int n>
__device__ void dropout_forward(const DropoutForward &args) {
  const int64_t c = first_column<n>();
  if (c >= args.columns) return;
  const Strip strip(args.blocks * args.rows);
  for (int64_t r = strip.begin; r < strip.end; ++r) {
    const int64_t at = r * args.columns + c;
    const auto dropout = row_dropout(args.dropout, r % args.rows, r / args.rows);
    float x[n];
    load<n>(static_cast<const T *>(args.x) + at, x);
#pragma unroll
    for (int i = 0; i < n; ++i) x[i] *= keep(dropout, c + i);
    store<n>(x, static_cast<T *>(args.y) + at);
  }
}

template <typename T, int n>
__device__ void strip_sums(const StripSums &args) {
  const int64_t c = first_column<n>();
  if (c >= args.columns) return;
  float sum[n];
#pragma unroll
  for (int i = 0; i < n; ++i) sum[i] = 0.0f;
  const Strip strip(args.rows);
  for (int64_t r = strip.begin; r < strip.end; ++r) {
    float x[n];
    load<n>(static_cast<const T *>(args.x) + r * args.columns + c, x);
#pragma unroll
    for (int i = 0; i < n; ++i) sum[i] += x[i];
  }
  store<n>(sum, args.sums + blockIdx.x * args.columns + c);
}

// Each block handles 32 columns of all vectors, and each of its warps every fourth strip.
__device__ void finish(const Sums &args) {
  __shared__ float parts[WARPS][WARP];
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int64_t all = args.vectors * args.columns;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * WARP + lane;
  // The grid is as wide as the widest sums.
  if (static_cast<int64_t>(blockIdx.x) * WARP >= all) return;
  float sum = 0.0f;
  if (c < all)
    for (int64_t strip = warp; strip < args.strips; strip += WARPS)
      sum += args.sums[strip * all + c];
  parts[warp][lane] = sum;
  __syncthreads();
  float *to = c < all ? args.to[c / args.columns] : nullptr;
  if (warp == 0 && to) {
    for (int other = 1; other < WARPS; ++other) sum += parts[other][lane];
    to[c % args.columns] += sum;
  }
}

template <typename T, int n>
__device__ void task_add(const TaskAdd &args) {
  const int64_t c = first_column<n>();
  if (c >= args.columns) return;
  const int64_t size = args.columns / args.vectors;
  const Strip strip(args.rows);
  for (int64_t r = strip.begin; r < strip.end; ++r) {
    const int64_t at = r * args.columns + c, task = of_task(args.tasks, r, args.tasks.biases);
    float x[n];
    load<n>(static_cast<const T *>(args.x) + at, x);
#pragma unroll
    for (int i = 0; i < n; ++i) x[i] += args.from[(c + i) / size][task + (c + i) % size];
    store<n>(x, static_cast<T *>(args.y) + at);
  }
}

template <typename T>
__device__ void join(const JoinVectors &args) {
  const int64_t all = args.vectors * args.columns;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
  if (c < all)
    static_cast<T *>(args.y)[c] = rounded<T>(args.from[c / args.columns][c % args.columns]);
}

}  // namespace bitfit::gpu

// For each kernel, the type of its values, and whether it takes four or one at once. Four need a
// number of columns that is a multiple of four.
#define BITFIT_KERNELS_OF(T, n)                                                   \
  BITFIT_KERNEL(norm_forward_##T##_##n, bitfit::gpu::NormForward) {               \
    bitfit::gpu::norm_forward<bitfit::gpu::T, n>(args);                           \
  }                                                                               \
  BITFIT_KERNEL(norm_backward_##T##_##n, bitfit::gpu::NormBackward) {             \
    bitfit::gpu::norm_backward<bitfit::gpu::T, n>(args);                          \
  }                                                                               \
  BITFIT_KERNEL(norm_backward_warp_##T##_##n, bitfit::gpu::NormBackward) {        \
    bitfit::gpu::norm_backward_warp<bitfit::gpu::T, n>(args);                     \
  }                                                                               \
  BITFIT_KERNEL(activation_forward_##T##_##n, bitfit::gpu::ActivationForward) {   \
    bitfit::gpu::activation_forward<bitfit::gpu::T, n>(args);                     \
  }                                                                               \
  BITFIT_KERNEL(activation_backward_##T##_##n, bitfit::gpu::ActivationBackward) { \
    bitfit::gpu::activation_backward<bitfit::gpu::T, n>(args);                    \
  }                                                                               \
  BITFIT_KERNEL(dropout_##T##_##n, bitfit::gpu::DropoutForward) {                 \
    bitfit::gpu::dropout_forward<bitfit::gpu::T, n>(args);                        \
  }                                                                               \
  BITFIT_KERNEL(strip_sums_##T##_##n, bitfit::gpu::StripSums) {                   \
    bitfit::gpu::strip_sums<bitfit::gpu::T, n>(args);                             \
  }                                                                               \
  BITFIT_KERNEL(task_add_##T##_##n, bitfit::gpu::TaskAdd) {                       \
    bitfit::gpu::task_add<bitfit::gpu::T, n>(args);                               \
  }

#define BITFIT_KERNELS(T) \
  BITFIT_KERNELS_OF(T, 1) \
  BITFIT_KERNELS_OF(T, 4) \
  BITFIT_KERNEL(join_##T, bitfit::gpu::JoinVectors) { bitfit::gpu::join<bitfit::gpu::T>(args); }

BITFIT_KERNELS(fp32)
BITFIT_KERNELS(bf16)
BITFIT_KERNELS(fp16)
BITFIT_KERNEL(finish_sums, bitfit::gpu::FinishSums) { bitfit::gpu::finish(args.of[blockIdx.y]); }
