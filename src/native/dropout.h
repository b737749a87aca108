// Counter-based dropout. The mask is a pure function of (row key, site, block, column), so that
// forward and backward compute the same mask and none is stored.
#pragma once
#include "common.h"

namespace bitfit {

// An entry is dropped if its 32 random bits are below `threshold`; kept entries are multiplied by
// `scale`.
struct Drop {
  uint32_t threshold = 0;
  float scale = 1.0f;
};

Drop drop_of(double probability);

// The finalizer of splitmix64 (Steele et al. 2014), for the keys of rows.
inline uint64_t mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

inline uint64_t row_key(uint64_t key, uint64_t site, uint64_t block) { return mix64(key ^ mix64(site * 4096 + block)); }

// The hash lowbias32 (Wellons). It uses only 32-bit arithmetic, so that the loops vectorise.
BITFIT_INLINE uint32_t mix32(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return x ^ (x >> 16);
}

// The factor of entry `column` of a row: `drop.scale` if the entry is kept, else 0.
BITFIT_INLINE float kept(uint64_t key, uint32_t column, Drop drop) {
  const uint32_t bits = mix32(mix32(static_cast<uint32_t>(key) + column * 0x9E3779B9u) ^ static_cast<uint32_t>(key >> 32));
  return bits >= drop.threshold ? drop.scale : 0.0f;
}

// Checks that there is one int64 key for each of `rows` and that `probability` is in [0, 1).
void check_dropout(const at::Tensor &keys, int64_t rows, double probability);

// The mask [blocks, rows, columns] of kept entries, by tensor operations, for any device.
at::Tensor kept(const at::Tensor &keys, int64_t blocks, int64_t columns, int64_t site, double probability);

// Dropout of x [.., R, C], with one key for each of the R rows; differentiable.
at::Tensor dropout(const at::Tensor &x, const at::Tensor &keys, int64_t site, double probability);

}  // namespace bitfit
