// Addition and dropout of a row.
#include "rows.h"

namespace bitfit {

BITFIT_CLONES
void add_row(float *x, const float *y, int64_t columns) {
  for (int64_t c = 0; c < columns; ++c) x[c] += y[c];
}

BITFIT_CLONES
void dropout_row(const float *x, float *y, int64_t columns, RowDropout dropout) {
  for (int64_t c = 0; c < columns; ++c) y[c] = x[c] * keep_scale_if<true>(dropout, c);
}

}  // namespace bitfit
