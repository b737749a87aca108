// Bias, dropout, residual and LayerNorm in one pass. Only the tensors that backward needs are kept.
#include "dropout.h"
#include "gpu/fused.h"
#include "kernels.h"

namespace bitfit {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct NormInputs {
  at::Tensor x, bias, residual, weight, shift;
  at::Tensor keys;  // int64 [R]; undefined without dropout
  int64_t site;
  double probability, eps;

  RowKeys row_keys() const {
    return {keys.defined() ? keys.const_data_ptr<int64_t>() : nullptr, site,
            dropout_params(probability)};
  }
};

// Fills `y` [R, C], `rstd` [R] and `normalized`. `normalized` is [R, C] if backward needs it, else
// scratch space with one row for each part.
void norm_forward(const NormInputs &in, const at::Tensor &normalized, const at::Tensor &rstd,
                  const at::Tensor &y) {
  BITFIT_PROFILED("bitfit::residual_norm");
  const int64_t rows = in.x.size(0), columns = in.x.size(1);
  const float *x = in.x.const_data_ptr<float>(), *bias = in.bias.const_data_ptr<float>();
  const float *residual = in.residual.const_data_ptr<float>();
  const float *weight = in.weight.const_data_ptr<float>(),
              *shift = in.shift.const_data_ptr<float>();
  float *hat = normalized.mutable_data_ptr<float>(), *to = y.mutable_data_ptr<float>();
  float *reciprocals = rstd.mutable_data_ptr<float>();
  const bool keep = normalized.size(0) == rows;
  const auto eps = static_cast<float>(in.eps);
  const auto keys = in.row_keys();
  const auto row = bitfit::rows().norm;
  parallel_rows(rows, columns, [&](int64_t part, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r * columns;
      reciprocals[r] =
          row({x + at, bias, residual + at, weight, shift, hat + (keep ? r : part) * columns,
               to + at, columns, eps, keys.row(r, 0)});
    }
  });
}

struct ResidualNorm : torch::autograd::Function<ResidualNorm> {
  static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &bias,
                            const at::Tensor &residual, const at::Tensor &weight,
                            const at::Tensor &shift, const std::optional<at::Tensor> &keys,
                            int64_t site, double probability, double eps) {
    const NormInputs in{x,    bias,        residual, weight, shift, keys.value_or(at::Tensor()),
                        site, probability, eps};
    auto y = at::empty_like(x), normalized = at::empty_like(x);
    auto rstd = at::empty({x.size(0)}, x.options());
    norm_forward(in, normalized, rstd, y);
    context->save_for_backward({normalized, rstd, weight});
    context->saved_data["keys"] = in.keys;
    context->saved_data["site"] = site;
    context->saved_data["probability"] = probability;
    return y;
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "residual and LayerNorm: no second derivatives");
    BITFIT_PROFILED("bitfit::residual_norm_backward");
    const auto saved = context->get_saved_variables();
    const auto &normalized = saved[0], &rstd = saved[1], &weight = saved[2];
    const auto keys = context->saved_data["keys"].toTensor();
    const bool drops = keys.defined(), weight_trains = context->needs_input_grad(3);
    const RowKeys row_keys{drops ? keys.const_data_ptr<int64_t>() : nullptr,
                           context->saved_data["site"].toInt(),
                           dropout_params(context->saved_data["probability"].toDouble())};
    const int64_t rows = normalized.size(0), columns = normalized.size(1);
    const bool reuse = is_sole_owner(grads[0]);
    const auto grad_y = grads[0].contiguous();
    auto grad_residual = reuse ? grad_y : at::empty_like(normalized);
    auto grad_x = drops ? at::empty_like(normalized) : grad_residual;
    auto sums = at::zeros({3, max_parts(), columns}, normalized.options());
    const float *dy = grad_y.const_data_ptr<float>(), *hat = normalized.const_data_ptr<float>();
    const float *reciprocals = rstd.const_data_ptr<float>(), *w = weight.const_data_ptr<float>();
    float *dz = grad_residual.mutable_data_ptr<float>(), *dx = grad_x.mutable_data_ptr<float>();
    float *biases = sums[0].mutable_data_ptr<float>(), *weights = sums[1].mutable_data_ptr<float>();
    float *shifts = sums[2].mutable_data_ptr<float>();
    const auto row = bitfit::rows().norm_backward;
    const auto parts = parallel_rows(rows, columns, [&](int64_t part, int64_t begin, int64_t end) {
      const int64_t mine = part * columns;
      float *grad_weight = weight_trains ? weights + mine : nullptr;
      for (int64_t r = begin; r < end; ++r) {
        const int64_t at = r * columns;
        row({dy + at, hat + at, w, reciprocals[r], dz + at, dx + at, biases + mine, grad_weight,
             shifts + mine, columns, row_keys.row(r, 0)});
      }
    });
    const auto sum = [&](size_t input, int64_t of) {
      return context->needs_input_grad(input) ? sum_parts(sums[of], parts) : at::Tensor();
    };
    const at::Tensor none;
    return {grad_x, sum(1, 0), grad_residual, sum(3, 1), sum(4, 2), none, none, none, none};
  }
};

at::Tensor norm_by_operations(const NormInputs &in) {
  auto sum = in.x + in.bias;
  if (in.keys.defined()) sum = dropout(sum, in.keys, in.site, in.probability);
  const auto z = (sum + in.residual).to(in.weight.scalar_type());
  const auto y = at::layer_norm(z, in.weight.sizes(), in.weight, in.shift, in.eps, false);
  return y.to(in.residual.scalar_type());
}

bool has_gpu_kernel(const NormInputs &in) {
  const auto is_fp32 = [](const at::Tensor &t) { return t.scalar_type() == at::kFloat; };
  return gpu::has_kernels(in.x) && in.x.size(1) <= gpu::MOST_NORM_COLUMNS && is_fp32(in.residual) &&
         is_fp32(in.bias) && is_fp32(in.weight) && is_fp32(in.shift);
}

NormInputs checked(const ResidualNormArgs &args) {
  const auto contiguous = [](bitfit_tensor t) { return ref(t).contiguous(); };
  NormInputs in{contiguous(args.x),      contiguous(args.bias),  contiguous(args.residual),
                contiguous(args.weight), contiguous(args.shift), ref_or_undefined(args.mask.keys),
                args.mask.site,          args.mask.probability,  args.eps};
  check_vectors(in.x, {in.bias, in.weight, in.shift}, "residual and LayerNorm");
  TORCH_CHECK(in.residual.sizes() == in.x.sizes(), "residual and LayerNorm: a residual ",
              in.x.sizes(), " expected, found ", in.residual.sizes());
  if (in.keys.defined()) {
    check_dropout(in.keys, in.x.size(0), in.probability);
    in.keys = in.probability > 0 ? in.keys.contiguous() : at::Tensor();
  }
  return in;
}

}  // namespace
}  // namespace bitfit

using namespace bitfit;

int bitfit_residual_norm(bitfit_tensor *out, bitfit_tensor *rounded, const ResidualNormArgs *args) {
  *rounded = nullptr;
  return guarded_tensor(out, [&]() -> at::Tensor {
    const auto in = checked(*args);
    if (has_gpu_kernel(in)) {
      const auto made = gpu::residual_norm(in.x, in.bias, in.residual, in.weight, in.shift, in.keys,
                                           in.site, in.probability, in.eps);
      if (made.rounded.defined()) *rounded = new at::Tensor(made.rounded);
      return made.y;
    }
    if (!is_cpu_fp32(in.x)) return norm_by_operations(in);
    if (any_requires_grad({in.x, in.bias, in.residual, in.weight, in.shift})) {
      const auto keys = in.keys.defined() ? std::optional(in.keys) : std::nullopt;
      return ResidualNorm::apply(in.x, in.bias, in.residual, in.weight, in.shift, keys, in.site,
                                 in.probability, in.eps);
    }
    auto y = at::empty_like(in.x), rstd = at::empty({in.x.size(0)}, in.x.options());
    auto normalized = at::empty({max_parts(), in.x.size(1)}, in.x.options());
    norm_forward(in, normalized, rstd, y);
    return y;
  });
}
