// The operations between two matrix products, each group fused into one pass: bias and activation;
// bias, dropout, residual and LayerNorm. Only the tensors that backward needs are kept.
#include "dropout.h"
#include "math.h"

#include <algorithm>
#include <cmath>

namespace bitfit {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Runs body(part, begin, end) over the rows, split into at most one part for each thread. The split
// depends only on the sizes and the number of threads, so that sums have the same order in every
// run. Returns the number of parts.
template <typename Body>
int64_t in_parts(int64_t rows, int64_t columns, Body body) {
  const int64_t worth = std::max<int64_t>(1, rows * columns / 16384);
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>({at::get_num_threads(), rows, worth}));
  at::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) body(part, rows * part / parts, rows * (part + 1) / parts);
  });
  return parts;
}

int64_t most_parts() { return std::max(1, at::get_num_threads()); }

// Adds the first `parts` rows of `sums`, which hold the sums of the parts.
at::Tensor summed(const at::Tensor &sums, int64_t parts) { return parts == 1 ? sums[0] : sums.narrow(0, 0, parts).sum(0); }

// The numbers of src/nn/activation.rs.
enum Activation : int64_t { GELU, GELU_TANH, RELU, SILU, TANH, QUICK_GELU, RELU6, MISH };

constexpr float HALF_ROOT = 0.70710678118654752f, DENSITY = 0.39894228040143268f;   // sqrt(1/2), 1/sqrt(2 pi)
constexpr float TANH_ROOT = 0.79788456080286536f, TANH_CUBE = 0.044715f;              // sqrt(2/pi)
constexpr float QUICK = 1.702f;

// Computes tanh(log(1 + e^x)) as n / (n + 2) with n = e^x (e^x + 2). For x >= 20 the result
// is 1 in fp32.
BITFIT_INLINE float mish_gate(float x) {
  const float e = exp_(x > 20.0f ? 20.0f : x), n = e * (e + 2.0f);
  return n / (n + 2.0f);
}

template <int64_t kind>
BITFIT_INLINE float activated(float x) {
  if constexpr (kind == GELU) return 0.5f * x * (1.0f + erf_(x * HALF_ROOT));
  if constexpr (kind == GELU_TANH) return 0.5f * x * (1.0f + tanh_(TANH_ROOT * (x + TANH_CUBE * x * x * x)));
  if constexpr (kind == SILU) return x * sigmoid_(x);
  if constexpr (kind == TANH) return tanh_(x);
  if constexpr (kind == QUICK_GELU) return x * sigmoid_(QUICK * x);
  if constexpr (kind == MISH) return x * mish_gate(x);
  const float most = kind == RELU6 && x > 6.0f ? 6.0f : x;
  return x > 0.0f ? most : 0.0f;
}

template <int64_t kind>
BITFIT_INLINE float slope(float x) {
  if constexpr (kind == GELU) return 0.5f * (1.0f + erf_(x * HALF_ROOT)) + x * DENSITY * exp_(-0.5f * x * x);
  if constexpr (kind == GELU_TANH) {
    const float t = tanh_(TANH_ROOT * (x + TANH_CUBE * x * x * x));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * TANH_ROOT * (1.0f + 3.0f * TANH_CUBE * x * x);
  }
  if constexpr (kind == SILU || kind == QUICK_GELU) {
    constexpr float rate = kind == SILU ? 1.0f : QUICK;
    const float s = sigmoid_(rate * x);
    return s + rate * x * s * (1.0f - s);
  }
  if constexpr (kind == TANH) {
    const float t = tanh_(x);
    return 1.0f - t * t;
  }
  if constexpr (kind == MISH) {
    const float t = mish_gate(x);
    return t + x * sigmoid_(x) * (1.0f - t * t);
  }
  if constexpr (kind == RELU6) return x > 0.0f && x < 6.0f ? 1.0f : 0.0f;
  return x > 0.0f ? 1.0f : 0.0f;
}

template <int64_t kind>
BITFIT_INLINE void activate_row(const float *x, const float *bias, float *y, int64_t columns) {
  for (int64_t c = 0; c < columns; ++c) y[c] = activated<kind>(x[c] + bias[c]);
}

template <int64_t kind>
BITFIT_INLINE void deactivate_row(const float *x, const float *bias, const float *dy, float *dx, float *sum, int64_t columns) {
  for (int64_t c = 0; c < columns; ++c) {
    dx[c] = dy[c] * slope<kind>(x[c] + bias[c]);
    sum[c] += dx[c];
  }
}

// An activation and its gradient, as functions of one row.
struct ActivationRows {
  void (*forward)(const float *x, const float *bias, float *y, int64_t columns);
  void (*backward)(const float *x, const float *bias, const float *dy, float *dx, float *sum, int64_t columns);
};

// A macro, because target_clones does not work on templates.
#define BITFIT_ROWS(kind, name) \
  BITFIT_CLONES void name##_row(const float *x, const float *b, float *y, int64_t n) { activate_row<kind>(x, b, y, n); } \
  BITFIT_CLONES void name##_back(const float *x, const float *b, const float *dy, float *dx, float *s, int64_t n) { deactivate_row<kind>(x, b, dy, dx, s, n); }
BITFIT_ROWS(GELU, gelu)
BITFIT_ROWS(GELU_TANH, gelu_tanh)
BITFIT_ROWS(RELU, relu)
BITFIT_ROWS(SILU, silu)
BITFIT_ROWS(TANH, tanh)
BITFIT_ROWS(QUICK_GELU, quick_gelu)
BITFIT_ROWS(RELU6, relu6)
BITFIT_ROWS(MISH, mish)
#undef BITFIT_ROWS

ActivationRows rows_of(int64_t kind) {
  switch (kind) {
    case GELU: return {gelu_row, gelu_back};
    case GELU_TANH: return {gelu_tanh_row, gelu_tanh_back};
    case RELU: return {relu_row, relu_back};
    case SILU: return {silu_row, silu_back};
    case TANH: return {tanh_row, tanh_back};
    case QUICK_GELU: return {quick_gelu_row, quick_gelu_back};
    case RELU6: return {relu6_row, relu6_back};
    case MISH: return {mish_row, mish_back};
  }
  TORCH_CHECK(false, "no activation ", kind);
}

at::Tensor activation_by_operations(const at::Tensor &x, const at::Tensor &bias, int64_t kind) {
  const auto sum = (x + bias).to(x.scalar_type());
  switch (kind) {
    case GELU: return at::gelu(sum, "none");
    case GELU_TANH: return at::gelu(sum, "tanh");
    case RELU: return sum.relu();
    case SILU: return at::silu(sum);
    case TANH: return sum.tanh();
    case QUICK_GELU: return sum * (1.702 * sum).sigmoid();
    case RELU6: return at::hardtanh(sum, 0, 6);
    case MISH: return at::mish(sum);
  }
  TORCH_CHECK(false, "no activation ", kind);
}

// Writes the activation of x + bias to `y`, which may be `x` itself.
void activate(const at::Tensor &x, const at::Tensor &bias, int64_t kind, const at::Tensor &y) {
  BITFIT_PART("bitfit::activation");
  const int64_t columns = x.size(1);
  const float *from = x.const_data_ptr<float>(), *b = bias.const_data_ptr<float>();
  float *to = y.mutable_data_ptr<float>();
  const auto row = rows_of(kind).forward;
  in_parts(x.size(0), columns, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) row(from + r * columns, b, to + r * columns, columns);
  });
}

struct BiasActivation : torch::autograd::Function<BiasActivation> {
  static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &bias, int64_t kind) {
    context->save_for_backward({x, bias});
    context->saved_data["kind"] = kind;
    auto y = at::empty_like(x);
    activate(x, bias, kind, y);
    return y;
  }

  static variable_list backward(AutogradContext *context, variable_list gradient) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "bias and activation: no second derivatives");
    BITFIT_PART("bitfit::activation_backward");
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &bias = saved[1];
    const auto kind = context->saved_data["kind"].toInt();
    // If nothing else refers to the incoming gradient, its memory is reused for dx.
    const bool ours = alone(gradient[0]);
    const auto dy = gradient[0].contiguous();
    auto dx = ours ? dy : at::empty_like(x);
    const int64_t columns = x.size(1);
    auto sums = at::zeros({most_parts(), columns}, x.options());
    const float *from = x.const_data_ptr<float>(), *b = bias.const_data_ptr<float>(), *above = dy.const_data_ptr<float>();
    float *to = dx.mutable_data_ptr<float>(), *sum = sums.mutable_data_ptr<float>();
    const auto row = rows_of(kind).backward;
    const auto parts = in_parts(x.size(0), columns, [&](int64_t part, int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) row(from + r * columns, b, above + r * columns, to + r * columns, sum + part * columns, columns);
    });
    return {dx, context->needs_input_grad(1) ? summed(sums, parts) : at::Tensor(), at::Tensor()};
  }
};

// Normalizes residual + dropout(x + bias) into `hat`, and writes `hat` scaled and shifted to `y`.
// Returns the reciprocal of the standard deviation.
BITFIT_CLONES
float normalize_row(const float *x, const float *bias, const float *residual, const float *weight, const float *shift, float *hat, float *y, int64_t columns, float eps, bool drops, uint64_t key, Drop drop) {
  float sum = 0.0f;
  if (drops) {
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < columns; ++c) {
      hat[c] = (x[c] + bias[c]) * kept(key, static_cast<uint32_t>(c), drop) + residual[c];
      sum += hat[c];
    }
  } else {
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < columns; ++c) {
      hat[c] = x[c] + bias[c] + residual[c];
      sum += hat[c];
    }
  }
  const float mean = sum / static_cast<float>(columns);
  float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
  for (int64_t c = 0; c < columns; ++c) squares += (hat[c] - mean) * (hat[c] - mean);
  const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(columns) + eps);
  for (int64_t c = 0; c < columns; ++c) {
    hat[c] = (hat[c] - mean) * inverse;
    y[c] = hat[c] * weight[c] + shift[c];
  }
  return inverse;
}

// The backward pass of normalize_row. Writes the residual's gradient to `dz` and, with dropout, the
// gradient of x to `dx` (without dropout, both are the same). Adds to `of_bias`, `of_shift` and,
// unless null, `of_weight`.
BITFIT_CLONES
void normalize_back(const float *dy, const float *hat, float inverse, const float *weight, float *dz, float *dx, float *of_bias, float *of_weight, float *of_shift, int64_t columns, bool drops, uint64_t key, Drop drop) {
  float sum = 0.0f, along = 0.0f;
#pragma omp simd reduction(+ : sum, along)
  for (int64_t c = 0; c < columns; ++c) {
    const float g = dy[c] * weight[c];
    sum += g;
    along += g * hat[c];
    of_shift[c] += dy[c];
  }
  if (of_weight) {
    for (int64_t c = 0; c < columns; ++c) of_weight[c] += dy[c] * hat[c];
  }
  const float mean = sum / static_cast<float>(columns), slope = along / static_cast<float>(columns);
  if (drops) {
    for (int64_t c = 0; c < columns; ++c) {
      const float z = (dy[c] * weight[c] - mean - hat[c] * slope) * inverse;
      const float x = z * kept(key, static_cast<uint32_t>(c), drop);
      dz[c] = z;
      dx[c] = x;
      of_bias[c] += x;
    }
  } else {
    for (int64_t c = 0; c < columns; ++c) {
      const float z = (dy[c] * weight[c] - mean - hat[c] * slope) * inverse;
      dz[c] = z;
      of_bias[c] += z;
    }
  }
}

// The dropout keys of rows; 0 for every row if `keys` is null.
struct Keys {
  const int64_t *keys;
  uint64_t site;
  uint64_t of(int64_t row) const { return keys ? row_key(static_cast<uint64_t>(keys[row]), site, 0) : 0; }
};

// Fills `y` [R, C], `inverse` [R] and `hat`. `hat` is [R, C] if backward needs it, else scratch
// space with one row for each part.
void normalize(const at::Tensor &x, const at::Tensor &bias, const at::Tensor &residual, const at::Tensor &weight, const at::Tensor &shift, Keys keys, Drop drop, double eps, const at::Tensor &hat, const at::Tensor &inverse, const at::Tensor &y) {
  BITFIT_PART("bitfit::residual_norm");
  const int64_t rows = x.size(0), columns = x.size(1);
  const float *from = x.const_data_ptr<float>(), *b = bias.const_data_ptr<float>(), *r = residual.const_data_ptr<float>();
  const float *w = weight.const_data_ptr<float>(), *s = shift.const_data_ptr<float>();
  float *h = hat.mutable_data_ptr<float>(), *to = y.mutable_data_ptr<float>(), *inv = inverse.mutable_data_ptr<float>();
  const bool keep = hat.size(0) == rows;
  in_parts(rows, columns, [&](int64_t part, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = i * columns;
      inv[i] = normalize_row(from + at, b, r + at, w, s, h + (keep ? i : part) * columns, to + at, columns, static_cast<float>(eps), keys.keys != nullptr, keys.of(i), drop);
    }
  });
}

struct ResidualNorm : torch::autograd::Function<ResidualNorm> {
  static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &bias, const at::Tensor &residual, const at::Tensor &weight, const at::Tensor &shift, const std::optional<at::Tensor> &some, int64_t site, double probability, double eps) {
    const auto keys = some.value_or(at::Tensor());
    auto y = at::empty_like(x), hat = at::empty_like(x), inverse = at::empty({x.size(0)}, x.options());
    const Keys k{keys.defined() ? keys.const_data_ptr<int64_t>() : nullptr, static_cast<uint64_t>(site)};
    normalize(x, bias, residual, weight, shift, k, drop_of(probability), eps, hat, inverse, y);
    context->save_for_backward({hat, inverse, weight});
    context->saved_data["keys"] = keys;
    context->saved_data["site"] = site;
    context->saved_data["probability"] = probability;
    return y;
  }

  static variable_list backward(AutogradContext *context, variable_list gradient) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "residual and LayerNorm: no second derivatives");
    BITFIT_PART("bitfit::residual_norm_backward");
    const auto saved = context->get_saved_variables();
    const auto &hat = saved[0], &inverse = saved[1], &weight = saved[2];
    const auto kept_keys = context->saved_data["keys"].toTensor();
    const bool drops = kept_keys.defined(), of_weight = context->needs_input_grad(3);
    const Keys keys{drops ? kept_keys.const_data_ptr<int64_t>() : nullptr, static_cast<uint64_t>(context->saved_data["site"].toInt())};
    const auto drop = drop_of(context->saved_data["probability"].toDouble());
    const int64_t rows = hat.size(0), columns = hat.size(1);
    const bool ours = alone(gradient[0]);
    const auto dy = gradient[0].contiguous();
    auto dz = ours ? dy : at::empty_like(hat);
    auto dx = drops ? at::empty_like(hat) : dz;
    auto sums = at::zeros({3, most_parts(), columns}, hat.options());
    auto of_bias = sums[0], weights = sums[1], shifts = sums[2];
    const float *above = dy.const_data_ptr<float>(), *h = hat.const_data_ptr<float>(), *inv = inverse.const_data_ptr<float>(), *w = weight.const_data_ptr<float>();
    float *z = dz.mutable_data_ptr<float>(), *x = dx.mutable_data_ptr<float>();
    float *b = of_bias.mutable_data_ptr<float>(), *g = weights.mutable_data_ptr<float>(), *s = shifts.mutable_data_ptr<float>();
    const auto parts = in_parts(rows, columns, [&](int64_t part, int64_t begin, int64_t end) {
      const int64_t mine = part * columns;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = i * columns;
        normalize_back(above + at, h + at, inv[i], w, z + at, x + at, b + mine, of_weight ? g + mine : nullptr, s + mine, columns, drops, keys.of(i), drop);
      }
    });
    const auto sum = [&](int64_t input, const at::Tensor &of) { return context->needs_input_grad(input) ? summed(of, parts) : at::Tensor(); };
    return {dx, sum(1, of_bias), dz, sum(3, weights), sum(4, shifts), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// Rows of a batch whose sequences are of several tasks. Each takes its vectors from the values of
// its sequence's task.
struct Route {
  const float *const *rows;
  const int64_t *starts;
  int64_t count;
};

// Runs body(part, row, values of its task) over the rows of the batch.
template <typename Body>
void by_task(int64_t rows, int64_t columns, Route route, Body body) {
  in_parts(rows, columns, [&](int64_t part, int64_t begin, int64_t end) {
    int64_t s = std::upper_bound(route.starts, route.starts + route.count + 1, begin) - route.starts - 1;
    for (int64_t r = begin; r < end; ++r) {
      while (r >= route.starts[s + 1]) ++s;
      body(part, r, route.rows[s]);
    }
  });
}

BITFIT_CLONES
void add_row(float *x, const float *y, int64_t columns) {
  for (int64_t c = 0; c < columns; ++c) x[c] += y[c];
}

void check_route(const at::Tensor &x, Route route, const char *what) {
  TORCH_CHECK(x.dim() == 2 && fast(x), what, ": fp32 [R, C] on the CPU expected, found ", x.sizes());
  TORCH_CHECK(!learns({x}), what, ": the tasks of a mixed batch do not train");
  TORCH_CHECK(route.count > 0 && route.starts[0] == 0 && route.starts[route.count] == x.size(0), what, ": ", x.size(0), " rows, and the last sequence ends with ", route.starts[route.count]);
}

void check_rows(const at::Tensor &x, std::initializer_list<at::Tensor> vectors, const char *what) {
  TORCH_CHECK(x.dim() == 2, what, ": [R, C] expected, found ", x.sizes());
  for (const auto &v : vectors) TORCH_CHECK(v.dim() == 1 && v.size(0) == x.size(1), what, ": a vector [", x.size(1), "] expected, found ", v.sizes());
}

}  // namespace
}  // namespace bitfit

using namespace bitfit;

int bitfit_bias_activation(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor bias, int64_t kind) {
  return guarded([&] {
    const auto &given = ref(x), &b = ref(bias);
    check_rows(given, {b}, "bias and activation");
    if (!fast(given)) {
      *out = new at::Tensor(activation_by_operations(given, b, kind));
    } else if (learns({given, b})) {
      *out = new at::Tensor(BiasActivation::apply(given.contiguous(), b.contiguous(), kind));
    } else {
      const auto y = given.contiguous().detach();
      activate(y, b.contiguous(), kind, y);
      *out = new at::Tensor(y);
    }
  });
}

int bitfit_residual_norm(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor bias, bitfit_tensor residual, bitfit_tensor weight, bitfit_tensor shift, bitfit_tensor keys, int64_t site, double probability, double eps) {
  return guarded([&] {
    const auto given = ref(x).contiguous(), b = ref(bias).contiguous(), r = ref(residual).contiguous(), w = ref(weight).contiguous(), s = ref(shift).contiguous();
    check_rows(given, {b, w, s}, "residual and LayerNorm");
    TORCH_CHECK(r.sizes() == given.sizes(), "residual and LayerNorm: a residual ", given.sizes(), " expected, found ", r.sizes());
    auto k = maybe(keys);
    if (k.defined()) check_dropout(k, given.size(0), probability);
    k = k.defined() && probability > 0 ? k.contiguous() : at::Tensor();
    if (!fast(given)) {
      const auto sum = k.defined() ? dropout(given + b, k, site, probability) : given + b;
      // A half-precision sum is normalized in the kind of the weight.
      *out = new at::Tensor(at::layer_norm((sum + r).to(w.scalar_type()), w.sizes(), w, s, eps, false).to(given.scalar_type()));
    } else if (learns({given, b, r, w, s})) {
      *out = new at::Tensor(ResidualNorm::apply(given, b, r, w, s, k.defined() ? std::optional(k) : std::nullopt, site, probability, eps));
    } else {
      auto y = at::empty_like(given), hat = at::empty({most_parts(), given.size(1)}, given.options()), inverse = at::empty({given.size(0)}, given.options());
      normalize(given, b, r, w, s, {k.defined() ? k.const_data_ptr<int64_t>() : nullptr, static_cast<uint64_t>(site)}, drop_of(probability), eps, hat, inverse, y);
      *out = new at::Tensor(y);
    }
  });
}

int bitfit_routed_add(bitfit_tensor *out, bitfit_tensor x, const float *const *rows, const int64_t *starts, int64_t count, const int64_t *offsets, int64_t pieces) {
  return guarded([&] {
    const Route route{rows, starts, count};
    check_route(ref(x), route, "routed bias");
    const auto y = ref(x).contiguous().detach();
    const int64_t columns = y.size(1), size = columns / pieces;
    float *to = y.mutable_data_ptr<float>();
    BITFIT_PART("bitfit::routed_add");
    by_task(y.size(0), columns, route, [&](int64_t, int64_t r, const float *task) {
      for (int64_t p = 0; p < pieces; ++p) add_row(to + r * columns + p * size, task + offsets[p], size);
    });
    *out = new at::Tensor(y);
  });
}

int bitfit_routed_activation(bitfit_tensor *out, bitfit_tensor x, const float *const *rows, const int64_t *starts, int64_t count, int64_t offset, int64_t kind) {
  return guarded([&] {
    const Route route{rows, starts, count};
    check_route(ref(x), route, "routed bias and activation");
    const auto y = ref(x).contiguous().detach();
    const int64_t columns = y.size(1);
    float *to = y.mutable_data_ptr<float>();
    const auto row = rows_of(kind).forward;
    BITFIT_PART("bitfit::routed_activation");
    by_task(y.size(0), columns, route, [&](int64_t, int64_t r, const float *task) { row(to + r * columns, task + offset, to + r * columns, columns); });
    *out = new at::Tensor(y);
  });
}

int bitfit_routed_norm(bitfit_tensor *out, bitfit_tensor x, bitfit_tensor residual, const float *const *rows, const int64_t *starts, int64_t count, const int64_t *offsets, double eps) {
  return guarded([&] {
    const Route route{rows, starts, count};
    check_route(ref(x), route, "routed LayerNorm");
    TORCH_CHECK(!learns({maybe(residual)}), "routed LayerNorm: the tasks of a mixed batch do not train");
    const auto given = ref(x).contiguous().detach(), rest = residual ? ref(residual).contiguous().detach() : at::Tensor();
    TORCH_CHECK(!rest.defined() || (fast(rest) && rest.sizes() == given.sizes()), "routed LayerNorm: a residual ", given.sizes(), " expected");
    const int64_t columns = given.size(1);
    const auto y = at::empty_like(given), hat = at::empty({most_parts(), columns}, given.options()), zeros = at::zeros({columns}, given.options());
    const float *from = given.const_data_ptr<float>(), *zero = zeros.const_data_ptr<float>(), *other = rest.defined() ? rest.const_data_ptr<float>() : nullptr;
    float *to = y.mutable_data_ptr<float>(), *h = hat.mutable_data_ptr<float>();
    BITFIT_PART("bitfit::routed_norm");
    by_task(given.size(0), columns, route, [&](int64_t part, int64_t r, const float *task) {
      const int64_t at = r * columns;
      const float *bias = offsets[0] < 0 ? zero : task + offsets[0];
      normalize_row(from + at, bias, other ? other + at : zero, task + offsets[1], task + offsets[2], h + part * columns, to + at, columns, static_cast<float>(eps), false, 0, Drop{});
    });
    *out = new at::Tensor(y);
  });
}
