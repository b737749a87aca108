// Products of small matrices on one thread. For these sizes, a BLAS would spend most of its time on
// setup.
#pragma once
#include <cstdint>

namespace bitfit {

// A row-major matrix of floats. `stride` is the distance between rows, in floats.
struct MatrixView {
  float *data;
  int64_t stride;
  float *row(int64_t r) const { return data + r * stride; }
  // The view from a row and a column on.
  MatrixView from(int64_t r, int64_t column) const { return {row(r) + column, stride}; }
};

struct GemmSize {
  int64_t m, n, k;
};

// c [m, n] = alpha a b, with a [m, k] and b [k, n].
void gemm(GemmSize size, float alpha, MatrixView a, MatrixView b, MatrixView c);

// c [m, n] = (accumulate ? c : 0) + the transpose of a [k, m] times b [k, n].
void gemm_transposed(GemmSize size, MatrixView a, MatrixView b, bool accumulate, MatrixView c);

// The row length of scores, rounded up to a multiple of 32, so that products work on whole vectors.
inline int64_t padded(int64_t length) { return (length + 31) / 32 * 32; }

// Transposes x [length, size] into [size, padded(length)], padded with zeros, in `space`.
MatrixView transposed(MatrixView x, int64_t length, int64_t size, float *space);

}  // namespace bitfit
