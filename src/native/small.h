// Products of small matrices on one thread. For these sizes, a BLAS would spend most of its time on
// setup.
#pragma once
#include <cstdint>

namespace bitfit {

// A row-major matrix of floats. `stride` is the distance between rows, in floats.
struct Rows {
  float *data;
  int64_t stride;
  float *row(int64_t r) const { return data + r * stride; }
};

// Computes c [m, n] = scale a b + (adds ? c : 0), with a [m, k] and b [k, n]. If `turned`, a is
// stored transposed, as [k, m].
void times(int64_t m, int64_t n, int64_t k, float scale, Rows a, bool turned, Rows b, bool adds, Rows c);

}  // namespace bitfit
