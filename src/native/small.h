// Products of small matrices on one thread, where a BLAS would spend its time on getting ready.
#pragma once
#include <cstdint>

namespace bitfit {

// A matrix of floats, by rows.
struct Rows {
  float *data;
  int64_t stride;
  float *row(int64_t r) const { return data + r * stride; }
};

// c [m, n] = scale a b + (adds ? c : 0), with a [m, k] and b [k, n]; with `turned`, a is stored as [k, m].
void times(int64_t m, int64_t n, int64_t k, float scale, Rows a, bool turned, Rows b, bool adds, Rows c);

}  // namespace bitfit
