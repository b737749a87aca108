// AdamW: its state, and a fused step.
#include "common.h"

#include <ATen/ops/_fused_adamw.h>
#include <torch/optim/adamw.h>

using namespace bitfit;
using torch::optim::AdamWOptions;
using torch::optim::AdamWParamState;
using torch::optim::Optimizer;

int bitfit_adamw_get(void *optimizer, bitfit_tensor parameter, AdamwArgs *args) {
  return guarded([&] {
    auto &states = static_cast<Optimizer *>(optimizer)->state();
    const auto found = states.find(ref(parameter).unsafeGetTensorImpl());
    if (found == states.end()) return;
    const auto &state = static_cast<const AdamWParamState &>(*found->second);
    *args = {state.step(), new at::Tensor(state.exp_avg()), new at::Tensor(state.exp_avg_sq())};
  });
}

int bitfit_adamw_set(void *optimizer, bitfit_tensor parameter, const AdamwArgs *args) {
  return guarded([&] {
    const auto &p = ref(parameter);
    const auto &exp_avg = ref(args->exp_avg), &exp_avg_sq = ref(args->exp_avg_sq);
    for (const auto *moment : {&exp_avg, &exp_avg_sq}) {
      const bool fits = moment->sizes() == p.sizes() && moment->device() == p.device() &&
                        moment->scalar_type() == p.scalar_type();
      TORCH_CHECK(fits, "AdamW: a moment of another shape, kind or device than its parameter");
    }
    auto state = std::make_unique<AdamWParamState>();
    state->step(args->step);
    state->exp_avg(exp_avg);
    state->exp_avg_sq(exp_avg_sq);
    static_cast<Optimizer *>(optimizer)->state()[p.unsafeGetTensorImpl()] = std::move(state);
  });
}

int bitfit_adamw_step(void *optimizer, bitfit_tensor parameter, bitfit_tensor skip) {
  return guarded([&] {
    at::NoGradGuard guard;
    const auto &p = ref(parameter);
    TORCH_CHECK(p.grad().defined(), "AdamW: a parameter without a gradient");
    auto &adamw = *static_cast<Optimizer *>(optimizer);
    const auto &options = static_cast<const AdamWOptions &>(adamw.param_groups().front().options());
    auto &slot = adamw.state()[p.unsafeGetTensorImpl()];
    if (!slot) {
      auto fresh = std::make_unique<AdamWParamState>();
      fresh->step(0);
      fresh->exp_avg(at::zeros_like(p));
      fresh->exp_avg_sq(at::zeros_like(p));
      slot = std::move(fresh);
    }
    auto &state = static_cast<AdamWParamState &>(*slot);
    state.step(state.step() + 1);
    const auto step =
        at::full({}, static_cast<double>(state.step()), p.options().dtype(at::kFloat));
    const auto [beta1, beta2] = options.betas();
    at::_fused_adamw_({p}, {p.grad()}, {state.exp_avg()}, {state.exp_avg_sq()}, {}, {step},
                      options.lr(), beta1, beta2, options.weight_decay(), options.eps(),
                      /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/std::nullopt,
                      /*found_inf=*/skip ? std::optional(ref(skip)) : std::nullopt);
  });
}
