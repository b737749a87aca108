// The activations and their derivatives, of one number.
#pragma once
#include "math.h"

namespace bitfit {

// The numbers of src/nn/activation.rs.
enum Activation : int64_t { GELU, GELU_TANH, RELU, SILU, TANH, QUICK_GELU, RELU6, MISH };
constexpr int64_t ACTIVATION_COUNT = MISH + 1;

constexpr float HALF_ROOT = 0.70710678118654752f,
                DENSITY = 0.39894228040143268f;                           // sqrt(1/2), 1/sqrt(2 pi)
constexpr float TANH_ROOT = 0.79788456080286536f, TANH_CUBE = 0.044715f;  // sqrt(2/pi)
constexpr float QUICK = 1.702f;

// Computes tanh(log(1 + e^x)) as n / (n + 2) with n = e^x (e^x + 2). For x >= 20 the result
// is 1 in fp32.
BITFIT_INLINE float mish_gate(float x) {
  const float e = exp_(x > 20.0f ? 20.0f : x), n = e * (e + 2.0f);
  return quotient(n, n + 2.0f);
}

template <int64_t kind>
BITFIT_INLINE float activation(float x) {
  if constexpr (kind == GELU) return 0.5f * x * (1.0f + erf_(x * HALF_ROOT));
  if constexpr (kind == GELU_TANH)
    return 0.5f * x * (1.0f + tanh_(TANH_ROOT * (x + TANH_CUBE * x * x * x)));
  if constexpr (kind == SILU) return x * sigmoid_(x);
  if constexpr (kind == TANH) return tanh_(x);
  if constexpr (kind == QUICK_GELU) return x * sigmoid_(QUICK * x);
  if constexpr (kind == MISH) return x * mish_gate(x);
  const float most = kind == RELU6 && x > 6.0f ? 6.0f : x;
  return x > 0.0f ? most : 0.0f;
}

template <int64_t kind>
BITFIT_INLINE float activation_gradient(float x) {
  if constexpr (kind == GELU)
    return 0.5f * (1.0f + erf_(x * HALF_ROOT)) + x * DENSITY * exp_(-0.5f * x * x);
  if constexpr (kind == GELU_TANH) {
    const float t = tanh_(TANH_ROOT * (x + TANH_CUBE * x * x * x));
    return 0.5f * (1.0f + t) +
           0.5f * x * (1.0f - t * t) * TANH_ROOT * (1.0f + 3.0f * TANH_CUBE * x * x);
  }
  if constexpr (kind == SILU || kind == QUICK_GELU) {
    constexpr float rate = kind == SILU ? 1.0f : QUICK;
    const float s = sigmoid_(rate * x);
    return s + rate * x * s * (1.0f - s);
  }
  if constexpr (kind == TANH) {
    const float t = tanh_(x);
    return 1.0f - t * t;
  }
  if constexpr (kind == MISH) {
    const float t = mish_gate(x);
    return t + x * sigmoid_(x) * (1.0f - t * t);
  }
  if constexpr (kind == RELU6) return x > 0.0f && x < 6.0f ? 1.0f : 0.0f;
  return x > 0.0f ? 1.0f : 0.0f;
}

}  // namespace bitfit
