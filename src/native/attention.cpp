// Attention inside each sequence of a packed batch. The CPU code handles one head of one sequence
// at a time, in blocks of rows that fit in the cache. Backward does not store probabilities and
// dropout masks: it computes them again from queries, keys and the logsumexp of each row.
#include "dropout.h"
#include "math.h"
#include "small.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <string>
#include <vector>

namespace bitfit {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The number of rows in a block. With 512 tokens, a block of scores takes 128 KiB.
constexpr int64_t BLOCK = 64;

// The index at which each sequence begins, in query rows and in tokens. The last element of each is
// the end of the last sequence.
struct Starts {
  std::vector<int64_t> rows, tokens;
  int64_t sequences() const { return static_cast<int64_t>(tokens.size()) - 1; }
};

struct Settings {
  Starts starts;
  int64_t heads, site;
  double probability;
  at::Tensor keys;   // int64 [R]; undefined without dropout
  int64_t seed;      // for kernels that make their own random numbers
};

// Queries, keys and values, or their gradients: views of [T, 3 H], or of [R, H] and [T, 2 H].
struct Projected {
  Rows q, k, v;
  Projected(const at::Tensor &queries, const at::Tensor &rest, int64_t hidden) {
    float *data = static_cast<float *>(rest.data_ptr());
    const int64_t stride = rest.size(1);
    q = queries.defined() ? Rows{static_cast<float *>(queries.data_ptr()), hidden} : Rows{data, stride};
    k = {data + (queries.defined() ? 0 : hidden), stride};
    v = {k.data + hidden, stride};
  }
};

// The row length of scores, rounded up to a multiple of 32, so that products work on whole vectors.
int64_t padded(int64_t length) { return (length + 31) / 32 * 32; }

// Transposes x [length, size] into [size, padded(length)], padded with zeros.
Rows turned(Rows x, int64_t length, int64_t size, float *space) {
  const Rows y{space, padded(length)};
  for (int64_t c = 0; c < size; ++c) {
    float *row = y.row(c);
    for (int64_t j = 0; j < length; ++j) row[j] = x.row(j)[c];
    std::fill(row + length, row + y.stride, 0.0f);
  }
  return y;
}

// The name in the profile, followed by the sizes of the products: "HEADSxSIZE", then
// "ROWSxTOKENS*SEQUENCES" for each shape.
std::string part(const char *name, const Settings &s, int64_t size) {
  std::map<std::pair<int64_t, int64_t>, int64_t> counts;
  for (int64_t b = 0; b < s.starts.sequences(); ++b) counts[{s.starts.rows[b + 1] - s.starts.rows[b], s.starts.tokens[b + 1] - s.starts.tokens[b]}] += 1;
  auto text = name + (" " + std::to_string(s.heads)) + "x" + std::to_string(size);
  for (const auto &[sizes, count] : counts) text += " " + std::to_string(sizes.first) + "x" + std::to_string(sizes.second) + "*" + std::to_string(count);
  return text;
}

// Turns a row of scores into probabilities and applies dropout. Returns the logsumexp of the
// scores.
BITFIT_CLONES
float softmax_row(float *s, int64_t columns, bool drops, uint64_t key, Drop drop) {
  float most = s[0];
#pragma omp simd reduction(max : most)
  for (int64_t c = 0; c < columns; ++c) most = s[c] > most ? s[c] : most;
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < columns; ++c) {
    s[c] = exp_(s[c] - most);
    sum += s[c];
  }
  const float inverse = 1.0f / sum;
  if (drops) {
    for (int64_t c = 0; c < columns; ++c) s[c] *= inverse * kept(key, static_cast<uint32_t>(c), drop);
  } else {
    for (int64_t c = 0; c < columns; ++c) s[c] *= inverse;
  }
  return most + std::log(sum);
}

// The backward pass of softmax_row. `s` holds scores, and `d` the gradient of the probabilities
// after dropout. On return, `p` holds the probabilities after dropout, and `d` the gradient of the
// scores times `scale`.
BITFIT_CLONES
void softmax_back(float *s, float *d, float *p, float logarithm, float scale, int64_t columns, bool drops, uint64_t key, Drop drop) {
  float along = 0.0f;
  if (drops) {
#pragma omp simd reduction(+ : along)
    for (int64_t c = 0; c < columns; ++c) {
      const float probability = exp_(s[c] - logarithm), left = kept(key, static_cast<uint32_t>(c), drop);
      s[c] = probability;
      p[c] = probability * left;
      d[c] *= left;
      along += probability * d[c];
    }
  } else {
#pragma omp simd reduction(+ : along)
    for (int64_t c = 0; c < columns; ++c) {
      const float probability = exp_(s[c] - logarithm);
      s[c] = probability;
      p[c] = probability;
      along += probability * d[c];
    }
  }
  for (int64_t c = 0; c < columns; ++c) d[c] = s[c] * (d[c] - along) * scale;
}

float *scratch(std::vector<float> &buffer, int64_t size) {
  if (static_cast<int64_t>(buffer.size()) < size) buffer.resize(static_cast<size_t>(size));
  return buffer.data();
}

uint64_t key_of(const int64_t *keys, int64_t row, int64_t site, int64_t head) {
  return keys ? row_key(static_cast<uint64_t>(keys[row]), static_cast<uint64_t>(site), static_cast<uint64_t>(head)) : 0;
}

// Runs body(sequence, head) for each pair, in parallel. Each call runs on one thread.
template <typename Body>
void each_head(const Settings &s, Body body) {
  at::parallel_for(0, s.starts.sequences() * s.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i / s.heads, i % s.heads);
  });
}

// Fills `out` [R, H] and, if it is defined, `logarithms` [R, N] with the logsumexp of each row and
// head.
void forward(const at::Tensor &queries, const at::Tensor &rest, const Settings &s, const at::Tensor &out, const at::Tensor &logarithms) {
  const int64_t hidden = out.size(1), size = hidden / s.heads;
  BITFIT_PART(part("bitfit::attention", s, size));
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  const Projected x(queries, rest, hidden);
  float *y = out.mutable_data_ptr<float>(), *logs = logarithms.defined() ? logarithms.mutable_data_ptr<float>() : nullptr;
  const int64_t *keys = s.keys.defined() ? s.keys.const_data_ptr<int64_t>() : nullptr;
  const auto drop = drop_of(s.probability);
  each_head(s, [&](int64_t b, int64_t head) {
    thread_local std::vector<float> buffer;
    const int64_t token = s.starts.tokens[b], length = s.starts.tokens[b + 1] - token, at = head * size;
    const Rows k{x.k.row(token) + at, x.k.stride}, v{x.v.row(token) + at, x.v.stride};
    const int64_t width = padded(length);
    float *space = scratch(buffer, (BLOCK + size) * width);
    const Rows scores{space, width}, turned_k = turned(k, length, size, space + BLOCK * width);
    for (int64_t row = s.starts.rows[b]; row < s.starts.rows[b + 1]; row += BLOCK) {
      const int64_t count = std::min(BLOCK, s.starts.rows[b + 1] - row);
      times(count, width, size, scale, {x.q.row(row) + at, x.q.stride}, false, turned_k, false, scores);
      for (int64_t i = 0; i < count; ++i) {
        const float logarithm = softmax_row(scores.row(i), length, keys != nullptr, key_of(keys, row + i, s.site, head), drop);
        if (logs) logs[(row + i) * s.heads + head] = logarithm;
      }
      times(count, size, length, 1.0f, scores, false, v, false, {y + row * hidden + at, hidden});
    }
  });
}

// Fills the gradients of the projections from `gradient`, that of the output.
void backward(const at::Tensor &queries, const at::Tensor &rest, const Settings &s, const at::Tensor &logarithms, const at::Tensor &gradient, const at::Tensor &of_queries, const at::Tensor &of_rest) {
  const int64_t hidden = gradient.size(1), size = hidden / s.heads;
  BITFIT_PART(part("bitfit::attention_backward", s, size));
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  const Projected x(queries, rest, hidden), dx(of_queries, of_rest, hidden);
  float *dy = static_cast<float *>(gradient.data_ptr());
  const float *logs = logarithms.const_data_ptr<float>();
  const int64_t *keys = s.keys.defined() ? s.keys.const_data_ptr<int64_t>() : nullptr;
  const auto drop = drop_of(s.probability);
  each_head(s, [&](int64_t b, int64_t head) {
    thread_local std::vector<float> buffer;
    const int64_t token = s.starts.tokens[b], length = s.starts.tokens[b + 1] - token, at = head * size;
    const Rows k{x.k.row(token) + at, x.k.stride}, v{x.v.row(token) + at, x.v.stride};
    const Rows dk{dx.k.row(token) + at, dx.k.stride}, dv{dx.v.row(token) + at, dx.v.stride};
    const int64_t width = padded(length);
    float *space = scratch(buffer, (3 * BLOCK + 2 * size) * width);
    const Rows scores{space, width}, d{space + BLOCK * width, width}, p{space + 2 * BLOCK * width, width};
    const Rows turned_k = turned(k, length, size, space + 3 * BLOCK * width), turned_v = turned(v, length, size, space + (3 * BLOCK + size) * width);
    bool adds = false;
    for (int64_t row = s.starts.rows[b]; row < s.starts.rows[b + 1]; row += BLOCK) {
      const int64_t count = std::min(BLOCK, s.starts.rows[b + 1] - row);
      const Rows q{x.q.row(row) + at, x.q.stride}, above{dy + row * hidden + at, hidden};
      times(count, width, size, scale, q, false, turned_k, false, scores);
      times(count, width, size, 1.0f, above, false, turned_v, false, d);
      for (int64_t i = 0; i < count; ++i) {
        const float logarithm = logs[(row + i) * s.heads + head];
        softmax_back(scores.row(i), d.row(i), p.row(i), logarithm, scale, length, keys != nullptr, key_of(keys, row + i, s.site, head), drop);
      }
      times(length, size, count, 1.0f, p, true, above, adds, dv);
      times(count, size, length, 1.0f, d, false, k, false, {dx.q.row(row) + at, dx.q.stride});
      times(length, size, count, 1.0f, d, true, q, adds, dk);
      adds = true;
    }
    if (!adds) {
      // The sequence has no query rows, so that its keys and values have zero gradients.
      for (int64_t j = 0; j < length; ++j) {
        std::fill_n(dk.row(j), size, 0.0f);
        std::fill_n(dv.row(j), size, 0.0f);
      }
    }
  });
}

// Holds the settings in a type that libtorch can pass from forward to backward.
struct Held : torch::CustomClassHolder {
  Settings settings;
  explicit Held(Settings s) : settings(std::move(s)) {}
};

struct PackedAttention : torch::autograd::Function<PackedAttention> {
  static at::Tensor forward(AutogradContext *context, const std::optional<at::Tensor> &some, const at::Tensor &rest, const c10::intrusive_ptr<Held> &held) {
    const auto &s = held->settings;
    const auto queries = some.value_or(at::Tensor());
    const int64_t hidden = queries.defined() ? queries.size(1) : rest.size(1) / 3;
    auto out = at::empty({s.starts.rows.back(), hidden}, rest.options());
    auto logarithms = at::empty({out.size(0), s.heads}, rest.options());
    bitfit::forward(queries, rest, s, out, logarithms);
    context->save_for_backward({queries, rest, logarithms});
    context->saved_data["held"] = c10::IValue::make_capsule(held);
    return out;
  }

  static variable_list backward(AutogradContext *context, variable_list gradient) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "attention: no second derivatives");
    const auto saved = context->get_saved_variables();
    const auto &queries = saved[0], &rest = saved[1], &logarithms = saved[2];
    const auto capsule = context->saved_data["held"].toCapsule();
    auto of_queries = queries.defined() ? at::empty_like(queries) : at::Tensor();
    auto of_rest = at::empty_like(rest);
    bitfit::backward(queries, rest, static_cast<Held *>(capsule.get())->settings, logarithms, gradient[0].contiguous(), of_queries, of_rest);
    return {of_queries, of_rest, at::Tensor()};
  }
};

// Returns `starts` as int32 on the device. The last two results are cached, so that all layers
// share one copy.
at::Tensor on_device(const std::vector<int64_t> &starts, at::Device device) {
  struct Sent {
    std::vector<int64_t> starts;
    at::Tensor tensor;
  };
  thread_local std::array<Sent, 2> sent;
  for (const auto &s : sent)
    if (s.tensor.defined() && s.starts == starts && s.tensor.device() == device) return s.tensor;
  auto host = at::empty({static_cast<int64_t>(starts.size())}, at::TensorOptions().dtype(at::kInt).pinned_memory(true));
  std::copy(starts.begin(), starts.end(), host.mutable_data_ptr<int32_t>());
  sent[1] = std::move(sent[0]);
  sent[0] = {starts, host.to(device, at::kInt, true)};
  return sent[0].tensor;
}

// Whether CUDA's memory-efficient kernel, which takes packed sequences, can be used. The kernel has
// its own dropout, whose mask is a function of `seed` and `site`.
bool has_kernel(const at::Tensor &rest, int64_t size) {
  const auto kind = rest.scalar_type();
  return rest.is_cuda() && (kind == at::kFloat || kind == at::kHalf || kind == at::kBFloat16) && size % 8 == 0;
}

at::Tensor by_kernel(const at::Tensor &queries, const at::Tensor &rest, const Settings &s) {
  const int64_t hidden = queries.defined() ? queries.size(1) : rest.size(1) / 3, size = hidden / s.heads;
  const auto parts = queries.defined() ? std::vector<at::Tensor>{queries, rest.narrow(1, 0, hidden), rest.narrow(1, hidden, hidden)} : rest.split(hidden, 1);
  const auto as_heads = [&](const at::Tensor &x) { return x.view({1, x.size(0), s.heads, size}); };
  const auto longest = [](const std::vector<int64_t> &starts) {
    int64_t most = 0;
    for (size_t i = 1; i < starts.size(); ++i) most = std::max(most, starts[i] - starts[i - 1]);
    return most;
  };
  const bool drops = s.keys.defined();
  if (drops) {
    auto generator = at::globalContext().defaultGenerator(rest.device());
    const std::lock_guard<std::mutex> lock(generator.mutex());
    // Reset Philox, the generator's algorithm, so that the mask depends only on the seed. This
    // happens on the host.
    generator.set_current_seed(mix64(static_cast<uint64_t>(s.seed) ^ mix64(static_cast<uint64_t>(s.site))));
  }
  const auto y = std::get<0>(at::_efficient_attention_forward(
      as_heads(parts[0]), as_heads(parts[1]), as_heads(parts[2]), std::nullopt, on_device(s.starts.rows, rest.device()), on_device(s.starts.tokens, rest.device()),
      longest(s.starts.rows), longest(s.starts.tokens), drops ? s.probability : 0.0, /*no mask*/ 0, learns({queries, rest})));
  return y.reshape({s.starts.rows.back(), hidden});
}

// Attention by tensor operations, for any device and kind. Sequences are padded into one tensor.
at::Tensor by_operations(const at::Tensor &queries, const at::Tensor &rest, const Settings &s) {
  const int64_t hidden = queries.defined() ? queries.size(1) : rest.size(1) / 3, size = hidden / s.heads, count = s.starts.sequences();
  const auto parts = queries.defined() ? std::vector<at::Tensor>{queries, rest.narrow(1, 0, hidden), rest.narrow(1, hidden, hidden)} : rest.split(hidden, 1);
  const auto ints = at::TensorOptions().dtype(at::kLong);
  // Returns the row at each padded place (0 for padding), and a mask of the places that are not
  // padding. They are computed on the host, to avoid waiting for the device.
  const auto places = [&](const std::vector<int64_t> &starts) {
    const auto begins = at::tensor(at::ArrayRef<int64_t>(starts), ints);
    const auto lengths = begins.narrow(0, 1, count) - begins.narrow(0, 0, count);
    const auto steps = at::arange(lengths.max().item<int64_t>(), ints);
    const auto there = steps.unsqueeze(0) < lengths.unsqueeze(1);
    return std::make_pair(at::where(there, begins.narrow(0, 0, count).unsqueeze(1) + steps, at::zeros({}, ints)), there);
  };
  const auto device = rest.device();
  const auto [row_places, rows_there] = places(s.starts.rows);
  const auto [token_places, tokens_there] = places(s.starts.tokens);
  const auto rows = row_places.to(device), tokens = token_places.to(device), back = rows_there.flatten().nonzero().flatten().to(device);
  const auto spread = [&](const at::Tensor &x, const at::Tensor &index) {
    return x.index_select(0, index.flatten()).view({count, index.size(1), s.heads, size}).transpose(1, 2);
  };
  const auto q = spread(parts[0], rows), k = spread(parts[1], tokens), v = spread(parts[2], tokens);
  auto scores = q.mul(1.0 / std::sqrt(static_cast<double>(size))).matmul(k.transpose(2, 3));
  scores = scores.masked_fill(tokens_there.logical_not().unsqueeze(1).unsqueeze(1).to(device), -std::numeric_limits<double>::infinity());
  auto p = scores.softmax(-1, scores.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  if (s.keys.defined()) {
    const auto keys = s.keys.index_select(0, rows.flatten());
    // From [N, B R, L] to [B, N, R, L].
    const auto left = kept(keys, s.heads, tokens.size(1), s.site, s.probability).view({s.heads, count, rows.size(1), tokens.size(1)}).transpose(0, 1);
    p = p * left * (1.0 / (1.0 - s.probability));
  }
  const auto context = p.to(v.scalar_type()).matmul(v).transpose(1, 2).reshape({count * rows.size(1), hidden});
  return context.index_select(0, back);
}

void check(const at::Tensor &queries, const at::Tensor &rest, const Settings &s) {
  const auto &starts = s.starts;
  const int64_t hidden = queries.defined() ? queries.size(1) : rest.size(1) / 3;
  TORCH_CHECK(rest.dim() == 2 && rest.size(1) == hidden * (queries.defined() ? 2 : 3) && s.heads > 0 && hidden % s.heads == 0, "attention: ", rest.sizes(), " does not fit ", s.heads, " heads");
  TORCH_CHECK(starts.tokens.size() > 1 && starts.rows.size() == starts.tokens.size(), "attention: no sequence");
  const int64_t rows = queries.defined() ? queries.size(0) : rest.size(0);
  // A sequence may have no query rows, but it must have tokens.
  const auto rising = [](const std::vector<int64_t> &x, bool strictly) { return x[0] == 0 && std::adjacent_find(x.begin(), x.end(), [&](int64_t a, int64_t b) { return a > b || (strictly && a == b); }) == x.end(); };
  TORCH_CHECK(rising(starts.rows, false) && rising(starts.tokens, true) && starts.rows.back() == rows && starts.tokens.back() == rest.size(0), "attention: sequences that do not fit ", rows, " rows and ", rest.size(0), " tokens");
  if (s.keys.defined()) check_dropout(s.keys, rows, s.probability);
}

}  // namespace
}  // namespace bitfit

using namespace bitfit;

int bitfit_attention(bitfit_tensor *out, bitfit_tensor q, bitfit_tensor rest, const int64_t *rows, const int64_t *tokens, int64_t sequences, int64_t heads, bitfit_tensor keys, int64_t seed, int64_t site, double probability) {
  return guarded([&] {
    const auto queries = q ? ref(q).contiguous() : at::Tensor();
    const auto others = ref(rest).contiguous();
    Settings s{{{rows, rows + sequences + 1}, {tokens, tokens + sequences + 1}}, heads, site, probability, probability > 0 ? maybe(keys) : at::Tensor(), seed};
    if (s.keys.defined()) s.keys = s.keys.contiguous();
    check(queries, others, s);
    if (has_kernel(others, others.size(1) / (queries.defined() ? 2 : 3) / heads)) {
      *out = new at::Tensor(by_kernel(queries, others, s));
    } else if (!fast(others)) {
      *out = new at::Tensor(by_operations(queries, others, s));
    } else if (learns({queries, others})) {
      *out = new at::Tensor(PackedAttention::apply(q ? std::optional(queries) : std::nullopt, others, c10::make_intrusive<Held>(std::move(s))));
    } else {
      auto y = at::empty({s.starts.rows.back(), queries.defined() ? queries.size(1) : others.size(1) / 3}, others.options());
      forward(queries, others, s, y, at::Tensor());
      *out = new at::Tensor(y);
    }
  });
}
