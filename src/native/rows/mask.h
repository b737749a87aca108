// Counter-based dropout masks. The mask is a pure function of (row key, site, block, column), so
// that forward and backward compute the same mask and none is stored.
#pragma once
#include "inline.h"

#include <cstdint>

namespace bitfit {

// An entry is dropped if its 32 random bits are below `threshold`; kept entries are multiplied by
// `scale`.
struct DropoutParams {
  uint32_t threshold = 0;
  float scale = 1.0f;
};

BITFIT_INLINE DropoutParams dropout_params(double probability) {
  return {static_cast<uint32_t>(probability * 4294967296.0),
          static_cast<float>(1.0 / (1.0 - probability))};
}

// The finalizer of splitmix64 (Steele et al. 2014), for the keys of rows.
BITFIT_INLINE uint64_t mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

BITFIT_INLINE uint64_t row_key(uint64_t key, uint64_t site, uint64_t block) {
  return mix64(key ^ mix64(site * 4096 + block));
}

// Dropout of one row, whose key is a `row_key`. It fits into two registers, because it is passed
// for each row.
struct RowDropout {
  uint64_t key = 0;
  DropoutParams params;

  // A threshold of 0 drops nothing, and its scale is 1.
  BITFIT_INLINE_METHOD bool enabled() const { return params.threshold != 0; }
};

// The dropout of rows: their keys, or null for no dropout.
struct RowKeys {
  const int64_t *keys;
  int64_t site;
  DropoutParams params;

  BITFIT_INLINE_METHOD RowDropout row(int64_t r, int64_t block) const {
    if (!keys) return {};
    const auto key = static_cast<uint64_t>(keys[r]);
    return {row_key(key, static_cast<uint64_t>(site), static_cast<uint64_t>(block)), params};
  }
};

// The 32 random bits of entry `column` of a row: the hash lowbias32 (Wellons) of a counter that
// begins at one half of the key, with the other half added by xor between its two products. Its
// last step changes low bits only, and is left out. There is only 32-bit arithmetic, so that the
// loops vectorise.
BITFIT_INLINE uint32_t mask_bits(uint64_t key, uint32_t column) {
  uint32_t x = static_cast<uint32_t>(key) + column * 0x9E3779B9u;
  x = (x ^ (x >> 16)) * 0x7FEB352Du ^ static_cast<uint32_t>(key >> 32);
  return (x ^ (x >> 15)) * 0x846CA68Bu;
}

// The factor of entry `column` of a row: `params.scale` if the entry is kept, else 0.
BITFIT_INLINE float keep_scale(uint64_t key, uint32_t column, DropoutParams params) {
  return mask_bits(key, column) >= params.threshold ? params.scale : 0.0f;
}

// Like `keep_scale`, and the constant 1 without dropout: the compiler then leaves the factor out,
// so that a loop need not be written twice.
template <bool drops>
BITFIT_INLINE float keep_scale_if(RowDropout dropout, int64_t column) {
  if constexpr (drops)
    return keep_scale(dropout.key, static_cast<uint32_t>(column), dropout.params);
  return 1.0f;
}

}  // namespace bitfit
