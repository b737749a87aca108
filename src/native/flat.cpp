// Views into the flat vector.
#include "common.h"

using namespace bitfit;

int bitfit_bind(bitfit_tensor piece, bitfit_tensor flat, bitfit_tensor gradient, int64_t offset) {
  return guarded([&] {
    at::NoGradGuard guard;
    auto &t = ref(piece);
    const auto sizes = t.sizes().vec();
    auto values = ref(flat).detach().narrow(0, offset, t.numel()).view(sizes);
    values.copy_(t);
    t.set_data(values);
    t.mutable_grad() = ref(gradient).narrow(0, offset, t.numel()).view(sizes);
  });
}

int bitfit_set_gradient(bitfit_tensor flat, bitfit_tensor gradient) {
  return guarded([&] { ref(flat).mutable_grad() = ref(gradient); });
}
