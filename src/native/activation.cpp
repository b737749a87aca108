// Bias and activation in one pass. Only the tensors that backward needs are kept.
#include "gpu/fused.h"
#include "kernels.h"

namespace bitfit {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor activation_by_operations(const at::Tensor &x, const at::Tensor &bias, int64_t kind) {
  const auto sum = (x + bias).to(x.scalar_type());
  switch (kind) {
    case GELU:
      return at::gelu(sum, "none");
    case GELU_TANH:
      return at::gelu(sum, "tanh");
    case RELU:
      return sum.relu();
    case SILU:
      return at::silu(sum);
    case TANH:
      return sum.tanh();
    case QUICK_GELU:
      return sum * (1.702 * sum).sigmoid();
    case RELU6:
      return at::hardtanh(sum, 0, 6);
    case MISH:
      return at::mish(sum);
    default:
      TORCH_CHECK(false, "no activation ", kind);
  }
}

// Writes the activation of x + bias to `y`, which may be `x` itself.
void activation_forward(const at::Tensor &x, const at::Tensor &bias, int64_t kind,
                        const at::Tensor &y) {
  BITFIT_PROFILED("bitfit::activation");
  const int64_t columns = x.size(1);
  const float *from = x.const_data_ptr<float>(), *b = bias.const_data_ptr<float>();
  float *to = y.mutable_data_ptr<float>();
  const auto row = checked_activation_row(kind).forward;
  parallel_rows(x.size(0), columns, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) row(from + r * columns, b, to + r * columns, columns);
  });
}

struct BiasActivation : torch::autograd::Function<BiasActivation> {
  static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &bias,
                            int64_t kind) {
    context->save_for_backward({x, bias});
    context->saved_data["kind"] = kind;
    auto y = at::empty_like(x);
    activation_forward(x, bias, kind, y);
    return y;
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "bias and activation: no second derivatives");
    BITFIT_PROFILED("bitfit::activation_backward");
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &bias = saved[1];
    // If nothing else refers to the incoming gradient, its memory is reused for grad_x.
    const bool reuse = is_sole_owner(grads[0]);
    const auto grad_y = grads[0].contiguous();
    auto grad_x = reuse ? grad_y : at::empty_like(x);
    const int64_t columns = x.size(1);
    auto sums = at::zeros({max_parts(), columns}, x.options());
    const float *from = x.const_data_ptr<float>(), *b = bias.const_data_ptr<float>();
    const float *dy = grad_y.const_data_ptr<float>();
    float *dx = grad_x.mutable_data_ptr<float>(), *sum = sums.mutable_data_ptr<float>();
    const auto row = checked_activation_row(context->saved_data["kind"].toInt()).backward;
    const auto parts =
        parallel_rows(x.size(0), columns, [&](int64_t part, int64_t begin, int64_t end) {
          for (int64_t r = begin; r < end; ++r) {
            const int64_t at = r * columns;
            row(from + at, b, dy + at, dx + at, sum + part * columns, columns);
          }
        });
    auto grad_bias = context->needs_input_grad(1) ? sum_parts(sums, parts) : at::Tensor();
    return {grad_x, grad_bias, at::Tensor()};
  }
};

}  // namespace
}  // namespace bitfit

using namespace bitfit;

int bitfit_bias_activation(bitfit_tensor *out, const BiasActivationArgs *args) {
  return guarded_tensor(out, [&]() -> at::Tensor {
    const auto &x = ref(args->x), &bias = ref(args->bias);
    check_vectors(x, {bias}, "bias and activation");
    if (gpu::has_kernels(x) && bias.scalar_type() == at::kFloat) {
      checked_activation_row(args->kind);
      return gpu::bias_activation(x.contiguous(), bias.contiguous(), args->kind);
    }
    if (!is_cpu_fp32(x)) return activation_by_operations(x, bias, args->kind);
    if (any_requires_grad({x, bias}))
      return BiasActivation::apply(x.contiguous(), bias.contiguous(), args->kind);
    const auto y = x.contiguous().detach();
    activation_forward(y, bias.contiguous(), args->kind, y);
    return y;
  });
}
