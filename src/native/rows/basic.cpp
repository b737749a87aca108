// Addition and dropout of a row.
#include "level.h"

namespace bitfit::BITFIT_LEVEL {

void add_row(float *x, const float *y, int64_t columns) {
#pragma omp simd
  for (int64_t c = 0; c < columns; ++c) x[c] += y[c];
}

void dropout_row(const float *x, float *y, int64_t columns, RowDropout dropout) {
#pragma omp simd
  for (int64_t c = 0; c < columns; ++c) y[c] = x[c] * keep_scale_if<true>(dropout, c);
}

}  // namespace bitfit::BITFIT_LEVEL
