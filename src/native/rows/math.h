// Elementary functions that vectorise, accurate to about 2 units in the last place.
#pragma once
#include "inline.h"

#include <cstdint>

namespace bitfit {

#ifdef __CUDA_ARCH__
// On a GPU, one instruction each, accurate to a few units in the last place.
BITFIT_INLINE float exp_(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504088896341f));
  return y;
}
BITFIT_INLINE float quotient(float a, float b) { return __fdividef(a, b); }
#else
// Computes e^x (Cephes' expf) for x <= 88. For x < -86 it returns exp(-86), about 4.5e-38.
BITFIT_INLINE float exp_(float x) {
  x = x < -86.0f ? -86.0f : x;
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
  const float shifted = x * 1.44269504088896341f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return __builtin_bit_cast(
      float, __builtin_bit_cast(uint32_t, p) + (__builtin_bit_cast(uint32_t, shifted) << 23));
}
BITFIT_INLINE float quotient(float a, float b) { return a / b; }
#endif

// The error function: a rational approximation, as in Eigen and XLA.
BITFIT_INLINE float erf_(float x) {
  x = x < -4.0f ? -4.0f : x;
  x = x > 4.0f ? 4.0f : x;
  const float s = x * x;
  float p = -2.72614225801306e-10f;
  p = p * s + 2.77068142495902e-08f;
  p = p * s + -2.10102402082508e-06f;
  p = p * s + -5.69250639462346e-05f;
  p = p * s + -7.34990630326855e-04f;
  p = p * s + -2.95459980854025e-03f;
  p = p * s + -1.60960333262415e-02f;
  float q = -1.45660718464996e-05f;
  q = q * s + -2.13374055278905e-04f;
  q = q * s + -1.68282697438203e-03f;
  q = q * s + -7.37332916720468e-03f;
  q = q * s + -1.42647390514189e-02f;
  return quotient(x * p, q);
}

BITFIT_INLINE float tanh_(float x) {
  x = x > 15.0f ? 15.0f : x;
  return 1.0f - quotient(2.0f, exp_(2.0f * x) + 1.0f);
}

BITFIT_INLINE float sigmoid_(float x) {
  return quotient(1.0f, 1.0f + exp_(x < -88.0f ? 88.0f : -x));
}

}  // namespace bitfit
