// Activations of a row of a product plus its bias.
#include "activation.h"

#include "level.h"

namespace bitfit::BITFIT_LEVEL {
namespace {

template <int64_t kind>
void activation_forward(const float *x, const float *bias, float *y, int64_t columns) {
#pragma omp simd
  for (int64_t c = 0; c < columns; ++c) y[c] = activation<kind>(x[c] + bias[c]);
}

template <int64_t kind>
void activation_backward(const float *x, const float *bias, const float *grad_y, float *grad_x,
                         float *grad_bias, int64_t columns) {
#pragma omp simd
  for (int64_t c = 0; c < columns; ++c) {
    grad_x[c] = grad_y[c] * activation_gradient<kind>(x[c] + bias[c]);
    grad_bias[c] += grad_x[c];
  }
}

template <int64_t kind>
constexpr ActivationRow of{activation_forward<kind>, activation_backward<kind>};

}  // namespace

const ActivationRow ACTIVATIONS[ACTIVATION_COUNT] = {of<GELU>, of<GELU_TANH>,  of<RELU>,  of<SILU>,
                                                     of<TANH>, of<QUICK_GELU>, of<RELU6>, of<MISH>};

}  // namespace bitfit::BITFIT_LEVEL
