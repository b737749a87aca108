// Softmax of a row of attention scores, with dropout.
#include "level.h"
#include "math.h"

namespace bitfit::BITFIT_LEVEL {
namespace {

template <bool drops>
BITFIT_INLINE float softmax(float *scores, int64_t columns, RowDropout dropout) {
  float max = scores[0];
#pragma omp simd reduction(max : max)
  for (int64_t c = 0; c < columns; ++c) max = scores[c] > max ? scores[c] : max;
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < columns; ++c) {
    scores[c] = exp_(scores[c] - max);
    sum += scores[c];
  }
  const float inverse = 1.0f / sum;
#pragma omp simd
  for (int64_t c = 0; c < columns; ++c) scores[c] *= inverse * keep_scale_if<drops>(dropout, c);
  return max + __builtin_logf(sum);
}

template <bool drops>
BITFIT_INLINE void softmax_backward(const SoftmaxBackward &row) {
  float *scores = row.scores, *grad = row.grad, *probabilities = row.probabilities;
  const float logsumexp = row.logsumexp, scale = row.scale;
  const int64_t columns = row.columns;
  const RowDropout dropout = row.dropout;
  float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
  for (int64_t c = 0; c < columns; ++c) {
    const float probability = exp_(scores[c] - logsumexp), keep = keep_scale_if<drops>(dropout, c);
    scores[c] = probability;
    probabilities[c] = probability * keep;
    if constexpr (drops) grad[c] *= keep;
    dot += probability * grad[c];
  }
#pragma omp simd
  for (int64_t c = 0; c < columns; ++c) grad[c] = scores[c] * (grad[c] - dot) * scale;
}

}  // namespace

float softmax_row(float *scores, int64_t columns, RowDropout dropout) {
  return dropout.enabled() ? softmax<true>(scores, columns, dropout)
                           : softmax<false>(scores, columns, dropout);
}

void softmax_row_backward(const SoftmaxBackward &row) {
  if (row.dropout.enabled()) {
    softmax_backward<true>(row);
  } else {
    softmax_backward<false>(row);
  }
}

}  // namespace bitfit::BITFIT_LEVEL
