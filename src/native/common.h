// What the C++ files share.
#pragma once
#include "native.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <string>

namespace bitfit {

// The calling thread's last error, for bitfit_last_error().
extern thread_local std::string last_error;

inline at::Tensor &ref(bitfit_tensor t) { return *static_cast<at::Tensor *>(t); }

// A tensor that may be missing.
inline at::Tensor maybe(bitfit_tensor t) { return t ? ref(t) : at::Tensor(); }

template <typename Body>
int guarded(Body body) {
  try {
    body();
    return 0;
  } catch (const c10::Error &e) {
    last_error = e.what_without_backtrace();
  } catch (const std::exception &e) {
    last_error = e.what();
  } catch (...) {
    last_error = "unknown C++ exception";
  }
  return 1;
}

// How many threads libtorch counted on for the calling thread, and how many OpenMP gives it.
struct Threads {
  int wanted, found;
};

// Makes libtorch count on as many threads as OpenMP gives the calling thread; a few nanoseconds once that is done.
Threads fit_threads();

// Whether the CPU's own loops are for this tensor; every other device and kind goes by tensor operations.
inline bool fast(const at::Tensor &x) { return x.is_cpu() && x.scalar_type() == at::kFloat; }

// Whether anything here has a gradient. Inside a Function's forward that is no longer known.
inline bool learns(std::initializer_list<at::Tensor> inputs) {
  return at::GradMode::is_enabled() && std::any_of(inputs.begin(), inputs.end(), [](const at::Tensor &t) { return t.defined() && t.requires_grad(); });
}

// Whether nobody else holds the tensor, or another that looks into its memory.
inline bool alone(const at::Tensor &t) { return t.use_count() == 1 && t.storage().use_count() == 1; }

// A part of a step for the profile; its name is made only for one.
#define BITFIT_PART(name) RECORD_FUNCTION(name, c10::ArrayRef<const c10::IValue>{})

// A loop compiled for each generation of processors, chosen when the library is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define BITFIT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define BITFIT_CLONES
#endif
// Into each of them.
#define BITFIT_INLINE static inline __attribute__((always_inline))

}  // namespace bitfit
