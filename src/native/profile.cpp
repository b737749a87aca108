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

struct Spent {
  double seconds = 0;
  int64_t calls = 0;
};

std::mutex lock;
std::map<std::string, Spent> spent;
std::string report;
std::optional<at::CallbackHandle> handle;

// A running operation. `inside` is the time spent in the operations that it called, in seconds.
struct Open : at::ObserverContext {
  std::string name;
  Clock::time_point began;
  double inside = 0;
  Open *caller = nullptr;
};

thread_local Open *innermost = nullptr;

// The name of an operation. For a product, the sizes of both matrices follow, with a T after each
// matrix that is not contiguous (transposed).
std::string name_of(const at::RecordFunction &function) {
  std::string name = function.name();
  if (name != "aten::mm" && name != "aten::addmm" && name != "bitfit::product") return name;
  for (const auto &input : function.inputs()) {
    if (!input.isTensor() || input.toTensor().dim() != 2) continue;
    const auto sizes = input.toTensor().sizes();
    name += " " + std::to_string(sizes[0]) + "x" + std::to_string(sizes[1]) + (input.toTensor().is_contiguous() ? "" : "T");
  }
  return name;
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction &function) {
  auto open = std::make_unique<Open>();
  open->name = name_of(function);
  open->caller = innermost;
  innermost = open.get();
  open->began = Clock::now();
  return open;
}

void end(const at::RecordFunction &, at::ObserverContext *context) {
  auto *open = static_cast<Open *>(context);
  const double seconds = std::chrono::duration<double>(Clock::now() - open->began).count();
  innermost = open->caller;
  if (innermost) innermost->inside += seconds;
  const std::lock_guard<std::mutex> guard(lock);
  auto &entry = spent[open->name];
  entry.seconds += seconds - open->inside;
  entry.calls += 1;
}

}  // namespace
}  // namespace bitfit

using namespace bitfit;

int bitfit_profile_start() {
  return guarded([] {
    if (handle) return;
    handle = at::addGlobalCallback(at::RecordFunctionCallback(begin, end).needsInputs(true).scopes({at::RecordScope::FUNCTION, at::RecordScope::USER_SCOPE}));
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
    for (const auto &[name, entry] : spent) report += name + "\t" + std::to_string(entry.seconds) + "\t" + std::to_string(entry.calls) + "\n";
    *out = report.c_str();
  });
}
