#include "common.h"

#include <ATen/ops/_fused_adamw.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/optim/adamw.h>

namespace bitfit {
thread_local std::string last_error;
}

using namespace bitfit;

extern "C" {

const char *bitfit_last_error() { return last_error.c_str(); }

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

int bitfit_adamw_step(void *optimizer, bitfit_tensor parameter) {
  return guarded([&] {
    at::NoGradGuard guard;
    const auto &p = ref(parameter);
    TORCH_CHECK(p.grad().defined(), "AdamW: a parameter without a gradient");
    auto &adamw = *static_cast<torch::optim::Optimizer *>(optimizer);
    const auto &options = static_cast<const torch::optim::AdamWOptions &>(adamw.param_groups().front().options());
    auto &kept = adamw.state()[p.unsafeGetTensorImpl()];
    if (!kept) {
      auto fresh = std::make_unique<torch::optim::AdamWParamState>();
      fresh->step(0);
      fresh->exp_avg(at::zeros_like(p));
      fresh->exp_avg_sq(at::zeros_like(p));
      kept = std::move(fresh);
    }
    auto &state = static_cast<torch::optim::AdamWParamState &>(*kept);
    state.step(state.step() + 1);
    const auto step = at::full({}, static_cast<double>(state.step()), p.options().dtype(at::kFloat));
    const auto [beta1, beta2] = options.betas();
    at::_fused_adamw_({p}, {p.grad()}, {state.exp_avg()}, {state.exp_avg_sq()}, {}, {step}, options.lr(), beta1, beta2, options.weight_decay(), options.eps(), /*amsgrad=*/false, /*maximize=*/false);
  });
}

// The copy on the host, and an event that the device records after the copy.
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

int bitfit_allow_tf32(bool allow) {
  return guarded([&] { at::globalContext().setAllowTF32CuBLAS(allow); });
}

int bitfit_release_gpu_memory() {
  return guarded([&] { c10::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache(); });
}

int bitfit_peak_gpu_bytes(int64_t *out, int64_t index) {
  return guarded([&] {
    const auto stats = c10::getDeviceAllocator(c10::DeviceType::CUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(index));
    *out = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
  });
}
}
