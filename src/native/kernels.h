// What the kernels over rows share: checks, and work on several threads.
#pragma once
#include "common.h"
#include "levels.h"

namespace bitfit {

// Checks that x is [R, C] and each vector [C]. `what` names the caller in the message.
inline void check_vectors(const at::Tensor &x, std::initializer_list<at::Tensor> vectors,
                          const char *what) {
  TORCH_CHECK(x.dim() == 2, what, ": [R, C] expected, found ", x.sizes());
  for (const auto &v : vectors)
    TORCH_CHECK(v.dim() == 1 && v.size(0) == x.size(1), what, ": a vector [", x.size(1),
                "] expected, found ", v.sizes());
}

// The functions of an activation. Throws if there is no such activation.
inline ActivationRow checked_activation_row(int64_t kind) {
  TORCH_CHECK(kind >= 0 && kind < ACTIVATION_COUNT, "no activation ", kind);
  return rows().activations[kind];
}

// Runs body(part, begin, end) over the rows, split into at most one part for each thread. The split
// depends only on the sizes and the number of threads, so that sums have the same order in every
// run. Returns the number of parts.
template <typename Body>
int64_t parallel_rows(int64_t rows, int64_t columns, Body body) {
  // A part of fewer entries would take less time than starting its thread.
  const int64_t worthwhile = std::max<int64_t>(1, rows * columns / 16384);
  const int64_t parts =
      std::max<int64_t>(1, std::min<int64_t>({at::get_num_threads(), rows, worthwhile}));
  at::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part)
      body(part, rows * part / parts, rows * (part + 1) / parts);
  });
  return parts;
}

// The largest number of parts that parallel_rows makes.
inline int64_t max_parts() { return std::max(1, at::get_num_threads()); }

// Adds the first `parts` rows of `sums`, which hold the sums of the parts.
inline at::Tensor sum_parts(const at::Tensor &sums, int64_t parts) {
  return parts == 1 ? sums[0] : sums.narrow(0, 0, parts).sum(0);
}

}  // namespace bitfit
