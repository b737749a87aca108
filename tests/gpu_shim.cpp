// Runs the kernels of src/native/gpu/kernels.cu on the CPU: CUDA's names for one thread at a time.
// The threads of a block are fibers that take turns. Each runs until it waits for the others, at
// __syncthreads or a shuffle, so that shared memory and shuffles work as on a device.
// A switch by setjmp and longjmp makes no system call; longjmp's own check takes a switch of stacks
// for an error.
#undef _FORTIFY_SOURCE
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#define __device__
#define __forceinline__ inline
// Fibers are of one thread, and blocks run one after the other.
#define __shared__ static

struct Index {
  unsigned x, y;
};
static Index blockIdx, gridDim, threadIdx;
static std::vector<float> shared_space;

static constexpr int THREADS_ = 128, WARP_ = 32;
static jmp_buf scheduler, fibers[THREADS_];
static bool done[THREADS_];
static float lanes[THREADS_];

// Lets the other threads run.
static void yield() {
  const unsigned mine = threadIdx.x;
  if (_setjmp(fibers[mine]) == 0) _longjmp(scheduler, 1);
  threadIdx.x = mine;
}

// Where `expected` threads wait for each other. A thread that has ended is not expected.
struct Barrier {
  unsigned expected, arrived, passed;

  void wait() {
    const unsigned turn = passed;
    ++arrived;
    release();
    while (turn == passed) yield();
  }

  void leave() {
    --expected;
    release();
  }

 private:
  void release() {
    if (arrived == 0 || arrived < expected) return;
    arrived = 0;
    ++passed;
  }
};
static Barrier block_barrier, warp_barriers[THREADS_ / WARP_];

static inline void __syncthreads() { block_barrier.wait(); }
static inline float __shfl_xor_sync(unsigned, float value, int offset) {
  const unsigned mine = threadIdx.x;
  auto &warp = warp_barriers[mine / WARP_];
  lanes[mine] = value;
  warp.wait();
  const float other = lanes[(mine & ~(WARP_ - 1)) | ((mine ^ offset) & (WARP_ - 1))];
  warp.wait();
  return other;
}
static inline float __uint_as_float(uint32_t x) { return __builtin_bit_cast(float, x); }
static inline uint32_t __float_as_uint(float x) { return __builtin_bit_cast(uint32_t, x); }

using Kernel = void (*)(const void *args);
static std::map<std::string, Kernel> &kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}
struct Registered {
  Registered(const char *name, Kernel kernel) { kernels()[name] = kernel; }
};

#define BITFIT_KERNEL(name, Args)                                               \
  static void name(const Args args);                                            \
  static const Registered registered_##name(                                    \
      #name, [](const void *args) { name(*static_cast<const Args *>(args)); }); \
  static void name(const Args args)
#define BITFIT_SHARED(name) float *const name = shared_space.data()

#include "gpu/kernels.cu"

static Kernel running;
static const void *arguments;

// A thread runs one block after the other.
static void fiber() {
  for (;;) {
    yield();
    running(arguments);
    done[threadIdx.x] = true;
    block_barrier.leave();
    warp_barriers[threadIdx.x / WARP_].leave();
  }
}

static void make_fibers() {
  constexpr size_t SIZE = 1 << 16;
  static std::vector<char> stacks(THREADS_ * SIZE);
  for (unsigned t = 0; t < THREADS_; ++t) {
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks.data() + t * SIZE;
    context.uc_stack.ss_size = SIZE;
    makecontext(&context, fiber, 0);
    threadIdx = {t, 0};
    if (_setjmp(scheduler) == 0) setcontext(&context);
  }
}

static void run_block() {
  static const bool made = (make_fibers(), true);
  (void)made;
  static unsigned t;
  static bool any;
  std::fill(done, done + THREADS_, false);
  block_barrier = {THREADS_, 0, 0};
  for (auto &warp : warp_barriers) warp = {WARP_, 0, 0};
  do {
    any = false;
    for (t = 0; t < THREADS_; ++t) {
      if (done[t]) continue;
      any = true;
      threadIdx = {t, 0};
      if (_setjmp(scheduler) == 0) _longjmp(fibers[t], 1);
    }
  } while (any);
}

// Runs a kernel, as the driver's cuLaunchKernel does. Returns 0, or 1 if there is no such kernel.
extern "C" int bitfit_launch_on_cpu(const char *name, unsigned grid_x, unsigned grid_y,
                                    unsigned shared_bytes, const void *args) {
  static std::mutex one;
  const std::lock_guard<std::mutex> lock(one);
  const auto found = kernels().find(name);
  if (found == kernels().end()) return 1;
  // Memory that a kernel may not count on to be zero.
  shared_space.assign(shared_bytes / sizeof(float), NAN);
  running = found->second;
  arguments = args;
  gridDim = {grid_x, grid_y};
  for (unsigned y = 0; y < grid_y; ++y)
    for (unsigned x = 0; x < grid_x; ++x) {
      blockIdx = {x, y};
      run_block();
    }
  return 0;
}
