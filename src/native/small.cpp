#include "small.h"

#include <cstring>

#define BITFIT_INLINE static inline __attribute__((always_inline))

namespace bitfit {
namespace {

template <int width>
struct Vector {
  typedef float type __attribute__((vector_size(4 * width)));
};

template <typename V>
BITFIT_INLINE V load(const float *from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

struct Operands {
  int64_t k;
  float scale;
  const float *a;
  int64_t a_row, a_column;
  const float *b;
  int64_t b_row;
  bool adds;
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
    for (int v = 0; v < vectors; ++v) right[v] = load<V>(b + p * o.b_row + v * width);
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
      V sum = sums[r][v] * o.scale;
      if (o.adds) sum += load<V>(to);
      std::memcpy(to, &sum, sizeof sum);
    }
  }
}

// Computes all rows of `vectors` vectors of columns. The remaining rows are computed in tiles of
// half as many rows, recursively.
template <int width, int rows, int vectors>
BITFIT_INLINE void columns(const Operands &o, int64_t m, int64_t i, int64_t j) {
  for (; i + rows <= m; i += rows) tile<width, rows, vectors>(o, i, j);
  if constexpr (rows > 1) columns<width, rows / 2, vectors>(o, m, i, j);
}

template <int width, int rows>
BITFIT_INLINE void all(const Operands &o, int64_t m, int64_t n) {
  int64_t j = 0;
  for (; j + 2 * width <= n; j += 2 * width) columns<width, rows, 2>(o, m, 0, j);
  for (; j + width <= n; j += width) columns<width, rows, 1>(o, m, 0, j);
  for (; j < n; ++j) columns<1, 4, 1>(o, m, 0, j);
}

void plain(const Operands &o, int64_t m, int64_t n) { all<4, 4>(o, m, n); }

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target("arch=x86-64-v3"))) void avx2(const Operands &o, int64_t m, int64_t n) { all<8, 4>(o, m, n); }
__attribute__((target("arch=x86-64-v4"))) void avx512(const Operands &o, int64_t m, int64_t n) { all<16, 8>(o, m, n); }

auto chosen() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("x86-64-v4") ? avx512 : __builtin_cpu_supports("x86-64-v3") ? avx2 : plain;
}
#else
auto chosen() { return plain; }
#endif

}  // namespace

void times(int64_t m, int64_t n, int64_t k, float scale, Rows a, bool turned, Rows b, bool adds, Rows c) {
  static const auto product = chosen();
  product({k, scale, a.data, turned ? 1 : a.stride, turned ? a.stride : 1, b.data, b.stride, adds, c.data, c.stride}, m, n);
}

}  // namespace bitfit
