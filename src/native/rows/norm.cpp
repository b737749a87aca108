// LayerNorm of a row, of a residual plus dropout of a product and its bias.
#include "level.h"

namespace bitfit::BITFIT_LEVEL {
namespace {

template <bool drops>
BITFIT_INLINE float norm(const NormForward &row) {
  const float *x = row.x, *bias = row.bias, *residual = row.residual;
  const float *weight = row.weight, *shift = row.shift;
  float *normalized = row.normalized, *y = row.y;
  const int64_t columns = row.columns;
  const RowDropout dropout = row.dropout;
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < columns; ++c) {
    normalized[c] = (x[c] + bias[c]) * keep_scale_if<drops>(dropout, c) + residual[c];
    sum += normalized[c];
  }
  const float mean = sum / static_cast<float>(columns);
  float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
  for (int64_t c = 0; c < columns; ++c) squares += (normalized[c] - mean) * (normalized[c] - mean);
  const float rstd = 1.0f / __builtin_sqrtf(squares / static_cast<float>(columns) + row.eps);
#pragma omp simd
  for (int64_t c = 0; c < columns; ++c) {
    normalized[c] = (normalized[c] - mean) * rstd;
    y[c] = normalized[c] * weight[c] + shift[c];
  }
  return rstd;
}

template <bool drops>
BITFIT_INLINE void norm_backward(const NormBackward &row) {
  const float *grad_y = row.grad_y, *normalized = row.normalized, *weight = row.weight;
  float *grad_residual = row.grad_residual, *grad_x = row.grad_x, *grad_bias = row.grad_bias;
  float *grad_weight = row.grad_weight, *grad_shift = row.grad_shift;
  const float rstd = row.rstd;
  const int64_t columns = row.columns;
  const RowDropout dropout = row.dropout;
  float sum = 0.0f, dot = 0.0f;
#pragma omp simd reduction(+ : sum, dot)
  for (int64_t c = 0; c < columns; ++c) {
    const float g = grad_y[c] * weight[c];
    sum += g;
    dot += g * normalized[c];
    grad_shift[c] += grad_y[c];
  }
  if (grad_weight) {
#pragma omp simd
    for (int64_t c = 0; c < columns; ++c) grad_weight[c] += grad_y[c] * normalized[c];
  }
  const float mean = sum / static_cast<float>(columns), slope = dot / static_cast<float>(columns);
#pragma omp simd
  for (int64_t c = 0; c < columns; ++c) {
    const float z = (grad_y[c] * weight[c] - mean - normalized[c] * slope) * rstd;
    const float x = z * keep_scale_if<drops>(dropout, c);
    grad_residual[c] = z;
    if constexpr (drops) grad_x[c] = x;
    grad_bias[c] += x;
  }
}

}  // namespace

float norm_row(const NormForward &row) {
  return row.dropout.enabled() ? norm<true>(row) : norm<false>(row);
}

void norm_row_backward(const NormBackward &row) {
  if (row.dropout.enabled()) {
    norm_backward<true>(row);
  } else {
    norm_backward<false>(row);
  }
}

}  // namespace bitfit::BITFIT_LEVEL
