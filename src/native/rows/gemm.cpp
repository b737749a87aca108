// Products on one thread, in tiles of c that stay in registers.
#include "level.h"

namespace bitfit::BITFIT_LEVEL {
namespace {

// A block of a, which stays in the second level of the cache: about 96 rows, and as many columns as
// leave room for a panel of b.
constexpr int64_t BLOCK_ROWS = (96 + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
constexpr int64_t BLOCK_COLUMNS = WIDTH >= 16 ? 1536 : 768;
// The number of rows by which b is fetched ahead.
constexpr int64_t AHEAD = 16;

typedef float Vector __attribute__((vector_size(4 * WIDTH)));
typedef float Unaligned __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

// One tile: all of k at once, in a block.
struct Tile {
  int64_t k;
  float alpha;
  const float *a;
  int64_t a_row, a_column;
  const float *b;
  int64_t b_row;
  const float *bias;
  bool accumulate;
  float *c;
  int64_t c_row;
};

// Computes a tile of `rows` rows and `vectors` vectors.
template <int rows, int vectors>
BITFIT_INLINE void tile(const Tile &t) {
  Vector sums[rows][vectors] = {};
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < vectors; ++v) __builtin_prefetch(t.c + r * t.c_row + v * WIDTH, 1);
  const float *a = t.a, *b = t.b;
  for (int64_t p = 0; p < t.k; ++p, a += t.a_column, b += t.b_row) {
    Vector right[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      __builtin_prefetch(b + AHEAD * t.b_row + v * WIDTH);
      right[v] = *reinterpret_cast<const Unaligned *>(b + v * WIDTH);
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      const float left = a[r * t.a_row];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[r][v] += right[v] * left;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      float *to = t.c + r * t.c_row + v * WIDTH;
      Vector sum = sums[r][v] * t.alpha;
      if (t.bias) sum += *reinterpret_cast<const Unaligned *>(t.bias + v * WIDTH);
      if (t.accumulate) sum += *reinterpret_cast<const Unaligned *>(to);
      *reinterpret_cast<Unaligned *>(to) = sum;
    }
  }
}

// Computes the last rows, fewer than a tile has.
template <int rows, int vectors>
BITFIT_INLINE void last_rows(const Tile &t, int64_t left) {
  if constexpr (rows > 0) {
    if (left == rows)
      tile<rows, vectors>(t);
    else
      last_rows<rows - 1, vectors>(t, left);
  }
}

// Computes m rows of `vectors` vectors of columns.
template <int vectors>
__attribute__((noinline)) void strip(Tile t, int64_t m) {
  for (; m >= TILE_ROWS; m -= TILE_ROWS) {
    tile<TILE_ROWS, vectors>(t);
    t.a += TILE_ROWS * t.a_row;
    t.c += TILE_ROWS * t.c_row;
  }
  last_rows<TILE_ROWS - 1, vectors>(t, m);
}

// Computes m rows, at most a block's, of fewer columns than a vector has. Pieces of b are copied,
// padded with zeros.
__attribute__((noinline)) void narrow_strip(const Tile &t, int64_t m, int64_t columns) {
  constexpr int64_t PIECE = 256;
  float padded[PIECE * WIDTH], sums[BLOCK_ROWS * WIDTH];
  for (int64_t p = 0; p < t.k; p += PIECE) {
    const int64_t k = t.k - p < PIECE ? t.k - p : PIECE;
    for (int64_t r = 0; r < k; ++r)
      for (int64_t c = 0; c < WIDTH; ++c)
        padded[r * WIDTH + c] = c < columns ? t.b[(p + r) * t.b_row + c] : 0.0f;
    strip<1>({k, t.alpha, t.a + p * t.a_column, t.a_row, t.a_column, padded, WIDTH, nullptr, p > 0,
              sums, WIDTH},
             m);
  }
  for (int64_t r = 0; r < m; ++r)
    for (int64_t c = 0; c < columns; ++c) {
      float *to = t.c + r * t.c_row + c;
      float sum = sums[r * WIDTH + c];
      if (t.bias) sum += t.bias[c];
      *to = t.accumulate ? sum + *to : sum;
    }
}

// Computes m rows of at most a panel's columns.
BITFIT_INLINE void panel(Tile t, int64_t m, int64_t columns) {
  if (columns == PANEL_COLUMNS) return strip<VECTORS>(t, m);
  for (; columns >= WIDTH; columns -= WIDTH) {
    strip<1>(t, m);
    t.b += WIDTH;
    t.c += WIDTH;
    if (t.bias) t.bias += WIDTH;
  }
  if (columns > 0) narrow_strip(t, m, columns);
}

BITFIT_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

typedef float Four __attribute__((vector_size(16)));
typedef float UnalignedFour __attribute__((vector_size(16), aligned(4), may_alias));

// Transposes 4 rows of 4 columns.
BITFIT_INLINE void transpose_4(const float *from, int64_t from_row, float *to, int64_t to_row) {
  Four rows[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r)
    rows[r] = *reinterpret_cast<const UnalignedFour *>(from + r * from_row);
  const Four a = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
  const Four b = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
  const Four c = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
  const Four d = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
  const Four columns[4] = {
      __builtin_shufflevector(a, c, 0, 1, 4, 5), __builtin_shufflevector(a, c, 2, 3, 6, 7),
      __builtin_shufflevector(b, d, 0, 1, 4, 5), __builtin_shufflevector(b, d, 2, 3, 6, 7)};
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) *reinterpret_cast<UnalignedFour *>(to + r * to_row) = columns[r];
}

}  // namespace

void multiply(const Product &x) {
  if (x.k == 0) {
    for (int64_t r = 0; r < x.m; ++r)
      for (int64_t c = 0; c < x.n && !x.accumulate; ++c)
        x.c[r * x.c_row + c] = x.bias ? x.bias[c] : 0.0f;
    return;
  }
  // Parts of k of about one size.
  const int64_t parts = (x.k + BLOCK_COLUMNS - 1) / BLOCK_COLUMNS;
  for (int64_t i = 0; i < x.m; i += BLOCK_ROWS) {
    const int64_t m = smaller(BLOCK_ROWS, x.m - i);
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t begin = x.k * part / parts, end = x.k * (part + 1) / parts;
      const float *a = x.a + i * x.a_row + begin * x.a_column;
      for (int64_t j = 0; j < x.n; j += PANEL_COLUMNS) {
        const float *b =
            x.b_row ? x.b + begin * x.b_row + j : x.b + j * x.k + begin * PANEL_COLUMNS;
        panel({end - begin, x.alpha, a, x.a_row, x.a_column, b, x.b_row ? x.b_row : PANEL_COLUMNS,
               x.bias && part == 0 ? x.bias + j : nullptr, x.accumulate || part > 0,
               x.c + i * x.c_row + j, x.c_row},
              m, smaller(PANEL_COLUMNS, x.n - j));
      }
    }
  }
}

void transpose(const Transposition &t) {
  int64_t c = 0;
  for (; c + 4 <= t.columns; c += 4) {
    int64_t r = 0;
    for (; r + 4 <= t.rows; r += 4)
      transpose_4(t.from + r * t.from_row + c, t.from_row, t.to + c * t.to_row + r, t.to_row);
    for (; r < t.rows; ++r)
      for (int64_t i = c; i < c + 4; ++i) t.to[i * t.to_row + r] = t.from[r * t.from_row + i];
  }
  for (; c < t.columns; ++c)
    for (int64_t r = 0; r < t.rows; ++r) t.to[c * t.to_row + r] = t.from[r * t.from_row + c];
}

void pack_panel(const Panel &p) {
  if (p.from_column == 1) {
    for (int64_t r = 0; r < p.k; ++r)
      for (int64_t c = 0; c < p.columns; ++c)
        p.to[r * PANEL_COLUMNS + c] = p.from[r * p.from_row + c];
  } else {
    transpose({p.columns, p.k, p.from, p.from_column, p.to, PANEL_COLUMNS});
  }
  for (int64_t r = 0; r < p.k && p.columns < PANEL_COLUMNS; ++r)
    for (int64_t c = p.columns; c < PANEL_COLUMNS; ++c) p.to[r * PANEL_COLUMNS + c] = 0.0f;
}

}  // namespace bitfit::BITFIT_LEVEL
