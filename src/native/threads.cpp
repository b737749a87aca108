// Makes libtorch's thread count agree with OpenMP's teams. OMP_THREAD_LIMIT, OMP_DYNAMIC and
// OMP_MAX_ACTIVE_LEVELS can make a team smaller than libtorch expects. oneDNN divides its work
// before it opens a team, and then leaves a part of the result unwritten.
#include "common.h"

#include <chrono>
#include <future>
#include <system_error>
#include <thread>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace bitfit {
namespace {

// Returns how many of `wanted` threads the system can start, with some spare ones for other work.
// OpenMP ends the process if it cannot start a thread.
int startable(int wanted) {
  constexpr int spare = 8;
  std::vector<std::thread> threads;
  std::promise<void> begun;
  const auto all = begun.get_future().share();
  try {
    while (static_cast<int>(threads.size()) < wanted - 1 + spare)
      threads.emplace_back([all] { all.wait(); });
  } catch (const std::system_error &) {
  }
  begun.set_value();
  for (auto &thread : threads) thread.join();
  const int most = static_cast<int>(threads.size()) - spare + 1;
  if (most >= wanted) return wanted;
  // A thread counts against the limit for a short while after it was joined.
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  return std::max(most, 1);
}

// Returns how many threads a team of the calling thread gets. omp_set_dynamic applies to the
// calling thread only, so that each thread must call it.
int team(int wanted) {
  int size = 1;
#ifdef _OPENMP
  omp_set_dynamic(0);
  if (wanted > 1) omp_set_num_threads(startable(wanted));
#pragma omp parallel
#pragma omp single
  size = omp_get_num_threads();
#endif
  return size;
}

}  // namespace

Threads fit_threads() {
  // The calling thread's count after the last check of its teams.
  thread_local int fitted = 0;
  const int wanted = at::get_num_threads();
  if (wanted == fitted) return {wanted, wanted};
  const int found = team(wanted);
  if (found < wanted) at::set_num_threads(found);
  fitted = at::get_num_threads();
  return {wanted, found};
}

}  // namespace bitfit

int bitfit_fit_threads(int64_t *wanted, int64_t *found) {
  return bitfit::guarded([&] {
    const auto threads = bitfit::fit_threads();
    *wanted = threads.wanted;
    *found = threads.found;
  });
}

int bitfit_set_thread_count(int64_t wanted, int64_t *before) {
  return bitfit::guarded([&] {
    // at::get_num_threads sets the thread's count where it is first called in that thread; later
    // calls leave our count alone.
    *before = at::get_num_threads();
#ifdef _OPENMP
    omp_set_num_threads(static_cast<int>(wanted));
#endif
  });
}
