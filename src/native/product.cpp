// Products with weights. On our sizes, oneDNN's kernels are 10% faster than those of at::linear,
// and 25% faster with few rows.
#include "gpu/fused.h"
#include "packed.h"

#include <ATen/core/dispatch/Dispatcher.h>

namespace bitfit {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using LinearPointwise = at::Tensor(const at::Tensor &, const at::Tensor &,
                                   const std::optional<at::Tensor> &, std::string_view,
                                   c10::List<std::optional<at::Scalar>>,
                                   std::optional<std::string_view>);

// Computes x [R, I] times the transpose of weight [E, I], plus bias [E] if given.
at::Tensor onednn_linear(const at::Tensor &x, const at::Tensor &weight,
                         const std::optional<at::Tensor> &bias) {
  const std::vector<c10::IValue> inputs{x, weight};
  RECORD_FUNCTION("bitfit::product",
                  (c10::ArrayRef<const c10::IValue>(inputs.data(), inputs.size())));
  static const auto found =
      c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  if (!found || x.size(0) == 0) return at::linear(x, weight, bias);
  static const auto pointwise = found->typed<LinearPointwise>();
  fit_threads();
  try {
    return pointwise.call(x, weight, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
  } catch (const std::exception &) {
    // oneDNN had no memory for its compiled code, or does not support the kind on this processor.
    // If there is no memory for the result either, at::linear reports it.
    return at::linear(x, weight, bias);
  }
}

// Like `onednn_linear`, for a weight that may have half precision. Then x and the product are
// rounded to the weight's kind, and the bias is added in fp32.
at::Tensor linear_in_weights_kind(const at::Tensor &x, const at::Tensor &weight,
                                  const std::optional<at::Tensor> &bias) {
  const auto kind = weight.scalar_type();
  if (kind == x.scalar_type()) return onednn_linear(x, weight, bias);
  const auto y = onednn_linear(x.to(kind), weight, std::nullopt);
  return bias ? y + *bias : y.to(x.scalar_type());
}

struct Product : torch::autograd::Function<Product> {
  static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &weight,
                            const std::optional<at::Tensor> &bias, bool weight_trains) {
    // Only the weight's gradient needs x.
    context->save_for_backward({weight, weight_trains ? x : at::Tensor()});
    context->saved_data["bias"] = bias.has_value();
    return linear_in_weights_kind(x, weight, bias);
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "product: no second derivatives");
    const auto saved = context->get_saved_variables();
    const auto &weight = saved[0], &x = saved[1];
    const auto grad_y = grads[0].contiguous();
    const bool has_bias = context->saved_data["bias"].toBool();
    return {
        context->needs_input_grad(0) ? linear_in_weights_kind(grad_y, weight.t(), std::nullopt)
                                     : at::Tensor(),
        x.defined() ? grad_y.t().mm(x) : at::Tensor(),
        has_bias && context->needs_input_grad(2) ? grad_y.sum(0) : at::Tensor(),
        at::Tensor(),
    };
  }
};

// The product with a packable weight.
struct PackedProduct : torch::autograd::Function<PackedProduct> {
  static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &weight,
                            const std::optional<at::Tensor> &bias) {
    context->save_for_backward({weight});
    context->saved_data["bias"] = bias.has_value();
    return packed(weight)->product(x, weight, bias);
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "product: no second derivatives");
    const auto weight = context->get_saved_variables()[0];
    const auto grad_y = grads[0].contiguous();
    const bool bias_trains = context->saved_data["bias"].toBool() && context->needs_input_grad(2);
    return {
        context->needs_input_grad(0) ? packed(weight)->gradient(grad_y, weight) : at::Tensor(),
        at::Tensor(),
        bias_trains ? grad_y.sum(0) : at::Tensor(),
    };
  }
};

bool has_half_precision(const at::Tensor &x) {
  return x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16;
}

// The biases side by side, or none.
std::optional<at::Tensor> joined(const std::vector<at::Tensor> &biases) {
  if (biases.empty()) return std::nullopt;
  return biases.size() == 1 ? biases[0] : at::cat(biases);
}

// Whether gpu::product takes the biases.
bool are_like_vectors(const std::vector<at::Tensor> &biases) {
  return biases.size() <= gpu::VECTORS &&
         std::all_of(biases.begin(), biases.end(), [&](const at::Tensor &bias) {
           return bias.scalar_type() == at::kFloat && bias.is_contiguous() &&
                  bias.sizes() == biases[0].sizes();
         });
}

// The product on devices other than the CPU, and in kinds other than fp32. If x or the weight has
// half precision, both are rounded to it, and so is the bias, as PyTorch's autocast does: the bias
// that trains stays in fp32.
at::Tensor linear_by_operations(const at::Tensor &given, const at::Tensor &given_weight,
                                const std::vector<at::Tensor> &biases) {
  const auto kind = has_half_precision(given) ? given.scalar_type() : given_weight.scalar_type();
  const auto x = given.to(kind).contiguous(), weight = given_weight.to(kind);
  if (gpu::has_kernels(x) && are_like_vectors(biases)) return gpu::product(x, weight, biases);
  const auto bias = joined(biases);
  return at::linear(x, weight, bias ? std::optional(bias->to(kind)) : std::nullopt);
}

}  // namespace
}  // namespace bitfit

using namespace bitfit;

int bitfit_product(bitfit_tensor *out, const ProductArgs *args) {
  return guarded_tensor(out, [&]() -> at::Tensor {
    const auto &x = ref(args->x), &weight = ref(args->weight);
    TORCH_CHECK(x.dim() == 2 && weight.dim() == 2 && x.size(1) == weight.size(1),
                "product: ", x.sizes(), " does not fit a weight ", weight.sizes());
    std::vector<at::Tensor> biases;
    for (int64_t i = 0; i < args->count; ++i) biases.push_back(ref(args->biases[i]));
    if (!is_cpu_fp32(x) || gpu::has_kernels(x)) return linear_by_operations(x, weight, biases);
    const auto bias = joined(biases);
    if (args->kept && is_packable(weight)) {
      if (any_requires_grad({x, bias.value_or(at::Tensor())}))
        return PackedProduct::apply(x.contiguous(), weight, bias);
      return packed(weight)->product(x.contiguous(), weight, bias);
    }
    if (any_requires_grad({x, weight, bias.value_or(at::Tensor())}))
      return Product::apply(x.contiguous(), weight, bias, weight.requires_grad());
    return linear_in_weights_kind(x.contiguous(), weight, bias);
  });
}
