// Helpers that the files with libtorch share.
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

// The tensor, or an undefined tensor for null.
inline at::Tensor ref_or_undefined(bitfit_tensor t) { return t ? ref(t) : at::Tensor(); }

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

// Like `guarded`, for a body that returns a tensor. Stores a handle to it, which the caller owns.
template <typename Body>
int guarded_tensor(bitfit_tensor *out, Body body) {
  return guarded([&] { *out = new at::Tensor(body()); });
}

// The number of threads that libtorch counted on for the calling thread, and the number that OpenMP
// gives it.
struct Threads {
  int wanted, found;
};

// Sets libtorch's thread count to the number of threads that OpenMP gives the calling thread.
// Repeated calls take a few nanoseconds.
Threads fit_threads();

// Drops the pages of a mapped file that lie in this tensor's memory, whole pages only. They are
// read again when they are needed. Does nothing to other memory.
void forget(const at::Tensor &t);

// Whether our loops for the CPU handle this tensor. Other devices and kinds use tensor operations.
inline bool is_cpu_fp32(const at::Tensor &x) { return x.is_cpu() && x.scalar_type() == at::kFloat; }

// Whether any input requires a gradient. Call it outside a Function's forward, where gradients are
// disabled.
inline bool any_requires_grad(std::initializer_list<at::Tensor> inputs) {
  const auto requires_grad = [](const at::Tensor &t) { return t.defined() && t.requires_grad(); };
  return at::GradMode::is_enabled() && std::any_of(inputs.begin(), inputs.end(), requires_grad);
}

// Whether this is the only reference to the tensor and to its storage, so that its memory may be
// reused.
inline bool is_sole_owner(const at::Tensor &t) {
  return t.use_count() == 1 && t.storage().use_count() == 1;
}

// Marks the rest of the scope as one operation in the profile. `name` is evaluated only while a
// profile runs.
#define BITFIT_PROFILED(name) RECORD_FUNCTION(name, c10::ArrayRef<const c10::IValue>{})

}  // namespace bitfit
