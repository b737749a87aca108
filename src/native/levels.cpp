// Chooses the level of processor, for our kernels and, below the highest level, for libtorch's.
#include "levels.h"

#include "native.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace bitfit {

// Each level that build.rs compiles has a table.
#if defined(__x86_64__)
namespace avx512 {
extern const RowFunctions ROWS;
}
namespace avx2 {
extern const RowFunctions ROWS;
}
namespace sse2 {
extern const RowFunctions ROWS;
}
#elif defined(__aarch64__)
namespace neon {
extern const RowFunctions ROWS;
}
#else
namespace plain {
extern const RowFunctions ROWS;
}
#endif

namespace {

// A level, and the values by which ATen, oneDNN and MKL use at most its instructions. A level that
// is never below another has none.
struct Level {
  const RowFunctions &rows;
  const char *aten = nullptr, *onednn = nullptr, *mkl = nullptr;
};

// The levels that this processor has, the highest first.
const std::vector<Level> &levels() {
  static const std::vector<Level> found = [] {
    std::vector<Level> levels;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    if (v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
      levels.push_back({avx512::ROWS});
    if (v3) levels.push_back({avx2::ROWS, "avx2", "AVX2", "AVX2"});
    levels.push_back({sse2::ROWS, "default", "SSE41", "SSE4_2"});
#elif defined(__aarch64__)
    levels.push_back({neon::ROWS});
#else
    levels.push_back({plain::ROWS});
#endif
    return levels;
  }();
  return found;
}

const Level &chosen() {
  static const Level &level = []() -> const Level & {
    const char *name = std::getenv("BITFIT_CPU_LEVEL");
    for (const auto &level : levels())
      if (name && std::strcmp(level.rows.level, name) == 0) return level;
    return levels().front();
  }();
  return level;
}

// ATen, oneDNN and MKL read these variables at their first operation. What is set already stays.
__attribute__((constructor)) void limit_libtorch() {
  const auto &level = chosen();
  if (&level == &levels().front()) return;
  setenv("ATEN_CPU_CAPABILITY", level.aten, 0);
  setenv("ONEDNN_MAX_CPU_ISA", level.onednn, 0);
  setenv("MKL_ENABLE_INSTRUCTIONS", level.mkl, 0);
}

}  // namespace

const RowFunctions &rows() {
  static const RowFunctions &found = chosen().rows;
  return found;
}

}  // namespace bitfit

const char *bitfit_cpu_level() { return bitfit::rows().level; }

const char *bitfit_cpu_levels() {
  static const std::string names = [] {
    std::string names;
    for (const auto &level : bitfit::levels()) {
      if (!names.empty()) names += ' ';
      names += level.rows.level;
    }
    return names;
  }();
  return names.c_str();
}
