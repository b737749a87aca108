// Compares every function of a level's table with a plain twin: loops that the compiler may not
// vectorise, in double precision. tests/levels.rs compiles and runs it, for one level at a time.
#include "rows/level.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

using namespace bitfit;

namespace {

const RowFunctions &ROWS = BITFIT_LEVEL::ROWS;
int failures = 0;

using Floats = std::vector<float>;

// Numbers between -scale and scale that differ from row to row.
Floats numbers(int64_t count, float scale, uint32_t seed) {
  Floats values(static_cast<size_t>(count));
  for (auto &value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = (static_cast<float>(seed >> 8) / 8388608.0f - 1.0f) * scale;
  }
  return values;
}

void compare(const char *what, int64_t size, const Floats &found, const Floats &expected,
             double most) {
  double largest = 1, apart = 0;
  for (float value : expected)
    if (std::isfinite(value)) largest = std::max(largest, std::fabs(double(value)));
  for (size_t i = 0; i < expected.size(); ++i) {
    const bool same = found[i] == expected[i] || (std::isnan(found[i]) && std::isnan(expected[i]));
    const double error = same ? 0 : std::fabs(double(found[i]) - double(expected[i])) / largest;
    // NaN is not below.
    if (!(error <= apart)) apart = error;
  }
  if (apart <= most) return;
  ++failures;
  std::fprintf(stderr, "%s of %s, size %ld: %g apart, at most %g\n", what, ROWS.level, long(size),
               apart, most);
}

double keep(RowDropout dropout, int64_t column) {
  if (!dropout.enabled()) return 1.0;
  return double(keep_scale(dropout.key, static_cast<uint32_t>(column), dropout.params));
}

// The activations and their derivatives, by their definitions.
double activation(int64_t kind, double x) {
  switch (kind) {
    case GELU:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case GELU_TANH:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case RELU:
      return std::max(x, 0.0);
    case SILU:
      return x / (1 + std::exp(-x));
    case TANH:
      return std::tanh(x);
    case QUICK_GELU:
      return x / (1 + std::exp(-1.702 * x));
    case RELU6:
      return std::min(std::max(x, 0.0), 6.0);
    default:
      return x * std::tanh(std::log1p(std::exp(x)));
  }
}

double derivative(int64_t kind, double x) {
  const double step = 1e-5;
  return (activation(kind, x + step) - activation(kind, x - step)) / (2 * step);
}

void check_rows(int64_t n, RowDropout dropout) {
  const auto x = numbers(n, 4, 1), y = numbers(n, 2, 2), z = numbers(n, 1, 3);
  const auto w = numbers(n, 1, 4);
  auto found = x, expected = x;
  ROWS.add(found.data(), y.data(), n);
  for (int64_t c = 0; c < n; ++c) expected[c] = x[c] + y[c];
  compare("add", n, found, expected, 0);

  double product = 0;
  for (int64_t c = 0; c < n; ++c) product += double(x[c]) * double(y[c]);
  compare("dot", n, {ROWS.dot(x.data(), y.data(), n)}, {float(product)}, 1e-5);

  if (dropout.enabled()) {
    ROWS.dropout(x.data(), found.data(), n, dropout);
    for (int64_t c = 0; c < n; ++c) expected[c] = float(x[c] * keep(dropout, c));
    compare("dropout", n, found, expected, 1e-6);
  }

  found = x;
  const float logsumexp = ROWS.softmax(found.data(), n, dropout);
  double sum = 0;
  for (int64_t c = 0; c < n; ++c) sum += std::exp(double(x[c]));
  for (int64_t c = 0; c < n; ++c)
    expected[c] = float(std::exp(double(x[c])) / sum * keep(dropout, c));
  compare("softmax", n, found, expected, 2e-6);
  compare("softmax's logsumexp", n, {logsumexp}, {float(std::log(sum))}, 2e-6);

  Floats scores = x, grad = y, probabilities(n), of_grad(n), of_probabilities(n);
  ROWS.softmax_backward(
      {scores.data(), grad.data(), probabilities.data(), logsumexp, 0.5f, n, dropout});
  double dot = 0;
  for (int64_t c = 0; c < n; ++c)
    dot += std::exp(double(x[c])) / sum * double(y[c]) * keep(dropout, c);
  for (int64_t c = 0; c < n; ++c) {
    const double probability = std::exp(double(x[c])) / sum;
    of_probabilities[c] = float(probability * keep(dropout, c));
    of_grad[c] = float(probability * (double(y[c]) * keep(dropout, c) - dot) * 0.5);
  }
  compare("softmax_backward", n, grad, of_grad, 5e-6);
  compare("softmax_backward's probabilities", n, probabilities, of_probabilities, 5e-6);

  Floats normalized(n), normed(n), plain(n);
  const float rstd = ROWS.norm({x.data(), y.data(), z.data(), w.data(), y.data(), normalized.data(),
                                normed.data(), n, 1e-5f, dropout});
  double mean = 0, squares = 0;
  std::vector<double> of_residual(n);
  for (int64_t c = 0; c < n; ++c) {
    of_residual[c] = (double(x[c]) + double(y[c])) * keep(dropout, c) + double(z[c]);
    mean += of_residual[c] / double(n);
  }
  for (double value : of_residual) squares += (value - mean) * (value - mean) / double(n);
  const double reciprocal = 1 / std::sqrt(squares + 1e-5);
  for (int64_t c = 0; c < n; ++c) {
    plain[c] = float((of_residual[c] - mean) * reciprocal);
    expected[c] = float((of_residual[c] - mean) * reciprocal * double(w[c]) + double(y[c]));
  }
  compare("norm", n, normed, expected, 5e-6);
  compare("norm's normalized", n, normalized, plain, 5e-6);
  if (n > 1) compare("norm's rstd", n, {rstd}, {float(reciprocal)}, 5e-6);

  Floats residual(n), dx(n), bias = z, weight = z, shift = z;
  ROWS.norm_backward({y.data(), plain.data(), w.data(), rstd, residual.data(), dx.data(),
                      bias.data(), weight.data(), shift.data(), n, dropout});
  double total = 0, slope = 0;
  for (int64_t c = 0; c < n; ++c) {
    total += double(y[c]) * double(w[c]) / double(n);
    slope += double(y[c]) * double(w[c]) * double(plain[c]) / double(n);
  }
  Floats of_weight(n), of_shift(n), of_bias(n), of_dx(n);
  for (int64_t c = 0; c < n; ++c) {
    const double g =
        (double(y[c]) * double(w[c]) - total - double(plain[c]) * slope) * double(rstd);
    expected[c] = float(g);
    of_dx[c] = float(g * keep(dropout, c));
    of_bias[c] = float(double(z[c]) + g * keep(dropout, c));
    of_weight[c] = z[c] + y[c] * plain[c];
    of_shift[c] = z[c] + y[c];
  }
  compare("norm_backward", n, residual, expected, 1e-5);
  if (dropout.enabled()) compare("norm_backward's x", n, dx, of_dx, 1e-5);
  compare("norm_backward's bias", n, bias, of_bias, 1e-5);
  compare("norm_backward's weight", n, weight, of_weight, 1e-5);
  compare("norm_backward's shift", n, shift, of_shift, 1e-5);
}

void check_activations(int64_t n) {
  const auto x = numbers(n, 9, 5), bias = numbers(n, 1, 6), grad = numbers(n, 1, 7);
  for (int64_t kind = 0; kind < ACTIVATION_COUNT; ++kind) {
    Floats y(n), expected(n), dx(n), sums = grad, of_dx(n), of_sums(n);
    ROWS.activations[kind].forward(x.data(), bias.data(), y.data(), n);
    ROWS.activations[kind].backward(x.data(), bias.data(), grad.data(), dx.data(), sums.data(), n);
    for (int64_t c = 0; c < n; ++c) {
      const float in = x[c] + bias[c];
      expected[c] = float(activation(kind, double(in)));
      of_dx[c] = float(derivative(kind, double(in)) * double(grad[c]));
      of_sums[c] = grad[c] + of_dx[c];
    }
    const auto name = "activation " + std::to_string(kind);
    compare(name.c_str(), n, y, expected, 2e-6);
    compare((name + ", backward").c_str(), n, dx, of_dx, 2e-5);
    compare((name + ", bias").c_str(), n, sums, of_sums, 2e-5);
  }
}

// All ways to give a product its factors.
void check_product(int64_t m, int64_t n, int64_t k) {
  const auto a = numbers(m * k, 1, 8), b = numbers(k * n, 1, 9), bias = numbers(n, 1, 10);
  Floats a_turned(m * k), b_turned(k * n), expected(m * n);
  ROWS.transpose({m, k, a.data(), k, a_turned.data(), m});
  ROWS.transpose({k, n, b.data(), n, b_turned.data(), k});
  for (int64_t r = 0; r < m; ++r)
    for (int64_t c = 0; c < k; ++c)
      if (a_turned[c * m + r] != a[r * k + c]) ++failures, std::fprintf(stderr, "transpose\n");
  for (int64_t r = 0; r < m; ++r)
    for (int64_t c = 0; c < n; ++c) {
      double sum = 0;
      for (int64_t p = 0; p < k; ++p) sum += double(a[r * k + p]) * double(b[p * n + c]);
      expected[r * n + c] = float(0.5 * sum);
    }
  const int64_t width = ROWS.panel_columns;
  Floats panels(size_t((n + width - 1) / width * width * k), NAN), again = panels;
  for (int64_t j = 0; j < n; j += width) {
    const int64_t columns = std::min(width, n - j);
    ROWS.pack_panel({k, columns, b.data() + j, n, 1, panels.data() + j * k});
    ROWS.pack_panel({k, columns, b_turned.data() + j * k, 1, k, again.data() + j * k});
  }
  if (panels != again) ++failures, std::fprintf(stderr, "pack_panel, size %ld\n", long(n));
  for (const bool in_panels : {false, true})
    for (const bool is_turned : {false, true})
      for (const bool accumulates : {false, true})
        for (const bool has_bias : {false, true}) {
          auto c = numbers(m * n, 1, 11), of = c;
          for (int64_t i = 0; i < m * n; ++i)
            of[i] = expected[i] + (accumulates ? of[i] : 0) + (has_bias ? bias[i % n] : 0);
          ROWS.multiply({m, n, k, 0.5f, is_turned ? a_turned.data() : a.data(), is_turned ? 1 : k,
                         is_turned ? m : 1, in_panels ? panels.data() : b.data(), in_panels ? 0 : n,
                         has_bias ? bias.data() : nullptr, accumulates, c.data(), n});
          compare("multiply", m * 1000000 + n * 1000 + k, c, of, 1e-5);
        }
}

}  // namespace

int main() {
  const RowDropout dropout{0x123456789abcdefull, dropout_params(0.3)};
  for (int64_t n : {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100, 384, 769})
    for (const auto &row : {RowDropout{}, dropout}) check_rows(n, row);
  for (int64_t n : {1, 5, 16, 67, 300}) check_activations(n);
  for (int64_t m : {1, 3, 6, 14, 15, 29, 101})
    for (int64_t n : {1, 7, 16, 26, 32, 50, 96})
      for (int64_t k : {1, 5, 32, 259}) check_product(m, n, k);
  check_product(17, 40, 1600);
  check_product(3, 0, 4);
  check_product(0, 3, 4);
  if (failures == 0) std::printf("%s agrees\n", ROWS.level);
  return failures == 0 ? 0 : 1;
}
