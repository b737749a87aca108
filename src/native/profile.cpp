// The profile: an observer of every operation of libtorch and of bitfit. It sums up the seconds in
// each, without those of the operations that it calls.
#include "common.h"

#include <ATen/record_function.h>

#include <chrono>
#include <map>
#include <mutex>
#include <vector>

namespace bitfit {
namespace {

using Clock = std::chrono::steady_clock;

struct Total {
  double seconds = 0;
  int64_t calls = 0;
};

std::mutex lock;
std::map<std::string, Total> totals;
std::string report;
std::optional<at::CallbackHandle> handle;

// A running operation. `in_callees` counts the seconds in the operations that it called.
struct RunningOp : at::ObserverContext {
  std::string name;
  Clock::time_point start;
  double in_callees = 0;
  RunningOp *caller = nullptr;
};

thread_local RunningOp *innermost = nullptr;

// The name of an operation. For a product, the sizes of both matrices follow, with a T after each
// matrix that is not contiguous (transposed).
std::string name_of(const at::RecordFunction &function) {
  std::string name = function.name();
  if (name != "aten::mm" && name != "aten::addmm" && name != "bitfit::product") return name;
  for (const auto &input : function.inputs()) {
    if (!input.isTensor() || input.toTensor().dim() != 2) continue;
    const auto sizes = input.toTensor().sizes();
    name += ' ';
    name += std::to_string(sizes[0]) + "x" + std::to_string(sizes[1]);
    if (!input.toTensor().is_contiguous()) name += 'T';
  }
  return name;
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction &function) {
  auto op = std::make_unique<RunningOp>();
  op->name = name_of(function);
  op->caller = innermost;
  innermost = op.get();
  op->start = Clock::now();
  return op;
}

void end(const at::RecordFunction &, at::ObserverContext *context) {
  auto *op = static_cast<RunningOp *>(context);
  const double seconds = std::chrono::duration<double>(Clock::now() - op->start).count();
  innermost = op->caller;
  if (innermost) innermost->in_callees += seconds;
  const std::lock_guard<std::mutex> guard(lock);
  auto &entry = totals[op->name];
  entry.seconds += seconds - op->in_callees;
  entry.calls += 1;
}

}  // namespace
}  // namespace bitfit

using namespace bitfit;

int bitfit_profile_start() {
  return guarded([] {
    if (handle) return;
    handle = at::addGlobalCallback(
        at::RecordFunctionCallback(begin, end)
            .needsInputs(true)
            .scopes({at::RecordScope::FUNCTION, at::RecordScope::USER_SCOPE}));
  });
}

int bitfit_profile_stop() {
  return guarded([] {
    if (!handle) return;
    at::removeCallback(*handle);
    handle.reset();
  });
}

int bitfit_profile_report(const char **out) {
  return guarded([&] {
    const std::lock_guard<std::mutex> guard(lock);
    report.clear();
    for (const auto &[name, entry] : totals)
      report +=
          name + "\t" + std::to_string(entry.seconds) + "\t" + std::to_string(entry.calls) + "\n";
    *out = report.c_str();
  });
}
