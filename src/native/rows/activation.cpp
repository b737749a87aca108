// Activations of a row of a product plus its bias.
#include "math.h"
#include "rows.h"

namespace bitfit {
namespace {

constexpr float HALF_ROOT = 0.70710678118654752f,
                DENSITY = 0.39894228040143268f;                           // sqrt(1/2), 1/sqrt(2 pi)
constexpr float TANH_ROOT = 0.79788456080286536f, TANH_CUBE = 0.044715f;  // sqrt(2/pi)
constexpr float QUICK = 1.702f;

// Computes tanh(log(1 + e^x)) as n / (n + 2) with n = e^x (e^x + 2). For x >= 20 the result
// is 1 in fp32.
BITFIT_INLINE float mish_gate(float x) {
  const float e = exp_(x > 20.0f ? 20.0f : x), n = e * (e + 2.0f);
  return n / (n + 2.0f);
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

template <int64_t kind>
BITFIT_INLINE void activation_forward(const float *x, const float *bias, float *y,
                                      int64_t columns) {
  for (int64_t c = 0; c < columns; ++c) y[c] = activation<kind>(x[c] + bias[c]);
}

template <int64_t kind>
BITFIT_INLINE void activation_backward(const float *x, const float *bias, const float *grad_y,
                                       float *grad_x, float *grad_bias, int64_t columns) {
  for (int64_t c = 0; c < columns; ++c) {
    grad_x[c] = grad_y[c] * activation_gradient<kind>(x[c] + bias[c]);
    grad_bias[c] += grad_x[c];
  }
}

// A macro, because target_clones does not work on templates.
#define BITFIT_ACTIVATION(kind, name)                                                      \
  BITFIT_CLONES void name##_forward(const float *x, const float *b, float *y, int64_t n) { \
    activation_forward<kind>(x, b, y, n);                                                  \
  }                                                                                        \
  BITFIT_CLONES void name##_backward(const float *x, const float *b, const float *grad_y,  \
                                     float *grad_x, float *grad_b, int64_t n) {            \
    activation_backward<kind>(x, b, grad_y, grad_x, grad_b, n);                            \
  }
BITFIT_ACTIVATION(GELU, gelu)
BITFIT_ACTIVATION(GELU_TANH, gelu_tanh)
BITFIT_ACTIVATION(RELU, relu)
BITFIT_ACTIVATION(SILU, silu)
BITFIT_ACTIVATION(TANH, tanh)
BITFIT_ACTIVATION(QUICK_GELU, quick_gelu)
BITFIT_ACTIVATION(RELU6, relu6)
BITFIT_ACTIVATION(MISH, mish)
#undef BITFIT_ACTIVATION

}  // namespace

ActivationRow activation_row(int64_t kind) {
  switch (kind) {
    case GELU:
      return {gelu_forward, gelu_backward};
    case GELU_TANH:
      return {gelu_tanh_forward, gelu_tanh_backward};
    case RELU:
      return {relu_forward, relu_backward};
    case SILU:
      return {silu_forward, silu_backward};
    case TANH:
      return {tanh_forward, tanh_backward};
    case QUICK_GELU:
      return {quick_gelu_forward, quick_gelu_backward};
    case RELU6:
      return {relu6_forward, relu6_backward};
    case MISH:
      return {mish_forward, mish_backward};
    default:
      return {nullptr, nullptr};
  }
}

}  // namespace bitfit
