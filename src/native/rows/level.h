// What the files of this folder share. build.rs compiles them once for each level of processor,
// with BITFIT_LEVEL as the level's name and namespace. Nothing here may have external linkage
// outside that namespace: the linker would keep the copy of one level for all.
#pragma once
#include "rows.h"

#ifndef BITFIT_LEVEL
#define BITFIT_LEVEL plain
#endif

namespace bitfit::BITFIT_LEVEL {

// A vector has `WIDTH` floats. A tile of a product has `TILE_ROWS` rows and `VECTORS` vectors of
// columns: as many sums as the registers hold beside the vectors of b and one entry of a.
#if defined(__AVX512F__)
constexpr int WIDTH = 16, TILE_ROWS = 14, VECTORS = 2;
#elif defined(__AVX2__)
constexpr int WIDTH = 8, TILE_ROWS = 6, VECTORS = 2;
#elif defined(__aarch64__)
constexpr int WIDTH = 4, TILE_ROWS = 8, VECTORS = 3;
#else
constexpr int WIDTH = 4, TILE_ROWS = 4, VECTORS = 2;
#endif
constexpr int PANEL_COLUMNS = WIDTH * VECTORS;

extern const RowFunctions ROWS;

void add_row(float *x, const float *y, int64_t columns);
float dot(const float *x, const float *y, int64_t columns);
void dropout_row(const float *x, float *y, int64_t columns, RowDropout dropout);
float softmax_row(float *scores, int64_t columns, RowDropout dropout);
void softmax_row_backward(const SoftmaxBackward &row);
float norm_row(const NormForward &row);
void norm_row_backward(const NormBackward &row);
void multiply(const Product &product);
void pack_panel(const Panel &panel);
void transpose(const Transposition &t);

extern const ActivationRow ACTIVATIONS[ACTIVATION_COUNT];

}  // namespace bitfit::BITFIT_LEVEL
