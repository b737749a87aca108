// Frozen weights in the layout that products read.
#pragma once
#include "common.h"

#include <array>
#include <memory>
#include <mutex>

namespace bitfit {

// The panels of one weight [E, I]. They are filled when they are first used: a model that predicts
// needs only `forward`, and so do the layers below the lowest one that trains.
class PackedWeight {
 public:
  // x [R, I] times the transpose of the weight, plus bias [E] if given.
  at::Tensor product(const at::Tensor &x, const at::Tensor &weight,
                     const std::optional<at::Tensor> &bias);

  // The gradient of x: grad_y [R, E] times the weight.
  at::Tensor gradient(const at::Tensor &grad_y, const at::Tensor &weight);

 private:
  struct Panels {
    std::once_flag filled;
    at::Tensor values;
  };
  Panels forward, backward;
};

// Whether products with this weight are by panels: fp32, on the CPU, frozen, and at least
// a panel wide.
bool is_packable(const at::Tensor &weight);

// The panels of a packable weight, which is not written to while it is alive. All tensors that are
// the same part of the same storage share them, and they live as long as that storage.
std::shared_ptr<PackedWeight> packed(const at::Tensor &weight);

}  // namespace bitfit
