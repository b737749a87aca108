// OpenMP's teams, as large as libtorch counts on. OMP_THREAD_LIMIT, OMP_DYNAMIC and OMP_MAX_ACTIVE_LEVELS make them smaller, and oneDNN, which
// shares its work out before it opens a team, then leaves a part of the result unwritten.
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

// How many of `wanted` threads the system lets a team have: OpenMP ends the process where it cannot start one. Some are left for other work.
int startable(int wanted) {
  constexpr int spare = 8;
  std::vector<std::thread> threads;
  std::promise<void> begun;
  const auto all = begun.get_future().share();
  try {
    while (static_cast<int>(threads.size()) < wanted - 1 + spare) threads.emplace_back([all] { all.wait(); });
  } catch (const std::system_error &) {
  }
  begun.set_value();
  for (auto &thread : threads) thread.join();
  const int most = static_cast<int>(threads.size()) - spare + 1;
  if (most >= wanted) return wanted;
  // A thread counts a little longer than until it is joined.
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  return std::max(most, 1);
}

// How many threads a team of the calling thread has. Whether its size may vary is the calling thread's own setting.
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
  // What the calling thread counted on when its teams were last counted.
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
