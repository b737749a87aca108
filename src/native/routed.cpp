// The kernels for batches whose sequences are of several tasks: each row takes its vectors from its
// sequence's task.
#include "kernels.h"

namespace bitfit {
namespace {

// Runs body(part, row, sequence) over the rows of the batch.
template <typename Body>
void parallel_rows_by_task(int64_t rows, int64_t columns, const RouteArgs &route, Body body) {
  parallel_rows(rows, columns, [&](int64_t part, int64_t begin, int64_t end) {
    const int64_t *starts = route.starts;
    int64_t s = std::upper_bound(starts, starts + route.count + 1, begin) - starts - 1;
    for (int64_t r = begin; r < end; ++r) {
      while (r >= starts[s + 1]) ++s;
      body(part, r, s);
    }
  });
}

void check_route(const at::Tensor &x, const RouteArgs &route, const char *what) {
  TORCH_CHECK(x.dim() == 2 && is_cpu_fp32(x), what, ": fp32 [R, C] on the CPU expected, found ",
              x.sizes());
  TORCH_CHECK(!any_requires_grad({x}), what, ": the tasks of a mixed batch do not train");
  TORCH_CHECK(route.count > 0 && route.starts[0] == 0 && route.starts[route.count] == x.size(0),
              what, ": ", x.size(0), " rows, and the last sequence ends with ",
              route.starts[route.count]);
}

at::Tensor routed_norm(const at::Tensor &x, const at::Tensor &residual,
                       const RoutedNormArgs &args) {
  const int64_t columns = x.size(1);
  const auto y = at::empty_like(x), normalized = at::empty({max_parts(), columns}, x.options());
  const auto zeros = at::zeros({columns}, x.options());
  const float *from = x.const_data_ptr<float>(), *zero = zeros.const_data_ptr<float>();
  const float *others = residual.defined() ? residual.const_data_ptr<float>() : nullptr;
  float *to = y.mutable_data_ptr<float>(), *hat = normalized.mutable_data_ptr<float>();
  const auto eps = static_cast<float>(args.eps);
  BITFIT_PROFILED("bitfit::routed_norm");
  const auto row = rows().norm;
  const auto body = [&](int64_t part, int64_t r, int64_t s) {
    const int64_t at = r * columns;
    const float *task = args.route.values[s], *weight = args.weights[s] + args.weight;
    const float *bias = args.bias < 0 ? zero : task + args.bias;
    row({from + at, bias, others ? others + at : zero, weight, task + args.shift,
         hat + part * columns, to + at, columns, eps, RowDropout{}});
  };
  parallel_rows_by_task(x.size(0), columns, args.route, body);
  return y;
}

}  // namespace
}  // namespace bitfit

using namespace bitfit;

int bitfit_routed_add(bitfit_tensor *out, const RoutedAddArgs *args) {
  return guarded_tensor(out, [&] {
    check_route(ref(args->x), args->route, "routed bias");
    const auto y = ref(args->x).contiguous().detach();
    const int64_t columns = y.size(1), size = columns / args->pieces;
    float *to = y.mutable_data_ptr<float>();
    BITFIT_PROFILED("bitfit::routed_add");
    const auto add = rows().add;
    const auto body = [&](int64_t, int64_t r, int64_t s) {
      const float *task = args->route.values[s];
      for (int64_t p = 0; p < args->pieces; ++p)
        add(to + r * columns + p * size, task + args->offsets[p], size);
    };
    parallel_rows_by_task(y.size(0), columns, args->route, body);
    return y;
  });
}

int bitfit_routed_activation(bitfit_tensor *out, const RoutedActivationArgs *args) {
  return guarded_tensor(out, [&] {
    check_route(ref(args->x), args->route, "routed bias and activation");
    const auto y = ref(args->x).contiguous().detach();
    const int64_t columns = y.size(1);
    float *to = y.mutable_data_ptr<float>();
    const auto row = checked_activation_row(args->kind).forward;
    BITFIT_PROFILED("bitfit::routed_activation");
    const auto body = [&](int64_t, int64_t r, int64_t s) {
      row(to + r * columns, args->route.values[s] + args->offset, to + r * columns, columns);
    };
    parallel_rows_by_task(y.size(0), columns, args->route, body);
    return y;
  });
}

int bitfit_routed_norm(bitfit_tensor *out, const RoutedNormArgs *args) {
  return guarded_tensor(out, [&] {
    const auto &given = ref(args->x);
    check_route(given, args->route, "routed LayerNorm");
    TORCH_CHECK(!any_requires_grad({ref_or_undefined(args->residual)}),
                "routed LayerNorm: the tasks of a mixed batch do not train");
    const auto x = given.contiguous().detach();
    const auto residual = args->residual ? ref(args->residual).contiguous().detach() : at::Tensor();
    TORCH_CHECK(!residual.defined() || (is_cpu_fp32(residual) && residual.sizes() == x.sizes()),
                "routed LayerNorm: a residual ", x.sizes(), " expected");
    return routed_norm(x, residual, *args);
  });
}
