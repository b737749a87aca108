#include "gemm.h"

#include "simd.h"

#include <algorithm>
#include <cstring>

namespace bitfit {
namespace {

template <int width>
struct Vector {
  typedef float type __attribute__((vector_size(4 * width)));
};

template <typename V>
BITFIT_INLINE void load(V &v, const float *from) {
  std::memcpy(&v, from, sizeof v);
}

struct Operands {
  int64_t k;
  float alpha;
  const float *a;
  int64_t a_row, a_column;
  const float *b;
  int64_t b_row;
  bool accumulate;
  float *c;
  int64_t c_row;
};

// Computes a tile of the result, `rows` rows by `vectors` vectors, in registers.
template <int width, int rows, int vectors>
BITFIT_INLINE void tile(const Operands &o, int64_t i, int64_t j) {
  typedef typename Vector<width>::type V;
  V sums[rows][vectors] = {};
  const float *a = o.a + i * o.a_row, *b = o.b + j;
  for (int64_t p = 0; p < o.k; ++p) {
    V right[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) load(right[v], b + p * o.b_row + v * width);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      const float left = a[r * o.a_row + p * o.a_column];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[r][v] += right[v] * left;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      float *to = o.c + (i + r) * o.c_row + j + v * width;
      V sum = sums[r][v] * o.alpha;
      if (o.accumulate) {
        V before;
        load(before, to);
        sum += before;
      }
      std::memcpy(to, &sum, sizeof sum);
    }
  }
}

// Computes all rows of `vectors` vectors of columns. The remaining rows are computed in tiles of
// half as many rows, recursively.
template <int width, int rows, int vectors>
BITFIT_INLINE void panel(const Operands &o, int64_t m, int64_t i, int64_t j) {
  for (; i + rows <= m; i += rows) tile<width, rows, vectors>(o, i, j);
  if constexpr (rows > 1) panel<width, rows / 2, vectors>(o, m, i, j);
}

template <int width, int rows>
BITFIT_INLINE void product_by(const Operands &o, int64_t m, int64_t n) {
  int64_t j = 0;
  for (; j + 2 * width <= n; j += 2 * width) panel<width, rows, 2>(o, m, 0, j);
  for (; j + width <= n; j += width) panel<width, rows, 1>(o, m, 0, j);
  for (; j < n; ++j) panel<1, 4, 1>(o, m, 0, j);
}

void baseline(const Operands &o, int64_t m, int64_t n) { product_by<4, 4>(o, m, n); }

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target("arch=x86-64-v3"))) void avx2(const Operands &o, int64_t m, int64_t n) {
  product_by<8, 4>(o, m, n);
}
__attribute__((target("arch=x86-64-v4"))) void avx512(const Operands &o, int64_t m, int64_t n) {
  product_by<16, 8>(o, m, n);
}

auto best_for_this_processor() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("x86-64-v4")   ? avx512
         : __builtin_cpu_supports("x86-64-v3") ? avx2
                                               : baseline;
}
#else
auto best_for_this_processor() { return baseline; }
#endif

void multiply(const Operands &o, GemmSize size) {
  static const auto product = best_for_this_processor();
  product(o, size.m, size.n);
}

}  // namespace

void gemm(GemmSize size, float alpha, MatrixView a, MatrixView b, MatrixView c) {
  multiply({size.k, alpha, a.data, a.stride, 1, b.data, b.stride, false, c.data, c.stride}, size);
}

void gemm_transposed(GemmSize size, MatrixView a, MatrixView b, bool accumulate, MatrixView c) {
  multiply({size.k, 1.0f, a.data, 1, a.stride, b.data, b.stride, accumulate, c.data, c.stride},
           size);
}

MatrixView transposed(MatrixView x, int64_t length, int64_t size, float *space) {
  const MatrixView y{space, padded(length)};
  for (int64_t c = 0; c < size; ++c) {
    float *row = y.row(c);
    for (int64_t j = 0; j < length; ++j) row[j] = x.row(j)[c];
    std::fill(row + length, row + y.stride, 0.0f);
  }
  return y;
}

}  // namespace bitfit
