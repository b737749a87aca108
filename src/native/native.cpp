#include "native.h"

#include <ATen/Parallel.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/torch.h>

#include <string>

namespace {

thread_local std::string last_error;

at::Tensor &ref(bitfit_tensor t) { return *static_cast<at::Tensor *>(t); }

template <typename Body>
int guarded(Body body) {
  try {
    body();
    return 0;
  } catch (const c10::Error &e) {
    last_error = e.what_without_backtrace();
  } catch (const std::exception &e) {
    last_error = e.what();
  } catch (...) {
    last_error = "unknown C++ exception";
  }
  return 1;
}

// splitmix64's finalizer (Steele et al. 2014): a row's key.
inline uint64_t mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

inline uint64_t row_key(uint64_t key, uint64_t site, uint64_t block) { return mix64(key ^ mix64(site * 4096 + block)); }

// lowbias32 (Wellons): 32-bit arithmetic alone, so that the loop vectorises.
inline uint32_t mix32(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  return x ^ (x >> 16);
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target_clones("avx2", "default")))
#endif
void drop_row(const float *x, float *y, int64_t columns, uint64_t key, uint32_t threshold, float scale) {
  const uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
  for (int64_t c = 0; c < columns; ++c) {
    const uint32_t bits = mix32(mix32(low + static_cast<uint32_t>(c) * 0x9E3779B9u) ^ high);
    y[c] = bits >= threshold ? x[c] * scale : 0.0f;
  }
}

// The same mask by tensor operations, for any device and kind: 64-bit integers wrap as C's do.
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

at::Tensor kept(const at::Tensor &keys, int64_t blocks, int64_t columns, int64_t site, uint32_t threshold) {
  const int64_t word = 0xFFFFFFFF;
  const auto ints = keys.options().dtype(at::kLong);
  auto block = mix64(at::arange(blocks, ints) + site * 4096).unsqueeze(1);
  auto key = mix64(keys.unsqueeze(0).bitwise_xor(block)).unsqueeze(2);  // [N, R, 1]
  auto column = (at::arange(columns, ints) * 0x9E3779B9ll).bitwise_and(word);
  auto bits = mix32((key.bitwise_and(word) + column).bitwise_and(word));
  return mix32(bits.bitwise_xor(shift(key, 32))).ge(int64_t(threshold));
}

at::Tensor dropped(const at::Tensor &given, const at::Tensor &keys, int64_t site, double probability) {
  const auto x = given.contiguous();
  const int64_t columns = x.size(-1), rows = x.size(-2);
  TORCH_CHECK(keys.dim() == 1 && keys.size(0) == rows && keys.scalar_type() == at::kLong, "dropout: one int64 key a row, expected [", rows, "], found ", keys.sizes());
  TORCH_CHECK(probability >= 0 && probability < 1, "dropout: probability expected in [0, 1), found ", probability);
  if (x.numel() == 0) return x;
  const int64_t blocks = x.numel() / (rows * columns);
  const uint32_t threshold = static_cast<uint32_t>(probability * 4294967296.0);
  const double scale = 1.0 / (1.0 - probability);
  if (!x.is_cpu() || x.scalar_type() != at::kFloat) {
    return (x.view({blocks, rows, columns}) * kept(keys, blocks, columns, site, threshold) * scale).to(x.scalar_type()).view(x.sizes());
  }
  auto y = at::empty_like(x);
  const float *from = x.const_data_ptr<float>();
  float *to = y.mutable_data_ptr<float>();
  const auto keys_host = keys.contiguous();
  const int64_t *key = keys_host.const_data_ptr<int64_t>();
  at::parallel_for(0, blocks * rows, std::max<int64_t>(1, 16384 / columns), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      drop_row(from + r * columns, to + r * columns, columns, row_key(static_cast<uint64_t>(key[r % rows]), static_cast<uint64_t>(site), static_cast<uint64_t>(r / rows)), threshold, static_cast<float>(scale));
  });
  return y;
}

// The mask is made again in backward: nothing is stored but the keys, which all sites share.
struct Dropout : torch::autograd::Function<Dropout> {
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &x, const at::Tensor &keys, int64_t site, double probability) {
    context->saved_data["keys"] = keys;
    context->saved_data["site"] = site;
    context->saved_data["probability"] = probability;
    return dropped(x, keys, site, probability);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context, torch::autograd::variable_list gradient) {
    // Itself a dropout, so that second derivatives are right too.
    auto x = apply(gradient[0], context->saved_data["keys"].toTensor(), context->saved_data["site"].toInt(), context->saved_data["probability"].toDouble());
    return {x, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

extern "C" {

const char *bitfit_last_error() { return last_error.c_str(); }

int bitfit_bind(bitfit_tensor piece, bitfit_tensor flat, bitfit_tensor gradient, int64_t offset) {
  return guarded([&] {
    torch::NoGradGuard guard;
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

int bitfit_adamw_get(void *optimizer, bitfit_tensor parameter, int64_t *step, bitfit_tensor *mean, bitfit_tensor *square) {
  return guarded([&] {
    auto &states = static_cast<torch::optim::Optimizer *>(optimizer)->state();
    const auto found = states.find(ref(parameter).unsafeGetTensorImpl());
    if (found == states.end()) return;
    const auto &state = static_cast<const torch::optim::AdamWParamState &>(*found->second);
    *step = state.step();
    *mean = new at::Tensor(state.exp_avg());
    *square = new at::Tensor(state.exp_avg_sq());
  });
}

int bitfit_adamw_set(void *optimizer, bitfit_tensor parameter, int64_t step, bitfit_tensor mean, bitfit_tensor square) {
  return guarded([&] {
    const auto &p = ref(parameter);
    for (const auto *moment : {&ref(mean), &ref(square)})
      TORCH_CHECK(moment->sizes() == p.sizes() && moment->scalar_type() == p.scalar_type() && moment->device() == p.device(), "AdamW: a moment of another shape, kind or device than its parameter");
    auto state = std::make_unique<torch::optim::AdamWParamState>();
    state->step(step);
    state->exp_avg(ref(mean));
    state->exp_avg_sq(ref(square));
    static_cast<torch::optim::Optimizer *>(optimizer)->state()[p.unsafeGetTensorImpl()] = std::move(state);
  });
}

// On its way to the host while the device goes on: the copy and an event behind it.
struct bitfit_flag {
  at::Tensor host;
  c10::Event event;
};

int bitfit_flag_send(bitfit_flag **out, bitfit_tensor flag) {
  return guarded([&] {
    const auto &given = ref(flag);
    const auto type = given.device().type();
    const bool remote = !given.is_cpu();
    auto sent = std::make_unique<bitfit_flag>(bitfit_flag{at::empty({}, given.options().device(at::kCPU).pinned_memory(remote)), c10::Event(type)});
    sent->host.copy_(given, remote);
    if (remote) sent->event.record(c10::impl::VirtualGuardImpl(type).getStream(given.device()));
    *out = sent.release();
  });
}

int bitfit_flag_receive(bitfit_flag *flag, bool *out) {
  return guarded([&] {
    if (flag->event.was_marked_for_recording()) flag->event.synchronize();
    *out = flag->host.item<bool>();
  });
}

void bitfit_flag_free(bitfit_flag *flag) { delete flag; }

int bitfit_release_gpu_memory() {
  return guarded([&] { c10::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache(); });
}

int bitfit_peak_gpu_bytes(int64_t *out, int64_t index) {
  return guarded([&] {
    const auto stats = c10::getDeviceAllocator(c10::DeviceType::CUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(index));
    *out = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
  });
}

int bitfit_dropout(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor keys, int64_t site, double probability) {
  return guarded([&] { *out = new at::Tensor(Dropout::apply(ref(x), ref(keys), site, probability)); });
}
}
