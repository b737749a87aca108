#include "dropout.h"

namespace bitfit {
namespace {

BITFIT_CLONES
void drop_row(const float *x, float *y, int64_t columns, uint64_t key, Drop drop) {
  for (int64_t c = 0; c < columns; ++c) y[c] = x[c] * kept(key, static_cast<uint32_t>(c), drop);
}

// A logical right shift. Right shifts of int64 tensors copy the sign bit; the mask clears it again.
at::Tensor shift(const at::Tensor &x, int64_t bits) { return x.bitwise_right_shift(bits).bitwise_and((int64_t(1) << (64 - bits)) - 1); }

at::Tensor mix64(at::Tensor x) {
  x = x + int64_t(0x9E3779B97F4A7C15ull);
  x = x.bitwise_xor(shift(x, 30)) * int64_t(0xBF58476D1CE4E5B9ull);
  x = x.bitwise_xor(shift(x, 27)) * int64_t(0x94D049BB133111EBull);
  return x.bitwise_xor(shift(x, 31));
}

at::Tensor mix32(at::Tensor x) {
  const int64_t word = 0xFFFFFFFF;
  x = (x.bitwise_xor(x.bitwise_right_shift(16)) * 0x7FEB352Dll).bitwise_and(word);
  x = (x.bitwise_xor(x.bitwise_right_shift(15)) * 0x846CA68Bll).bitwise_and(word);
  return x.bitwise_xor(x.bitwise_right_shift(16));
}

at::Tensor dropped(const at::Tensor &given, const at::Tensor &keys, int64_t site, double probability) {
  BITFIT_PART("bitfit::dropout");
  const auto x = given.contiguous();
  const int64_t columns = x.size(-1), rows = x.size(-2);
  check_dropout(keys, rows, probability);
  if (x.numel() == 0) return x;
  const int64_t blocks = x.numel() / (rows * columns);
  const auto drop = drop_of(probability);
  if (!fast(x)) {
    return (x.view({blocks, rows, columns}) * kept(keys, blocks, columns, site, probability) * (1.0 / (1.0 - probability))).to(x.scalar_type()).view(x.sizes());
  }
  auto y = at::empty_like(x);
  const float *from = x.const_data_ptr<float>();
  float *to = y.mutable_data_ptr<float>();
  const auto keys_host = keys.contiguous();
  const int64_t *key = keys_host.const_data_ptr<int64_t>();
  at::parallel_for(0, blocks * rows, std::max<int64_t>(1, 16384 / columns), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      drop_row(from + r * columns, to + r * columns, columns, row_key(static_cast<uint64_t>(key[r % rows]), static_cast<uint64_t>(site), static_cast<uint64_t>(r / rows)), drop);
  });
  return y;
}

// Backward computes the mask again. Only the keys are stored, and all sites share them.
struct Dropout : torch::autograd::Function<Dropout> {
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &x, const at::Tensor &keys, int64_t site, double probability) {
    context->saved_data["keys"] = keys;
    context->saved_data["site"] = site;
    context->saved_data["probability"] = probability;
    return dropped(x, keys, site, probability);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context, torch::autograd::variable_list gradient) {
    // The gradient is a dropout too, so that second derivatives are correct.
    auto x = apply(gradient[0], context->saved_data["keys"].toTensor(), context->saved_data["site"].toInt(), context->saved_data["probability"].toDouble());
    return {x, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

Drop drop_of(double probability) {
  return {static_cast<uint32_t>(probability * 4294967296.0), static_cast<float>(1.0 / (1.0 - probability))};
}

void check_dropout(const at::Tensor &keys, int64_t rows, double probability) {
  TORCH_CHECK(keys.dim() == 1 && keys.size(0) == rows && keys.scalar_type() == at::kLong, "dropout: one int64 key a row, expected [", rows, "], found ", keys.sizes());
  TORCH_CHECK(probability >= 0 && probability < 1, "dropout: probability expected in [0, 1), found ", probability);
}

at::Tensor kept(const at::Tensor &keys, int64_t blocks, int64_t columns, int64_t site, double probability) {
  const int64_t word = 0xFFFFFFFF;
  const auto ints = keys.options().dtype(at::kLong);
  auto block = mix64(at::arange(blocks, ints) + site * 4096).unsqueeze(1);
  auto key = mix64(keys.unsqueeze(0).bitwise_xor(block)).unsqueeze(2);  // [N, R, 1]
  auto column = (at::arange(columns, ints) * 0x9E3779B9ll).bitwise_and(word);
  auto bits = mix32((key.bitwise_and(word) + column).bitwise_and(word));
  return mix32(bits.bitwise_xor(shift(key, 32))).ge(int64_t(drop_of(probability).threshold));
}

at::Tensor dropout(const at::Tensor &x, const at::Tensor &keys, int64_t site, double probability) { return Dropout::apply(x, keys, site, probability); }

}  // namespace bitfit

int bitfit_dropout(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor keys, int64_t site, double probability) {
  return bitfit::guarded([&] { *out = new at::Tensor(bitfit::dropout(bitfit::ref(x), bitfit::ref(keys), site, probability)); });
}
