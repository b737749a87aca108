// Launches the kernels of kernels.cu: on a CUDA device by the driver, and in tests on the CPU.
#pragma once
#include "../common.h"
#include "args.h"

namespace bitfit::gpu {

// The name of a kind that the kernels take, as in their names; null for other kinds.
const char *kind_name(at::ScalarType kind);

// Whether the kernels take tensors of this one's device and kind. Where they do not, the caller
// uses tensor operations.
bool has_kernels(const at::Tensor &x);

// The major and minor compute capability of a CUDA tensor's device as one number, such as 80.
int64_t capability(const at::Tensor &x);

// The number of blocks in both directions.
struct Grid {
  int64_t x, y = 1;
};

// Launches `name` on the current stream of the device of `on`. `shared` is the number of floats of
// shared memory whose size is chosen at the launch.
void launch(const at::Tensor &on, const std::string &name, Grid grid, int64_t shared,
            const void *args);

// The name of the kernel for matrices of a kind with `columns` columns, for the given matrices.
// Undefined tensors are left out.
std::string kernel_name(const char *what, int64_t columns,
                        std::initializer_list<at::Tensor> matrices);

}  // namespace bitfit::gpu
