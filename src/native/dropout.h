// Counter-based dropout of tensors, with the masks of rows/mask.h.
#pragma once
#include "common.h"
#include "rows/mask.h"

namespace bitfit {

// Checks that there is one int64 key for each of `rows` and that `probability` is in [0, 1).
void check_dropout(const at::Tensor &keys, int64_t rows, double probability);

// The mask [blocks, rows, columns] of kept entries, by tensor operations, for any device.
at::Tensor keep_mask(const at::Tensor &keys, int64_t blocks, int64_t columns, int64_t site,
                     double probability);

// Dropout of x [.., R, C], with one key for each of the R rows; differentiable.
at::Tensor dropout(const at::Tensor &x, const at::Tensor &keys, int64_t site, double probability);

}  // namespace bitfit
