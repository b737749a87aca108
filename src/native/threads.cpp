// OpenMP's teams, as large as libtorch counts on. OMP_THREAD_LIMIT, OMP_DYNAMIC and OMP_MAX_ACTIVE_LEVELS make them smaller, and oneDNN, which
// shares its work out before it opens a team, then leaves a part of the result unwritten.
#include "common.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace bitfit {
namespace {

// How many threads a team of the calling thread has. Whether its size may vary is the calling thread's own setting.
int team() {
  int size = 1;
#ifdef _OPENMP
  omp_set_dynamic(0);
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
  const int found = team();
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
