// The level of processor that the kernels use.
#pragma once
#include "rows/rows.h"

namespace bitfit {

// The functions of the level in use: that of BITFIT_CPU_LEVEL, or else the highest level of this
// processor.
const RowFunctions &rows();

}  // namespace bitfit
