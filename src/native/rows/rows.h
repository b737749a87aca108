// Loops over one row each, and products on one thread: plain pointers to floats, no libtorch.
// `columns` is the length of the row, and pointers to vectors have as many entries.
#pragma once
#include "activation.h"
#include "mask.h"

#include <cstdint>

namespace bitfit {

// The backward pass of a row of softmax.
struct SoftmaxBackward {
  float *scores;         // overwritten
  float *grad;           // of the probabilities after dropout; becomes that of the scores
  float *probabilities;  // receives the probabilities after dropout
  float logsumexp;
  float scale;  // the gradient of the scores is multiplied by it
  int64_t columns;
  RowDropout dropout;
};

// y = LayerNorm(residual + dropout(x + bias)), scaled by `weight` and shifted by `shift`.
struct NormForward {
  const float *x, *bias, *residual, *weight, *shift;
  float *normalized;  // receives y before it is scaled and shifted
  float *y;
  int64_t columns;
  float eps;
  RowDropout dropout;
};

// The backward pass of NormForward. The gradients of the vectors are added to; `grad_weight` may be
// null. Without dropout, x has the gradient of the residual, and `grad_x` is not written.
struct NormBackward {
  const float *grad_y, *normalized, *weight;
  float rstd;  // what the forward pass returned
  float *grad_residual, *grad_x, *grad_bias, *grad_weight, *grad_shift;
  int64_t columns;
  RowDropout dropout;
};

// An activation of a row and its backward pass.
struct ActivationRow {
  // y = activation(x + bias); y may be x.
  void (*forward)(const float *x, const float *bias, float *y, int64_t columns);
  // The gradient of x, which may overwrite grad_y, is also added to grad_bias.
  void (*backward)(const float *x, const float *bias, const float *grad_y, float *grad_x,
                   float *grad_bias, int64_t columns);
};

// c [m, n] = alpha a [m, k] b [k, n], plus `bias` [n] if given, plus c if it accumulates. Every
// entry is summed in the order of k, so that its bits do not depend on the parts that c is computed
// in.
struct Product {
  int64_t m, n, k;
  float alpha;
  const float *a;
  int64_t a_row, a_column;  // the distances between rows and between columns, in floats
  const float *b;
  int64_t b_row;      // the distance between rows; 0 if b is in panels
  const float *bias;  // or null
  bool accumulate;
  float *c;
  int64_t c_row;
};

// A panel: `columns` columns of a matrix with k rows, at most `panel_columns`, stored row by row
// and padded with zeros. A product reads the panels of a matrix, one after the other, in the order
// in which they lie.
struct Panel {
  int64_t k, columns;
  const float *from;
  int64_t from_row, from_column;  // one of both is 1
  float *to;
};

// The transpose of a matrix [rows, columns], as [columns, rows].
struct Transposition {
  int64_t rows, columns;
  const float *from;
  int64_t from_row;
  float *to;
  int64_t to_row;
};

// The functions of one level of processor.
struct RowFunctions {
  const char *level;

  // x += y
  void (*add)(float *x, const float *y, int64_t columns);

  // The sum of x * y.
  float (*dot)(const float *x, const float *y, int64_t columns);

  // y = dropout(x), with dropout enabled.
  void (*dropout)(const float *x, float *y, int64_t columns, RowDropout dropout);

  // Turns a row of scores into probabilities and applies dropout. Returns the logsumexp of the
  // scores.
  float (*softmax)(float *scores, int64_t columns, RowDropout dropout);
  void (*softmax_backward)(const SoftmaxBackward &row);

  // Returns the reciprocal of the standard deviation.
  float (*norm)(const NormForward &row);
  void (*norm_backward)(const NormBackward &row);

  // The activations, by their numbers.
  const ActivationRow *activations;

  void (*multiply)(const Product &product);
  void (*pack_panel)(const Panel &panel);
  void (*transpose)(const Transposition &t);
  // The columns of a panel, and the rows of c that are computed at once.
  int64_t panel_columns, tile_rows;
};

}  // namespace bitfit
