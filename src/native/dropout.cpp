#include "dropout.h"

#include "gpu/fused.h"
#include "levels.h"

namespace bitfit {
namespace {

// A logical right shift. Right shifts of int64 tensors copy the sign bit; the mask clears it again.
at::Tensor shift_right(const at::Tensor &x, int64_t bits) {
  return x.bitwise_right_shift(bits).bitwise_and((int64_t(1) << (64 - bits)) - 1);
}

// mix64 of rows/mask.h, by tensor operations.
at::Tensor mix64(at::Tensor x) {
  x = x + int64_t(0x9E3779B97F4A7C15ull);
  x = x.bitwise_xor(shift_right(x, 30)) * int64_t(0xBF58476D1CE4E5B9ull);
  x = x.bitwise_xor(shift_right(x, 27)) * int64_t(0x94D049BB133111EBull);
  return x.bitwise_xor(shift_right(x, 31));
}

at::Tensor low_32_bits(const at::Tensor &x) { return x.bitwise_and(0xFFFFFFFFll); }

at::Tensor dropout_forward(const at::Tensor &given, const at::Tensor &keys, int64_t site,
                           double probability) {
  BITFIT_PROFILED("bitfit::dropout");
  const auto x = given.contiguous();
  const int64_t columns = x.size(-1), rows = x.size(-2);
  check_dropout(keys, rows, probability);
  if (x.numel() == 0) return x;
  if (gpu::has_kernels(x)) return gpu::dropout(x, keys, site, probability);
  const int64_t blocks = x.numel() / (rows * columns);
  if (!is_cpu_fp32(x)) {
    const auto mask = keep_mask(keys, blocks, columns, site, probability);
    const auto y = x.view({blocks, rows, columns}) * mask * (1.0 / (1.0 - probability));
    return y.to(x.scalar_type()).view(x.sizes());
  }
  auto y = at::empty_like(x);
  const float *from = x.const_data_ptr<float>();
  float *to = y.mutable_data_ptr<float>();
  const auto contiguous_keys = keys.contiguous();
  const RowKeys row_keys{contiguous_keys.const_data_ptr<int64_t>(), site,
                         dropout_params(probability)};
  const auto row = bitfit::rows().dropout;
  const int64_t grain = std::max<int64_t>(1, 16384 / columns);
  at::parallel_for(0, blocks * rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r * columns;
      row(from + at, to + at, columns, row_keys.row(r % rows, r / rows));
    }
  });
  return y;
}

// Backward computes the mask again. Only the keys are stored, and all sites share them.
struct DropoutFunction : torch::autograd::Function<DropoutFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &x,
                            const at::Tensor &keys, int64_t site, double probability) {
    context->saved_data["keys"] = keys;
    context->saved_data["site"] = site;
    context->saved_data["probability"] = probability;
    return dropout_forward(x, keys, site, probability);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list grads) {
    auto &saved = context->saved_data;
    // The gradient is a dropout too, so that second derivatives are correct.
    auto grad_x = apply(grads[0], saved["keys"].toTensor(), saved["site"].toInt(),
                        saved["probability"].toDouble());
    return {grad_x, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

void check_dropout(const at::Tensor &keys, int64_t rows, double probability) {
  const bool fits = keys.dim() == 1 && keys.size(0) == rows && keys.scalar_type() == at::kLong;
  TORCH_CHECK(fits, "dropout: one int64 key for each row, expected [", rows, "], found ",
              keys.sizes());
  TORCH_CHECK(probability >= 0 && probability < 1,
              "dropout: probability expected in [0, 1), found ", probability);
}

at::Tensor keep_mask(const at::Tensor &keys, int64_t blocks, int64_t columns, int64_t site,
                     double probability) {
  const auto ints = keys.options().dtype(at::kLong);
  const auto block = mix64(at::arange(blocks, ints) + site * 4096).unsqueeze(1);
  const auto key = mix64(keys.unsqueeze(0).bitwise_xor(block)).unsqueeze(2);  // [N, R, 1]
  // mask_bits of rows/mask.h.
  auto x = low_32_bits(low_32_bits(key) + at::arange(columns, ints) * 0x9E3779B9ll);
  x = low_32_bits(x.bitwise_xor(shift_right(x, 16)) * 0x7FEB352Dll);
  x = x.bitwise_xor(shift_right(key, 32));
  const auto bits = low_32_bits(x.bitwise_xor(shift_right(x, 15)) * 0x846CA68Bll);
  return bits.ge(int64_t(dropout_params(probability).threshold));
}

at::Tensor dropout(const at::Tensor &x, const at::Tensor &keys, int64_t site, double probability) {
  return DropoutFunction::apply(x, keys, site, probability);
}

}  // namespace bitfit

using namespace bitfit;

int bitfit_dropout(bitfit_tensor *out, const DropoutArgs *args) {
  return guarded_tensor(out, [&] {
    return dropout(ref(args->x), ref(args->mask.keys), args->mask.site, args->mask.probability);
  });
}
