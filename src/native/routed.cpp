// The kernels for batches whose sequences are of several tasks: each row takes its vectors from its
// sequence's task.
#include "gpu/fused.h"
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

// Checks x and the tables, and that biases of `size` at `offsets`, and a weight at `weight` unless
// that is negative, lie in them.
gpu::TaskTables checked_tables(const at::Tensor &x, const TablesArgs &args,
                               const std::vector<int64_t> &offsets, int64_t weight, int64_t size,
                               const char *what) {
  gpu::TaskTables tables{ref(args.biases), ref(args.norm_weights), ref(args.of_row)};
  TORCH_CHECK(x.dim() == 2 && gpu::has_kernels(x) && !any_requires_grad({x}), what,
              ": [R, C] without gradients, on a device with kernels, expected, found ", x.sizes());
  for (const auto *table : {&tables.biases, &tables.norm_weights})
    TORCH_CHECK(table->dim() == 2 && table->is_contiguous() && table->device() == x.device() &&
                    table->scalar_type() == at::kFloat,
                what, ": a table of fp32 vectors on the device of x expected");
  TORCH_CHECK(tables.of_row.sizes() == x.sizes().slice(0, 1) && tables.of_row.is_contiguous() &&
                  tables.of_row.device() == x.device() && tables.of_row.scalar_type() == at::kLong,
              what, ": a task for each of ", x.size(0), " rows expected");
  for (const int64_t offset : offsets)
    TORCH_CHECK(offset >= 0 && offset + size <= tables.biases.size(1), what, ": no bias at ",
                offset, " of ", tables.biases.size(1));
  TORCH_CHECK(weight < 0 || weight + size <= tables.norm_weights.size(1), what, ": no weight at ",
              weight, " of ", tables.norm_weights.size(1));
  return tables;
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

int bitfit_routed_linear(bitfit_tensor *out, const RoutedLinearArgs *args) {
  return guarded_tensor(out, [&] {
    const auto &given = ref(args->x);
    TORCH_CHECK(given.dim() == 2 && is_cpu_fp32(given) && given.size(0) == args->count &&
                    !any_requires_grad({given}),
                "heads of tasks: fp32 [", args->count, ", I] on the CPU expected, found ",
                given.sizes());
    const auto x = given.contiguous();
    const int64_t inputs = x.size(1);
    // The first output of each row, and the number of all outputs.
    std::vector<int64_t> first{0};
    for (int64_t r = 0; r < args->count; ++r) first.push_back(first.back() + args->outputs[r]);
    const auto y = at::empty({first.back()}, x.options());
    const float *from = x.const_data_ptr<float>();
    float *to = y.mutable_data_ptr<float>();
    BITFIT_PROFILED("bitfit::routed_linear");
    const auto dot = rows().dot;
    const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(inputs, 1));
    at::parallel_for(0, first.back(), grain, [&](int64_t begin, int64_t end) {
      int64_t r = std::upper_bound(first.begin(), first.end(), begin) - first.begin() - 1;
      for (int64_t i = begin; i < end; ++i) {
        while (i >= first[r + 1]) ++r;
        const int64_t output = i - first[r];
        to[i] = dot(from + r * inputs, args->weights[r] + output * inputs, inputs) +
                args->biases[r][output];
      }
    });
    return y;
  });
}

int bitfit_has_kernels(bool *out, bitfit_tensor x) {
  return guarded([&] { *out = gpu::has_kernels(ref(x)); });
}

int bitfit_task_add(bitfit_tensor *out, const TaskAddArgs *args) {
  return guarded_tensor(out, [&] {
    const auto x = ref(args->x).contiguous().detach();
    const std::vector<int64_t> offsets(args->offsets, args->offsets + args->pieces);
    TORCH_CHECK(args->pieces > 0 && args->pieces <= gpu::VECTORS && x.dim() == 2 &&
                    x.size(1) % args->pieces == 0,
                "biases of tasks: ", args->pieces, " for ", x.sizes());
    const auto tables =
        checked_tables(x, args->tables, offsets, -1, x.size(1) / args->pieces, "biases of tasks");
    return gpu::task_add(x, tables, offsets);
  });
}

int bitfit_task_activation(bitfit_tensor *out, const TaskActivationArgs *args) {
  return guarded_tensor(out, [&] {
    const auto x = ref(args->x).contiguous().detach();
    const auto tables =
        checked_tables(x, args->tables, {args->offset}, -1, x.size(-1), "activation of tasks");
    checked_activation_row(args->kind);
    return gpu::task_activation(x, tables, args->offset, args->kind);
  });
}

int bitfit_task_norm(bitfit_tensor *out, bitfit_tensor *rounded, const TaskNormArgs *args) {
  *rounded = nullptr;
  return guarded_tensor(out, [&] {
    const auto x = ref(args->x).contiguous().detach();
    std::vector<int64_t> offsets{args->shift};
    if (args->bias >= 0) offsets.push_back(args->bias);
    const auto tables =
        checked_tables(x, args->tables, offsets, args->weight, x.size(-1), "LayerNorm of tasks");
    const auto residual = args->residual ? ref(args->residual).contiguous().detach() : at::Tensor();
    TORCH_CHECK(
        !residual.defined() || (residual.scalar_type() == at::kFloat &&
                                residual.sizes() == x.sizes() && residual.device() == x.device()),
        "LayerNorm of tasks: a residual ", x.sizes(), " in fp32 expected");
    // The forward pass keeps one float of each column, where the backward pass keeps three.
    TORCH_CHECK(x.size(1) <= 3 * gpu::MOST_NORM_COLUMNS, "LayerNorm of tasks: ", x.size(1),
                " columns, at most ", 3 * gpu::MOST_NORM_COLUMNS);
    const auto made =
        gpu::task_norm(x, residual, tables, args->bias, args->weight, args->shift, args->eps);
    if (made.rounded.defined()) *rounded = new at::Tensor(made.rounded);
    return made.y;
  });
}
