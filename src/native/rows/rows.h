// Loops over one row each: plain pointers to floats, no libtorch. `columns` is the length of the
// row, and pointers to vectors have as many entries.
#pragma once
#include "mask.h"

#include <cstdint>

namespace bitfit {

// x += y
void add_row(float *x, const float *y, int64_t columns);

// y = dropout(x), with dropout enabled.
void dropout_row(const float *x, float *y, int64_t columns, RowDropout dropout);

// Turns a row of scores into probabilities and applies dropout. Returns the logsumexp of the
// scores.
float softmax_row(float *scores, int64_t columns, RowDropout dropout);

// The backward pass of softmax_row.
struct SoftmaxBackward {
  float *scores;         // overwritten
  float *grad;           // of the probabilities after dropout; becomes that of the scores
  float *probabilities;  // receives the probabilities after dropout
  float logsumexp;
  float scale;  // the gradient of the scores is multiplied by it
  int64_t columns;
  RowDropout dropout;
};
void softmax_row_backward(const SoftmaxBackward &row);

// y = LayerNorm(residual + dropout(x + bias)), scaled by `weight` and shifted by `shift`.
struct NormForward {
  const float *x, *bias, *residual, *weight, *shift;
  float *normalized;  // receives y before it is scaled and shifted
  float *y;
  int64_t columns;
  float eps;
  RowDropout dropout;
};
// Returns the reciprocal of the standard deviation.
float norm_row(const NormForward &row);

// The backward pass of norm_row. The gradients of the vectors are added to; `grad_weight` may be
// null. Without dropout, x has the gradient of the residual, and `grad_x` is not written.
struct NormBackward {
  const float *grad_y, *normalized, *weight;
  float rstd;  // what norm_row returned
  float *grad_residual, *grad_x, *grad_bias, *grad_weight, *grad_shift;
  int64_t columns;
  RowDropout dropout;
};
void norm_row_backward(const NormBackward &row);

// The numbers of src/nn/activation.rs.
enum Activation : int64_t { GELU, GELU_TANH, RELU, SILU, TANH, QUICK_GELU, RELU6, MISH };

// An activation of a row and its backward pass.
struct ActivationRow {
  // y = activation(x + bias); y may be x.
  void (*forward)(const float *x, const float *bias, float *y, int64_t columns);
  // The gradient of x, which may overwrite grad_y, is also added to grad_bias.
  void (*backward)(const float *x, const float *bias, const float *grad_y, float *grad_x,
                   float *grad_bias, int64_t columns);
};

// The functions of an activation; null pointers if there is no such activation.
ActivationRow activation_row(int64_t kind);

}  // namespace bitfit
