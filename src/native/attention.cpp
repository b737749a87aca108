// Attention inside each sequence of a packed batch. The CPU code handles one head of one sequence
// at a time, in blocks of rows that fit in the cache. Backward does not store probabilities and
// dropout masks: it computes them again from queries, keys and the logsumexp of each row.
#include "dropout.h"
#include "gpu/launch.h"
#include "levels.h"

#include <array>
#include <cmath>
#include <map>
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

// A row-major matrix of floats. `stride` is the distance between rows, in floats.
struct MatrixView {
  float *data;
  int64_t stride;
  float *row(int64_t r) const { return data + r * stride; }
  // The view from a row and a column on.
  MatrixView from(int64_t r, int64_t column) const { return {row(r) + column, stride}; }
};

struct GemmSize {
  int64_t m, n, k;
};

// c [m, n] = alpha a b, with a [m, k] and b [k, n].
void gemm(GemmSize size, float alpha, MatrixView a, MatrixView b, MatrixView c) {
  rows().multiply({size.m, size.n, size.k, alpha, a.data, a.stride, 1, b.data, b.stride, nullptr,
                   false, c.data, c.stride});
}

// c [m, n] = (accumulate ? c : 0) + the transpose of a [k, m] times b [k, n].
void gemm_transposed(GemmSize size, MatrixView a, MatrixView b, bool accumulate, MatrixView c) {
  rows().multiply({size.m, size.n, size.k, 1.0f, a.data, 1, a.stride, b.data, b.stride, nullptr,
                   accumulate, c.data, c.stride});
}

// The row length of scores, rounded up to a multiple of 32, so that products work on whole vectors.
int64_t padded(int64_t length) { return (length + 31) / 32 * 32; }

// Transposes x [length, size] into [size, padded(length)], padded with zeros, in `space`.
MatrixView transposed(MatrixView x, int64_t length, int64_t size, float *space) {
  const MatrixView y{space, padded(length)};
  rows().transpose({length, size, x.data, x.stride, y.data, y.stride});
  for (int64_t c = 0; c < size; ++c) std::fill(y.row(c) + length, y.row(c) + y.stride, 0.0f);
  return y;
}

struct Settings {
  Starts starts;
  int64_t heads, site;
  double probability;
  at::Tensor dropout_keys;  // int64 [R]; undefined without dropout
  int64_t seed;             // for kernels that make their own random numbers

  RowKeys row_keys() const {
    return {dropout_keys.defined() ? dropout_keys.const_data_ptr<int64_t>() : nullptr, site,
            dropout_params(probability)};
  }
};

// The hidden size of queries [R, H], or, without them, of `rest` [T, 3 H].
int64_t hidden_size(const at::Tensor &queries, const at::Tensor &rest) {
  return queries.defined() ? queries.size(1) : rest.size(1) / 3;
}

// Queries, keys and values, or their gradients: views of [T, 3 H], or of [R, H] and [T, 2 H].
struct Projected {
  MatrixView q, k, v;

  Projected(const at::Tensor &queries, const at::Tensor &rest, int64_t hidden) {
    float *data = static_cast<float *>(rest.data_ptr());
    const int64_t stride = rest.size(1);
    q = queries.defined() ? MatrixView{static_cast<float *>(queries.data_ptr()), hidden}
                          : MatrixView{data, stride};
    k = {data + (queries.defined() ? 0 : hidden), stride};
    v = {k.data + hidden, stride};
  }
};

// The name in the profile, followed by the sizes of the products: "HEADSxSIZE", then
// "ROWSxTOKENS*SEQUENCES" for each shape.
std::string profile_name(const char *name, const Settings &s, int64_t size) {
  std::map<std::pair<int64_t, int64_t>, int64_t> counts;
  const auto &[rows, tokens] = s.starts;
  for (int64_t b = 0; b < s.starts.sequences(); ++b)
    counts[{rows[b + 1] - rows[b], tokens[b + 1] - tokens[b]}] += 1;
  auto text = name + (" " + std::to_string(s.heads)) + "x" + std::to_string(size);
  for (const auto &[sizes, count] : counts)
    text += " " + std::to_string(sizes.first) + "x" + std::to_string(sizes.second) + "*" +
            std::to_string(count);
  return text;
}

float *scratch(std::vector<float> &buffer, int64_t size) {
  if (static_cast<int64_t>(buffer.size()) < size) buffer.resize(static_cast<size_t>(size));
  return buffer.data();
}

// One head of one sequence: its rows and tokens in the batch, and the first column of the head.
struct Head {
  int64_t first_row, last_row, token, length, index, column;
};

// Runs body(head) for each head of each sequence, in parallel. Each call runs on one thread.
template <typename Body>
void parallel_heads(const Settings &s, int64_t size, Body body) {
  const auto &[rows, tokens] = s.starts;
  at::parallel_for(0, s.starts.sequences() * s.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / s.heads, head = i % s.heads;
      body(Head{rows[b], rows[b + 1], tokens[b], tokens[b + 1] - tokens[b], head, head * size});
    }
  });
}

// Fills `out` [R, H] and, if it is defined, `logsumexp` [R, N] of each row and head.
void attention_forward(const at::Tensor &queries, const at::Tensor &rest, const Settings &s,
                       const at::Tensor &out, const at::Tensor &logsumexp) {
  const int64_t hidden = out.size(1), size = hidden / s.heads;
  BITFIT_PROFILED(profile_name("bitfit::attention", s, size));
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  const Projected x(queries, rest, hidden);
  const MatrixView y{out.mutable_data_ptr<float>(), hidden};
  float *logs = logsumexp.defined() ? logsumexp.mutable_data_ptr<float>() : nullptr;
  const auto keys = s.row_keys();
  const auto &functions = rows();
  parallel_heads(s, size, [&](const Head &head) {
    thread_local std::vector<float> buffer;
    const int64_t length = head.length, width = padded(length);
    const MatrixView k = x.k.from(head.token, head.column), v = x.v.from(head.token, head.column);
    float *space = scratch(buffer, (BLOCK + size) * width);
    const MatrixView scores{space, width};
    const MatrixView k_transposed = transposed(k, length, size, space + BLOCK * width);
    for (int64_t row = head.first_row; row < head.last_row; row += BLOCK) {
      const int64_t count = std::min(BLOCK, head.last_row - row);
      gemm({count, width, size}, scale, x.q.from(row, head.column), k_transposed, scores);
      for (int64_t i = 0; i < count; ++i) {
        const auto dropout = keys.row(row + i, head.index);
        const float log = functions.softmax(scores.row(i), length, dropout);
        if (logs) logs[(row + i) * s.heads + head.index] = log;
      }
      gemm({count, size, length}, 1.0f, scores, v, y.from(row, head.column));
    }
  });
}

// What the backward pass of attention reads and writes.
struct AttentionBackward {
  at::Tensor queries, rest, logsumexp, grad_out;
  at::Tensor grad_queries, grad_rest;  // filled; the first is undefined where `queries` is
};

// The backward pass of one head.
struct HeadBackward {
  const Settings &s;
  Projected x, grad_x;
  MatrixView grad_y;
  const float *logs;
  RowKeys keys;
  int64_t size;

  void operator()(const Head &head) const {
    thread_local std::vector<float> buffer;
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    const int64_t length = head.length, width = padded(length), column = head.column;
    const MatrixView k = x.k.from(head.token, column), v = x.v.from(head.token, column);
    const MatrixView grad_k = grad_x.k.from(head.token, column);
    const MatrixView grad_v = grad_x.v.from(head.token, column);
    float *space = scratch(buffer, (3 * BLOCK + 2 * size) * width);
    const MatrixView scores{space, width}, grad_scores{space + BLOCK * width, width};
    const MatrixView probabilities{space + 2 * BLOCK * width, width};
    float *rest = space + 3 * BLOCK * width;
    const MatrixView k_transposed = transposed(k, length, size, rest);
    const MatrixView v_transposed = transposed(v, length, size, rest + size * width);
    const auto &functions = bitfit::rows();
    bool accumulate = false;
    for (int64_t row = head.first_row; row < head.last_row; row += BLOCK) {
      const int64_t count = std::min(BLOCK, head.last_row - row);
      const MatrixView q = x.q.from(row, column), dy = grad_y.from(row, column);
      gemm({count, width, size}, scale, q, k_transposed, scores);
      gemm({count, width, size}, 1.0f, dy, v_transposed, grad_scores);
      for (int64_t i = 0; i < count; ++i) {
        const float log = logs[(row + i) * s.heads + head.index];
        functions.softmax_backward({scores.row(i), grad_scores.row(i), probabilities.row(i), log,
                                    scale, length, keys.row(row + i, head.index)});
      }
      gemm_transposed({length, size, count}, probabilities, dy, accumulate, grad_v);
      gemm({count, size, length}, 1.0f, grad_scores, k, grad_x.q.from(row, column));
      gemm_transposed({length, size, count}, grad_scores, q, accumulate, grad_k);
      accumulate = true;
    }
    if (!accumulate) {
      // The sequence has no query rows, so that its keys and values have zero gradients.
      for (int64_t j = 0; j < length; ++j) {
        std::fill_n(grad_k.row(j), size, 0.0f);
        std::fill_n(grad_v.row(j), size, 0.0f);
      }
    }
  }
};

void attention_backward(const AttentionBackward &t, const Settings &s) {
  const int64_t hidden = t.grad_out.size(1), size = hidden / s.heads;
  BITFIT_PROFILED(profile_name("bitfit::attention_backward", s, size));
  const HeadBackward body{s,
                          Projected(t.queries, t.rest, hidden),
                          Projected(t.grad_queries, t.grad_rest, hidden),
                          {static_cast<float *>(t.grad_out.data_ptr()), hidden},
                          t.logsumexp.const_data_ptr<float>(),
                          s.row_keys(),
                          size};
  parallel_heads(s, size, body);
}

// Holds the settings in a type that libtorch can pass from forward to backward.
struct SettingsHolder : torch::CustomClassHolder {
  Settings settings;
  explicit SettingsHolder(Settings s) : settings(std::move(s)) {}
};

struct PackedAttention : torch::autograd::Function<PackedAttention> {
  static at::Tensor forward(AutogradContext *context, const std::optional<at::Tensor> &selected,
                            const at::Tensor &rest,
                            const c10::intrusive_ptr<SettingsHolder> &holder) {
    const auto &s = holder->settings;
    const auto queries = selected.value_or(at::Tensor());
    auto out = at::empty({s.starts.rows.back(), hidden_size(queries, rest)}, rest.options());
    auto logsumexp = at::empty({out.size(0), s.heads}, rest.options());
    attention_forward(queries, rest, s, out, logsumexp);
    context->save_for_backward({queries, rest, logsumexp});
    context->saved_data["settings"] = c10::IValue::make_capsule(holder);
    return out;
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "attention: no second derivatives");
    const auto saved = context->get_saved_variables();
    const auto &queries = saved[0], &rest = saved[1];
    const auto capsule = context->saved_data["settings"].toCapsule();
    const AttentionBackward tensors{
        queries,
        rest,
        saved[2],
        grads[0].contiguous(),
        queries.defined() ? at::empty_like(queries) : at::Tensor(),
        at::empty_like(rest),
    };
    attention_backward(tensors, static_cast<SettingsHolder *>(capsule.get())->settings);
    return {tensors.grad_queries, tensors.grad_rest, at::Tensor()};
  }
};

// Returns `starts` as int32 on the device. The last two results are cached, so that all layers
// share one copy.
at::Tensor to_device(const std::vector<int64_t> &starts, at::Device device) {
  struct Sent {
    std::vector<int64_t> starts;
    at::Tensor tensor;
  };
  thread_local std::array<Sent, 2> sent;
  for (const auto &s : sent)
    if (s.tensor.defined() && s.starts == starts && s.tensor.device() == device) return s.tensor;
  const auto options = at::TensorOptions().dtype(at::kInt).pinned_memory(true);
  auto host = at::empty({static_cast<int64_t>(starts.size())}, options);
  std::copy(starts.begin(), starts.end(), host.mutable_data_ptr<int32_t>());
  sent[1] = std::move(sent[0]);
  sent[0] = {starts, host.to(device, at::kInt, true)};
  return sent[0].tensor;
}

// Queries, keys and values, each [.., H].
std::vector<at::Tensor> projections(const at::Tensor &queries, const at::Tensor &rest) {
  const int64_t hidden = hidden_size(queries, rest);
  if (!queries.defined()) return rest.split(hidden, 1);
  return {queries, rest.narrow(1, 0, hidden), rest.narrow(1, hidden, hidden)};
}

// Whether CUDA's memory-efficient kernel, which takes packed sequences, can be used. The kernel has
// its own dropout, whose mask is a function of `seed` and `site`. For bfloat16 it needs compute
// capability 8.0.
bool has_memory_efficient_kernel(const at::Tensor &rest, int64_t size) {
  if (!rest.is_cuda() || size % 8 != 0) return false;
  const auto kind = rest.scalar_type();
  if (kind == at::kBFloat16) return gpu::capability(rest) >= 80;
  return kind == at::kFloat || kind == at::kHalf;
}

int64_t longest(const std::vector<int64_t> &starts) {
  int64_t max = 0;
  for (size_t i = 1; i < starts.size(); ++i) max = std::max(max, starts[i] - starts[i - 1]);
  return max;
}

// The lengths that the memory-efficient kernel takes beside its tensors.
struct Lengths {
  at::Tensor rows, tokens;  // where each sequence begins, int32
  int64_t longest_rows, longest_tokens;
};

// Makes libtorch's operations add in one order, while it lives.
class InOneOrder {
 public:
  InOneOrder() {
    context_.setDeterministicAlgorithms(true, false);
    // Otherwise new tensors would be filled with NaN.
    context_.setDeterministicFillUninitializedMemory(false);
  }
  ~InOneOrder() {
    context_.setDeterministicAlgorithms(was_, warned_);
    context_.setDeterministicFillUninitializedMemory(filled_);
  }
  InOneOrder(const InOneOrder &) = delete;
  InOneOrder &operator=(const InOneOrder &) = delete;

 private:
  at::Context &context_ = at::globalContext();
  bool was_ = context_.deterministicAlgorithms();
  bool warned_ = context_.deterministicAlgorithmsWarnOnly();
  bool filled_ = context_.deterministicFillUninitializedMemory();
};

// Attention by CUDA's kernels for packed sequences: flash attention's, or the memory-efficient one.
// PyTorch's own functions for autograd let the backward pass split the keys of a sequence among
// blocks, whose sums then come in any order.
struct KernelAttention : torch::autograd::Function<KernelAttention> {
  static at::Tensor forward(AutogradContext *context, const std::optional<at::Tensor> &selected,
                            const at::Tensor &rest,
                            const c10::intrusive_ptr<SettingsHolder> &holder) {
    const auto &s = holder->settings;
    const auto queries = selected.value_or(at::Tensor());
    const auto [q, k, v] = by_heads(queries, rest, s);
    const auto lengths = lengths_of(s, rest.device());
    const bool flash = prefers_flash(queries, q, lengths, s);
    const auto [out, logsumexp, seed, offset] = run(q, k, v, lengths, s, flash, true);
    context->save_for_backward({queries, rest, out, logsumexp, seed, offset});
    context->saved_data["flash"] = flash;
    context->saved_data["settings"] = c10::IValue::make_capsule(holder);
    return out.view({s.starts.rows.back(), -1});
  }

  // Without gradients.
  static at::Tensor infer(const at::Tensor &queries, const at::Tensor &rest, const Settings &s) {
    const auto [q, k, v] = by_heads(queries, rest, s);
    const auto lengths = lengths_of(s, rest.device());
    const bool flash = prefers_flash(queries, q, lengths, s);
    return run(q, k, v, lengths, s, flash, false)[0].view({s.starts.rows.back(), -1});
  }

  // Whether flash attention's kernels, which take half precision, are the faster ones. On an H200,
  // forward and backward took 0.6 of the memory-efficient kernel's time for 128 tokens a sequence,
  // and 0.2 for 512, but 1.9 times as long for texts of 25 tokens.
  static bool prefers_flash(const at::Tensor &queries, const at::Tensor &q, const Lengths &lengths,
                            const Settings &s) {
    constexpr int64_t MOST = 128;  // of a head; above, not every device has the backward pass
    const bool possible = q.scalar_type() != at::kFloat && q.size(3) <= MOST &&
                          !queries.defined() && gpu::capability(q) >= 80;
    const int64_t tokens = s.starts.tokens.back(), sequences = s.starts.sequences();
    return possible && (lengths.longest_tokens > 128 || tokens >= 64 * sequences);
  }

  // Returns the output [1, R, N, D], its logsumexp, and the state of the random numbers.
  static std::array<at::Tensor, 4> run(const at::Tensor &q, const at::Tensor &k,
                                       const at::Tensor &v, const Lengths &lengths,
                                       const Settings &s, bool flash, bool needs_logsumexp) {
    const bool drops = s.dropout_keys.defined();
    if (drops) {
      auto generator = at::globalContext().defaultGenerator(q.device());
      const std::lock_guard<std::mutex> lock(generator.mutex());
      // Reset Philox, the generator's algorithm, so that the mask depends only on the seed. This
      // happens on the host.
      const auto seed = static_cast<uint64_t>(s.seed);
      generator.set_current_seed(mix64(seed ^ mix64(static_cast<uint64_t>(s.site))));
    }
    if (flash) {
      const auto made = at::_flash_attention_forward(
          q[0], k[0], v[0], lengths.rows, lengths.tokens, lengths.longest_rows,
          lengths.longest_tokens, drops ? s.probability : 0.0, /*is_causal=*/false,
          /*return_debug_mask=*/false);
      return {std::get<0>(made).unsqueeze(0), std::get<1>(made), std::get<2>(made),
              std::get<3>(made)};
    }
    const auto made = at::_efficient_attention_forward(
        q, k, v, std::nullopt, lengths.rows, lengths.tokens, lengths.longest_rows,
        lengths.longest_tokens, drops ? s.probability : 0.0, /*custom_mask_type=*/0,
        needs_logsumexp);
    return {std::get<0>(made), std::get<1>(made), std::get<2>(made), std::get<3>(made)};
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "attention: no second derivatives");
    const auto saved = context->get_saved_variables();
    const auto &queries = saved[0], &rest = saved[1], &out = saved[2];
    const auto capsule = context->saved_data["settings"].toCapsule();
    const auto &s = static_cast<SettingsHolder *>(capsule.get())->settings;
    const auto [q, k, v] = by_heads(queries, rest, s);
    const auto lengths = lengths_of(s, rest.device());
    const int64_t hidden = hidden_size(queries, rest);
    const double probability = s.dropout_keys.defined() ? s.probability : 0.0;
    const auto grad_out = grads[0].contiguous().view(out.sizes());
    if (context->saved_data["flash"].toBool()) {
      const InOneOrder guard;
      const auto [grad_q, grad_k, grad_v] = at::_flash_attention_backward(
          grad_out[0], q[0], k[0], v[0], out[0], saved[3], lengths.rows, lengths.tokens,
          lengths.longest_rows, lengths.longest_tokens, probability, /*is_causal=*/false, saved[4],
          saved[5]);
      const auto flat = [&](const at::Tensor &x) { return x.reshape({x.size(0), hidden}); };
      return {at::Tensor(), at::cat({flat(grad_q), flat(grad_k), flat(grad_v)}, 1), at::Tensor()};
    }
    // The gradients of q, k and v of one matrix are made side by side, in one matrix.
    const bool together = !queries.defined();
    const auto [grad_q, grad_k, grad_v, none] = at::_efficient_attention_backward(
        grad_out, q, k, v, std::nullopt, out, lengths.rows, lengths.tokens, lengths.longest_rows,
        lengths.longest_tokens, saved[3], probability, saved[4], saved[5], /*custom_mask_type=*/0,
        /*bias_requires_grad=*/false, /*scale=*/std::nullopt,
        /*num_splits_key=*/1, /*window_size=*/std::nullopt, together);
    if (together) {
      const auto width = 3 * hidden;
      const auto whole =
          grad_q.as_strided({rest.size(0), width}, {width, 1}, grad_q.storage_offset());
      return {at::Tensor(), whole, at::Tensor()};
    }
    const auto flat = [&](const at::Tensor &x) { return x.reshape({x.size(1), hidden}); };
    return {flat(grad_q), at::cat({flat(grad_k), flat(grad_v)}, 1), at::Tensor()};
  }

 private:
  // Queries, keys and values as [1, rows, N, D].
  static std::array<at::Tensor, 3> by_heads(const at::Tensor &queries, const at::Tensor &rest,
                                            const Settings &s) {
    const auto parts = projections(queries, rest);
    const auto heads = [&](const at::Tensor &x) {
      return x.view({1, x.size(0), s.heads, x.size(1) / s.heads});
    };
    return {heads(parts[0]), heads(parts[1]), heads(parts[2])};
  }

  static Lengths lengths_of(const Settings &s, at::Device device) {
    const auto &[rows, tokens] = s.starts;
    return {to_device(rows, device), to_device(tokens, device), longest(rows), longest(tokens)};
  }
};

// Sequences in a tensor of one length: the row at each place (0 for padding), and a mask of the
// places that are not padding, both [sequences, length].
struct Padded {
  at::Tensor rows, mask;

  // Computed on the host, to avoid waiting for the device.
  explicit Padded(const std::vector<int64_t> &starts) {
    const auto ints = at::TensorOptions().dtype(at::kLong);
    const auto all = at::tensor(at::ArrayRef<int64_t>(starts), ints);
    const auto begins = all.slice(0, 0, -1), lengths = all.slice(0, 1) - begins;
    const auto steps = at::arange(lengths.max().item<int64_t>(), ints);
    mask = steps.unsqueeze(0) < lengths.unsqueeze(1);
    rows = at::where(mask, begins.unsqueeze(1) + steps, at::zeros({}, ints));
  }
};

// Attention by tensor operations, for any device and kind. Sequences are padded into one tensor.
at::Tensor attention_by_operations(const at::Tensor &queries, const at::Tensor &rest,
                                   const Settings &s) {
  const int64_t hidden = hidden_size(queries, rest), size = hidden / s.heads;
  const int64_t count = s.starts.sequences();
  const auto parts = projections(queries, rest);
  const auto device = rest.device();
  const Padded of_rows(s.starts.rows), of_tokens(s.starts.tokens);
  const auto rows = of_rows.rows.to(device), tokens = of_tokens.rows.to(device);
  const auto pad = [&](const at::Tensor &x, const at::Tensor &index) {
    const auto padded = x.index_select(0, index.flatten());
    return padded.view({count, index.size(1), s.heads, size}).transpose(1, 2);
  };
  const auto q = pad(parts[0], rows), k = pad(parts[1], tokens), v = pad(parts[2], tokens);
  const auto padding = of_tokens.mask.logical_not().unsqueeze(1).unsqueeze(1).to(device);
  auto scores = q.mul(1.0 / std::sqrt(static_cast<double>(size))).matmul(k.transpose(2, 3));
  scores = scores.masked_fill(padding, -std::numeric_limits<double>::infinity());
  auto p = scores.softmax(-1, scores.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  if (s.dropout_keys.defined()) {
    const auto keys = s.dropout_keys.index_select(0, rows.flatten());
    const auto mask = keep_mask(keys, s.heads, tokens.size(1), s.site, s.probability);
    // From [N, B R, L] to [B, N, R, L].
    const auto by_sequence = mask.view({s.heads, count, rows.size(1), tokens.size(1)});
    p = p * by_sequence.transpose(0, 1) * (1.0 / (1.0 - s.probability));
  }
  const auto context = p.to(v.scalar_type()).matmul(v).transpose(1, 2);
  const auto present = of_rows.mask.flatten().nonzero().flatten().to(device);
  return context.reshape({count * rows.size(1), hidden}).index_select(0, present);
}

void check(const at::Tensor &queries, const at::Tensor &rest, const Settings &s) {
  const auto &[row_starts, token_starts] = s.starts;
  const int64_t hidden = hidden_size(queries, rest);
  const bool fits = rest.dim() == 2 && rest.size(1) == hidden * (queries.defined() ? 2 : 3);
  TORCH_CHECK(fits && s.heads > 0 && hidden % s.heads == 0, "attention: ", rest.sizes(),
              " does not fit ", s.heads, " heads");
  TORCH_CHECK(token_starts.size() > 1 && row_starts.size() == token_starts.size(),
              "attention: no sequence");
  const int64_t rows = queries.defined() ? queries.size(0) : rest.size(0);
  // A sequence may have no query rows, but it must have tokens.
  const auto in_order = [](const std::vector<int64_t> &x, bool strictly) {
    const auto wrong = [&](int64_t a, int64_t b) { return a > b || (strictly && a == b); };
    return x[0] == 0 && std::adjacent_find(x.begin(), x.end(), wrong) == x.end();
  };
  TORCH_CHECK(in_order(row_starts, false) && in_order(token_starts, true) &&
                  row_starts.back() == rows && token_starts.back() == rest.size(0),
              "attention: sequences that do not fit ", rows, " rows and ", rest.size(0), " tokens");
  if (s.dropout_keys.defined()) check_dropout(s.dropout_keys, rows, s.probability);
}

Settings settings(const AttentionArgs &args) {
  const auto &mask = args.mask;
  const auto keys = mask.probability > 0 ? ref_or_undefined(mask.keys) : at::Tensor();
  return {{{args.rows, args.rows + args.sequences + 1},
           {args.tokens, args.tokens + args.sequences + 1}},
          args.heads,
          mask.site,
          mask.probability,
          keys.defined() ? keys.contiguous() : keys,
          args.seed};
}

}  // namespace
}  // namespace bitfit

using namespace bitfit;

int bitfit_attention(bitfit_tensor *out, const AttentionArgs *args) {
  return guarded_tensor(out, [&]() -> at::Tensor {
    const auto queries = args->queries ? ref(args->queries).contiguous() : at::Tensor();
    const auto rest = ref(args->rest).contiguous();
    auto s = settings(*args);
    check(queries, rest, s);
    const int64_t hidden = hidden_size(queries, rest);
    const bool efficient = has_memory_efficient_kernel(rest, hidden / s.heads);
    if (!efficient && !is_cpu_fp32(rest)) return attention_by_operations(queries, rest, s);
    if (any_requires_grad({queries, rest})) {
      const auto selected = queries.defined() ? std::optional(queries) : std::nullopt;
      const auto holder = c10::make_intrusive<SettingsHolder>(std::move(s));
      return efficient ? KernelAttention::apply(selected, rest, holder)
                       : PackedAttention::apply(selected, rest, holder);
    }
    if (efficient) return KernelAttention::infer(queries, rest, s);
    auto y = at::empty({s.starts.rows.back(), hidden}, rest.options());
    attention_forward(queries, rest, s, y, at::Tensor());
    return y;
  });
}
