// The fused operations by the kernels of kernels.cu, forward and backward, for tensors that
// `has_kernels` accepts. Vectors are fp32; matrices are fp32, bf16 or fp16.
#pragma once
#include "launch.h"

#include <optional>

namespace bitfit::gpu {

// Dropout of x [.., R, C] with a key for each of the R rows.
at::Tensor dropout(const at::Tensor &x, const at::Tensor &keys, int64_t site, double probability);

// The activation `kind` of x [R, C] + bias [C].
at::Tensor bias_activation(const at::Tensor &x, const at::Tensor &bias, int64_t kind);

// The most columns of a LayerNorm, whose sums take three floats each of a block's 48 KiB.
constexpr int64_t MOST_NORM_COLUMNS = 4096;

// A LayerNorm: y [R, C] in fp32, and in the kind of the product if that has half precision.
struct Normed {
  at::Tensor y, rounded;
};

// The LayerNorm of residual + dropout(x + bias). The residual [R, C] is fp32, whatever the kind of
// x. `keys` are undefined without dropout.
Normed residual_norm(const at::Tensor &x, const at::Tensor &bias, const at::Tensor &residual,
                     const at::Tensor &weight, const at::Tensor &shift, const at::Tensor &keys,
                     int64_t site, double probability, double eps);

// x [R, I] times the transpose of weight [E, I], both of one kind, plus the biases side by side:
// none, or at most `VECTORS` of the same size, and together [E].
at::Tensor product(const at::Tensor &x, const at::Tensor &weight,
                   const std::vector<at::Tensor> &biases);

// The vectors of many tasks: biases [K, P] and LayerNorm weights [K, W] in fp32, and the row of
// them that each row of a batch takes, int64 [R].
struct TaskTables {
  at::Tensor biases, norm_weights, of_row;
};

// x [R, C] plus the biases at `offsets`, side by side. Overwrites x.
at::Tensor task_add(const at::Tensor &x, const TaskTables &tables,
                    const std::vector<int64_t> &offsets);

// The activation `kind` of x [R, C] plus the bias at `offset`. Overwrites x.
at::Tensor task_activation(const at::Tensor &x, const TaskTables &tables, int64_t offset,
                           int64_t kind);

// The LayerNorm of x [R, C], plus a residual in fp32 unless it is undefined, plus the bias at
// `bias` unless that is negative.
Normed task_norm(const at::Tensor &x, const at::Tensor &residual, const TaskTables &tables,
                 int64_t bias, int64_t weight, int64_t shift, double eps);

}  // namespace bitfit::gpu
