// Addition, products and dropout of rows.
#include "level.h"

namespace bitfit::BITFIT_LEVEL {

void add_row(float *x, const float *y, int64_t columns) {
#pragma omp simd
  for (int64_t c = 0; c < columns; ++c) x[c] += y[c];
}

float dot(const float *x, const float *y, int64_t columns) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < columns; ++c) sum += x[c] * y[c];
  return sum;
}

void dropout_row(const float *x, float *y, int64_t columns, RowDropout dropout) {
#pragma omp simd
  for (int64_t c = 0; c < columns; ++c) y[c] = x[c] * keep_scale_if<true>(dropout, c);
}

}  // namespace bitfit::BITFIT_LEVEL
