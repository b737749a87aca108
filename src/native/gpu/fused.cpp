#include "fused.h"

#include <torch/csrc/autograd/engine.h>

#include "../dropout.h"

namespace bitfit::gpu {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

template <typename T>
T *pointer(const at::Tensor &t) {
  return t.defined() ? static_cast<T *>(t.data_ptr()) : nullptr;
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The grid of strips of rows and chunks of columns: about a thousand blocks, which fill a device.
Grid strips_and_chunks(int64_t rows, int64_t columns, const std::string &kernel) {
  const int64_t at_once = kernel.back() == '4' ? 4 : 1;
  const int64_t chunks = ceil_div(columns, THREADS * at_once);
  return {std::clamp<int64_t>(1024 / chunks, 1, std::max<int64_t>(rows, 1)), chunks};
}

at::Tensor empty_sums(const at::Tensor &like, int64_t strips, int64_t columns) {
  return at::empty({strips, columns}, like.options().dtype(at::kFloat));
}

Dropout dropout_args(const at::Tensor &keys, int64_t site, double probability) {
  const auto [threshold, scale] = dropout_params(keys.defined() ? probability : 0.0);
  return {keys.defined() ? keys.const_data_ptr<int64_t>() : nullptr, site, threshold, scale};
}

Tasks tasks_of(const TaskTables &tables) {
  return {tables.of_row.const_data_ptr<int64_t>(), tables.biases.size(1),
          tables.norm_weights.size(1)};
}

// Sums of a backward pass that wait until one kernel adds several to their gradients: starting a
// kernel takes the host longer than such a sum takes the device.
class WaitingSums {
 public:
  // Adds `sums`, over its strips, to `to` before the running backward pass ends.
  static void add(const at::Tensor &sums, const std::vector<at::Tensor> &to) {
    thread_local std::shared_ptr<WaitingSums> waiting;
    const int pass = torch::autograd::get_current_graph_task_id();
    if (!waiting || waiting->pass_ != pass) {
      // A backward pass that failed leaves its sums behind.
      waiting = std::make_shared<WaitingSums>(pass);
      const auto finish = [mine = waiting] { mine->finish(); };
      torch::autograd::Engine::get_default_engine().queue_callback(finish);
    }
    waiting->push(sums, to);
  }

  // Whether a backward pass is running.
  static bool possible() { return torch::autograd::get_current_graph_task_id() >= 0; }

  explicit WaitingSums(int pass) : pass_(pass) {}

  void push(const at::Tensor &sums, const std::vector<at::Tensor> &to) {
    const auto vectors = static_cast<int64_t>(to.size());
    Sums &args = args_.of[count_++];
    args = {sums.const_data_ptr<float>(), sums.size(0), vectors, sums.size(1) / vectors, {}};
    for (size_t i = 0; i < to.size(); ++i) args.to[i] = pointer<float>(to[i]);
    kept_.push_back(sums);
    kept_.insert(kept_.end(), to.begin(), to.end());
    blocks_ = std::max(blocks_, ceil_div(sums.size(1), WARP));
    if (count_ == MOST_SUMS) finish();
  }

  void finish() {
    if (count_ > 0) launch(kept_[0], "finish_sums", {blocks_, count_}, 0, &args_);
    kept_.clear();
    count_ = blocks_ = 0;
  }

 private:
  int pass_;
  FinishSums args_;
  int64_t count_ = 0, blocks_ = 0;
  std::vector<at::Tensor> kept_;
};

// The gradients of vectors. The gradient of a leaf that already has one, as a piece of the flat
// vector, is added to it at once, so that backward has nothing to add for it.
class VectorGradients {
 public:
  // Takes the vectors, undefined for those that need no gradient, in the order of the sums.
  VectorGradients(const std::vector<at::Tensor> &vectors, const at::Tensor &like) {
    for (const auto &vector : vectors) add(vector, like);
  }

  bool any() const {
    return std::any_of(to_.begin(), to_.end(), [](const auto &t) { return t.defined(); });
  }

  // Adds `sums` [strips, vectors, columns] over the strips.
  void finish(const at::Tensor &sums) {
    if (!any()) return;
    const bool returns =
        std::any_of(returned_.begin(), returned_.end(), [](const auto &t) { return t.defined(); });
    if (!returns && WaitingSums::possible()) return WaitingSums::add(sums, to_);
    WaitingSums now(-1);
    now.push(sums, to_);
    now.finish();
  }

  // What backward returns for a vector.
  at::Tensor returned(size_t index) const { return returned_[index]; }

 private:
  std::vector<at::Tensor> to_, returned_;

  void add(const at::Tensor &vector, const at::Tensor &like) {
    at::Tensor to, returned;
    if (vector.defined()) {
      to = vector.is_leaf() ? vector.grad() : at::Tensor();
      if (!to.defined() || to.scalar_type() != at::kFloat || !to.is_contiguous()) {
        returned = to = at::zeros(vector.sizes(), like.options().dtype(at::kFloat));
      }
    }
    to_.push_back(to);
    returned_.push_back(returned);
  }
};

struct BiasActivation : Function<BiasActivation> {
  static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &bias,
                            int64_t kind) {
    context->save_for_backward({x, bias});
    context->saved_data["kind"] = kind;
    auto y = at::empty_like(x);
    run(x, bias, kind, y);
    return y;
  }

  static void run(const at::Tensor &x, const at::Tensor &bias, int64_t kind, const at::Tensor &y) {
    const int64_t rows = x.size(0), columns = x.size(1);
    if (rows == 0) return;
    const auto name = kernel_name("activation_forward", columns, {x, y});
    const ActivationForward args{
        x.data_ptr(), bias.const_data_ptr<float>(), {}, kind, rows, columns, y.data_ptr()};
    launch(x, name, strips_and_chunks(rows, columns, name), 0, &args);
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "bias and activation: no second derivatives");
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &bias = saved[1];
    const int64_t rows = x.size(0), columns = x.size(1);
    const auto grad_y = grads[0].contiguous();
    auto grad_x = at::empty_like(x);
    if (rows == 0) return {grad_x, at::Tensor(), at::Tensor()};
    const auto name = kernel_name("activation_backward", columns, {x, grad_y, grad_x});
    const auto grid = strips_and_chunks(rows, columns, name);
    const auto sums = empty_sums(x, grid.x, columns);
    const ActivationBackward args{x.data_ptr(),
                                  bias.const_data_ptr<float>(),
                                  grad_y.data_ptr(),
                                  context->saved_data["kind"].toInt(),
                                  rows,
                                  columns,
                                  grad_x.data_ptr(),
                                  sums.mutable_data_ptr<float>()};
    launch(x, name, grid, 0, &args);
    VectorGradients vectors({context->needs_input_grad(1) ? bias : at::Tensor()}, x);
    vectors.finish(sums);
    return {grad_x, vectors.returned(0), at::Tensor()};
  }
};

struct ResidualNorm : Function<ResidualNorm> {
  static variable_list forward(AutogradContext *context, const at::Tensor &x,
                               const at::Tensor &bias, const at::Tensor &residual,
                               const at::Tensor &weight, const at::Tensor &shift,
                               const std::optional<at::Tensor> &keys, int64_t site,
                               double probability, double eps) {
    const auto dropout_keys = keys.value_or(at::Tensor());
    auto normalized = at::empty_like(x), rstd = at::empty({x.size(0)}, residual.options());
    const auto [y, rounded] = run(x, bias, residual, weight, shift, dropout_keys, site, probability,
                                  eps, normalized, rstd);
    context->set_materialize_grads(false);
    context->save_for_backward({normalized, rstd, weight, bias, shift});
    context->saved_data["keys"] = dropout_keys;
    context->saved_data["site"] = site;
    context->saved_data["probability"] = probability;
    return rounded.defined() ? variable_list{y, rounded} : variable_list{y};
  }

  // `normalized` and `rstd` may be undefined.
  static Normed run(const at::Tensor &x, const at::Tensor &bias, const at::Tensor &residual,
                    const at::Tensor &weight, const at::Tensor &shift, const at::Tensor &keys,
                    int64_t site, double probability, double eps, const at::Tensor &normalized,
                    const at::Tensor &rstd) {
    const int64_t rows = x.size(0), columns = x.size(1);
    Normed out{at::empty_like(residual), at::Tensor()};
    if (x.scalar_type() != at::kFloat) out.rounded = at::empty_like(x);
    if (rows == 0) return out;
    const NormForward args{x.data_ptr(),
                           bias.const_data_ptr<float>(),
                           residual.const_data_ptr<float>(),
                           weight.const_data_ptr<float>(),
                           shift.const_data_ptr<float>(),
                           {},
                           dropout_args(keys, site, probability),
                           static_cast<float>(eps),
                           columns,
                           out.y.mutable_data_ptr<float>(),
                           pointer<void>(out.rounded),
                           pointer<void>(normalized),
                           pointer<float>(rstd)};
    const auto name =
        kernel_name("norm_forward", columns, {x, residual, out.y, out.rounded, normalized});
    launch(x, name, {rows}, columns, &args);
    return out;
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "residual and LayerNorm: no second derivatives");
    const auto saved = context->get_saved_variables();
    const auto &normalized = saved[0], &rstd = saved[1], &weight = saved[2];
    const int64_t rows = normalized.size(0), columns = normalized.size(1);
    const auto grad_of = [&](size_t index) {
      return grads.size() > index && grads[index].defined() ? grads[index].contiguous()
                                                            : at::Tensor();
    };
    const auto grad_y = grad_of(0), grad_rounded = grad_of(1);
    const at::Tensor none;
    auto grad_x = context->needs_input_grad(0) ? at::empty_like(normalized) : none;
    auto grad_residual =
        context->needs_input_grad(2) ? at::empty(normalized.sizes(), rstd.options()) : none;
    if (rows == 0) return {grad_x, none, grad_residual, none, none, none, none, none, none};
    const bool by_warps = columns <= WARP_COLUMNS;
    const auto name = kernel_name(by_warps ? "norm_backward_warp" : "norm_backward", columns,
                                  {normalized, grad_y, grad_rounded, grad_x, grad_residual});
    const int64_t strips = std::clamp<int64_t>(rows / (2 * WARPS), 1, 512);
    const auto sums = empty_sums(rstd, strips, 3 * columns);
    const NormBackward args{
        pointer<float>(grad_y),
        pointer<void>(grad_rounded),
        normalized.data_ptr(),
        rstd.const_data_ptr<float>(),
        weight.const_data_ptr<float>(),
        dropout_args(context->saved_data["keys"].toTensor(), context->saved_data["site"].toInt(),
                     context->saved_data["probability"].toDouble()),
        rows,
        columns,
        pointer<float>(grad_residual),
        pointer<void>(grad_x),
        sums.mutable_data_ptr<float>(),
    };
    launch(rstd, name, {strips}, (by_warps ? WARPS : 1) * 3 * columns, &args);
    const auto trained = [&](size_t input, size_t index) {
      return context->needs_input_grad(input) ? saved[index] : none;
    };
    VectorGradients vectors({trained(1, 3), trained(3, 2), trained(4, 4)}, rstd);
    vectors.finish(sums);
    return {grad_x,
            vectors.returned(0),
            grad_residual,
            vectors.returned(1),
            vectors.returned(2),
            none,
            none,
            none,
            none};
  }
};

struct Product : Function<Product> {
  // Takes up to three biases; the others are absent.
  static at::Tensor forward(AutogradContext *context, const at::Tensor &x, const at::Tensor &weight,
                            const std::optional<at::Tensor> &a, const std::optional<at::Tensor> &b,
                            const std::optional<at::Tensor> &c) {
    std::vector<at::Tensor> biases;
    for (const auto &bias : {a, b, c})
      if (bias) biases.push_back(*bias);
    variable_list saved{weight, weight.requires_grad() ? x : at::Tensor()};
    saved.insert(saved.end(), biases.begin(), biases.end());
    context->save_for_backward(saved);
    return run(x, weight, biases);
  }

  static at::Tensor run(const at::Tensor &x, const at::Tensor &weight,
                        const std::vector<at::Tensor> &biases) {
    if (biases.empty()) return at::mm(x, weight.t());
    const auto joined = at::empty({weight.size(0)}, x.options());
    const auto vectors = static_cast<int64_t>(biases.size());
    JoinVectors args{{}, vectors, weight.size(0) / vectors, joined.data_ptr()};
    for (size_t i = 0; i < biases.size(); ++i) args.from[i] = biases[i].const_data_ptr<float>();
    const auto name = std::string("join_") + kind_name(joined.scalar_type());
    launch(x, name, {ceil_div(weight.size(0), THREADS)}, 0, &args);
    return at::addmm(joined, x, weight.t());
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "product: no second derivatives");
    const auto saved = context->get_saved_variables();
    const auto &weight = saved[0], &x = saved[1];
    const auto grad_y = grads[0].contiguous();
    const int64_t rows = grad_y.size(0), columns = grad_y.size(1);
    std::vector<at::Tensor> trained(saved.begin() + 2, saved.end());
    for (size_t i = 0; i < trained.size(); ++i)
      if (!context->needs_input_grad(2 + i)) trained[i] = at::Tensor();
    VectorGradients vectors(trained, grad_y);
    if (vectors.any() && rows > 0) {
      const auto name = kernel_name("strip_sums", columns, {grad_y});
      const auto grid = strips_and_chunks(rows, columns, name);
      const auto sums = empty_sums(grad_y, grid.x, columns);
      const StripSums args{grad_y.data_ptr(), rows, columns, sums.mutable_data_ptr<float>()};
      launch(grad_y, name, grid, 0, &args);
      vectors.finish(sums);
    }
    variable_list out{context->needs_input_grad(0) ? grad_y.mm(weight) : at::Tensor(),
                      x.defined() ? grad_y.t().mm(x) : at::Tensor()};
    for (size_t i = 0; i < VECTORS; ++i)
      out.push_back(i < trained.size() ? vectors.returned(i) : at::Tensor());
    return out;
  }
};

}  // namespace

at::Tensor dropout(const at::Tensor &x, const at::Tensor &keys, int64_t site, double probability) {
  auto y = at::empty_like(x);
  if (x.numel() == 0) return y;
  const int64_t columns = x.size(-1), rows = x.size(-2), blocks = x.numel() / (rows * columns);
  const auto name = kernel_name("dropout", columns, {x, y});
  const auto own = keys.contiguous();
  const DropoutForward args{
      x.data_ptr(), dropout_args(own, site, probability), blocks, rows, columns, y.data_ptr()};
  launch(x, name, strips_and_chunks(blocks * rows, columns, name), 0, &args);
  return y;
}

at::Tensor bias_activation(const at::Tensor &x, const at::Tensor &bias, int64_t kind) {
  if (any_requires_grad({x, bias})) return BiasActivation::apply(x, bias, kind);
  const auto y = x.detach();
  BiasActivation::run(y, bias, kind, y);
  return y;
}

Normed residual_norm(const at::Tensor &x, const at::Tensor &bias, const at::Tensor &residual,
                     const at::Tensor &weight, const at::Tensor &shift, const at::Tensor &keys,
                     int64_t site, double probability, double eps) {
  if (!any_requires_grad({x, bias, residual, weight, shift}))
    return ResidualNorm::run(x, bias, residual, weight, shift, keys, site, probability, eps,
                             at::Tensor(), at::Tensor());
  const auto given = keys.defined() ? std::optional(keys) : std::nullopt;
  const auto out =
      ResidualNorm::apply(x, bias, residual, weight, shift, given, site, probability, eps);
  return {out[0], out.size() > 1 ? out[1] : at::Tensor()};
}

at::Tensor product(const at::Tensor &x, const at::Tensor &weight,
                   const std::vector<at::Tensor> &biases) {
  const bool trains = any_requires_grad({x, weight}) ||
                      std::any_of(biases.begin(), biases.end(),
                                  [](const auto &bias) { return any_requires_grad({bias}); });
  if (!trains) return Product::run(x, weight, biases);
  const auto at = [&](size_t index) {
    return index < biases.size() ? std::optional(biases[index]) : std::nullopt;
  };
  return Product::apply(x, weight, at(0), at(1), at(2));
}

at::Tensor task_add(const at::Tensor &x, const TaskTables &tables,
                    const std::vector<int64_t> &offsets) {
  const int64_t rows = x.size(0), columns = x.size(1);
  if (rows == 0) return x;
  TaskAdd args{x.data_ptr(), {},      tasks_of(tables), static_cast<int64_t>(offsets.size()),
               rows,         columns, x.data_ptr()};
  for (size_t i = 0; i < offsets.size(); ++i)
    args.from[i] = tables.biases.const_data_ptr<float>() + offsets[i];
  const auto name = kernel_name("task_add", columns, {x});
  launch(x, name, strips_and_chunks(rows, columns, name), 0, &args);
  return x;
}

at::Tensor task_activation(const at::Tensor &x, const TaskTables &tables, int64_t offset,
                           int64_t kind) {
  const int64_t rows = x.size(0), columns = x.size(1);
  if (rows == 0) return x;
  const auto name = kernel_name("activation_forward", columns, {x});
  const ActivationForward args{x.data_ptr(),
                               tables.biases.const_data_ptr<float>() + offset,
                               tasks_of(tables),
                               kind,
                               rows,
                               columns,
                               x.data_ptr()};
  launch(x, name, strips_and_chunks(rows, columns, name), 0, &args);
  return x;
}

Normed task_norm(const at::Tensor &x, const at::Tensor &residual, const TaskTables &tables,
                 int64_t bias, int64_t weight, int64_t shift, double eps) {
  const int64_t rows = x.size(0), columns = x.size(1);
  Normed out{at::empty(x.sizes(), tables.biases.options()), at::Tensor()};
  if (x.scalar_type() != at::kFloat) out.rounded = at::empty_like(x);
  if (rows == 0) return out;
  const float *biases = tables.biases.const_data_ptr<float>();
  const NormForward args{x.data_ptr(),
                         bias < 0 ? nullptr : biases + bias,
                         pointer<float>(residual),
                         tables.norm_weights.const_data_ptr<float>() + weight,
                         biases + shift,
                         tasks_of(tables),
                         {},
                         static_cast<float>(eps),
                         columns,
                         out.y.mutable_data_ptr<float>(),
                         pointer<void>(out.rounded),
                         nullptr,
                         nullptr};
  const auto name = kernel_name("norm_forward", columns, {x, residual, out.y, out.rounded});
  launch(x, name, {rows}, columns, &args);
  return out;
}

}  // namespace bitfit::gpu
