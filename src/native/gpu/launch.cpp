#include "launch.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <unordered_map>

namespace bitfit::gpu {
namespace {

// What is used of the driver, libcuda.so.1, whose header we do without. A CUresult is 0 on success.
struct Driver {
  int (*load)(void **module, const void *image);
  int (*function)(void **function, void *module, const char *name);
  int (*launch)(void *function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                unsigned shared_bytes, void *stream, void **arguments, void **extra);
  int (*attribute)(int *value, int attribute, int device);
  int (*name)(char *name, int length, int device);
  int (*error_name)(int code, const char **name);
  int (*current_context)(void **context);
  int (*set_current_context)(void *context);
  int (*primary_context)(void **context, int device);

  // The driver, or null where there is none.
  static const Driver *get() {
    static const Driver *found = []() -> const Driver * {
      void *library = dlopen("libcuda.so.1", RTLD_NOW);
      if (!library) return nullptr;
      static Driver driver;
      const auto find = [&](auto &function, const char *name) {
        function =
            reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
        return function != nullptr;
      };
      const bool all =
          find(driver.load, "cuModuleLoadData") && find(driver.function, "cuModuleGetFunction") &&
          find(driver.launch, "cuLaunchKernel") && find(driver.attribute, "cuDeviceGetAttribute") &&
          find(driver.name, "cuDeviceGetName") && find(driver.error_name, "cuGetErrorName") &&
          find(driver.current_context, "cuCtxGetCurrent") &&
          find(driver.set_current_context, "cuCtxSetCurrent") &&
          find(driver.primary_context, "cuDevicePrimaryCtxRetain");
      return all ? &driver : nullptr;
    }();
    return found;
  }

  void check(int code, const char *what) const {
    if (code == 0) return;
    const char *name = nullptr;
    error_name(code, &name);
    // libtorch's own errors have these words, by which a lack of memory is recognized.
    const char *begin = code == 2 ? "CUDA out of memory" : "CUDA error";
    TORCH_CHECK(false, begin, ": ", what, ": ", name ? name : "unknown error");
  }
};

// The compiled kernels of a device.
struct Module {
  void *handle = nullptr;
  std::mutex mutex;
  std::unordered_map<std::string, void *> functions;
};

constexpr int64_t MOST_DEVICES = 64;
std::atomic<Module *> modules[MOST_DEVICES];

Module *module_of(const at::Tensor &x) {
  const auto index = x.device().index();
  return index >= 0 && index < MOST_DEVICES ? modules[index].load() : nullptr;
}

// Tests set BITFIT_KERNELS_ON_CPU to a library that runs the kernels on the CPU.
using LaunchOnCpu = int (*)(const char *name, unsigned grid_x, unsigned grid_y,
                            unsigned shared_bytes, const void *args);
LaunchOnCpu launch_on_cpu() {
  static const auto found = []() -> LaunchOnCpu {
    const char *path = std::getenv("BITFIT_KERNELS_ON_CPU");
    if (!path) return nullptr;
    void *library = dlopen(path, RTLD_NOW);
    void *function = library ? dlsym(library, "bitfit_launch_on_cpu") : nullptr;
    TORCH_CHECK(function, "BITFIT_KERNELS_ON_CPU: ", dlerror());
    return reinterpret_cast<LaunchOnCpu>(function);
  }();
  return found;
}

}  // namespace

const char *kind_name(at::ScalarType kind) {
  switch (kind) {
    case at::kFloat:
      return "fp32";
    case at::kBFloat16:
      return "bf16";
    case at::kHalf:
      return "fp16";
    default:
      return nullptr;
  }
}

bool has_kernels(const at::Tensor &x) {
  if (!kind_name(x.scalar_type())) return false;
  return x.is_cuda() ? module_of(x) != nullptr : x.is_cpu() && launch_on_cpu();
}

int64_t capability(const at::Tensor &x) {
  const auto *driver = Driver::get();
  if (!x.is_cuda() || !driver) return 0;
  // It is asked for in each layer of each step.
  static std::atomic<int64_t> known[MOST_DEVICES];
  const auto index = static_cast<size_t>(x.device().index());
  if (index < MOST_DEVICES && known[index]) return known[index];
  constexpr int MAJOR = 75, MINOR = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
  int major = 0, minor = 0;
  driver->check(driver->attribute(&major, MAJOR, x.device().index()), "the compute capability");
  driver->check(driver->attribute(&minor, MINOR, x.device().index()), "the compute capability");
  const int64_t found = 10 * major + minor;
  if (index < MOST_DEVICES) known[index] = found;
  return found;
}

void launch(const at::Tensor &on, const std::string &name, Grid grid, int64_t shared,
            const void *args) {
  RECORD_FUNCTION("bitfit::kernel " + name, c10::ArrayRef<const c10::IValue>{});
  const auto x = static_cast<unsigned>(grid.x), y = static_cast<unsigned>(grid.y);
  const auto bytes = static_cast<unsigned>(shared * sizeof(float));
  if (on.is_cpu()) {
    TORCH_CHECK(launch_on_cpu()(name.c_str(), x, y, bytes, args) == 0, "no kernel ", name);
    return;
  }
  auto *module = module_of(on);
  const auto &driver = *Driver::get();
  void *function;
  {
    const std::lock_guard<std::mutex> lock(module->mutex);
    auto &known = module->functions[name];
    if (!known) driver.check(driver.function(&known, module->handle, name.c_str()), name.c_str());
    function = known;
  }
  const c10::OptionalDeviceGuard on_device(on.device());
  // A thread of the backward pass has no context until it calls CUDA's runtime.
  void *context = nullptr;
  driver.check(driver.current_context(&context), "the current context");
  if (!context) {
    driver.check(driver.primary_context(&context, on.device().index()), "the device's context");
    driver.check(driver.set_current_context(context), "the device's context");
  }
  const c10::impl::VirtualGuardImpl streams(c10::DeviceType::CUDA);
  void *arguments[] = {const_cast<void *>(args)};
  driver.check(driver.launch(function, x, y, 1, THREADS, 1, 1, bytes,
                             streams.getStream(on.device()).native_handle(), arguments, nullptr),
               name.c_str());
}

std::string kernel_name(const char *what, int64_t columns,
                        std::initializer_list<at::Tensor> matrices) {
  const auto is_aligned = [](const at::Tensor &t) {
    const auto address = reinterpret_cast<uintptr_t>(t.data_ptr());
    return address % (4 * t.element_size()) == 0;
  };
  bool aligned = columns % 4 == 0;
  const char *kind = nullptr;
  for (const auto &matrix : matrices) {
    if (!matrix.defined()) continue;
    aligned = aligned && is_aligned(matrix);
    if (!kind) kind = kind_name(matrix.scalar_type());
  }
  return std::string(what) + "_" + kind + (aligned ? "_4" : "_1");
}

}  // namespace bitfit::gpu

using namespace bitfit;

int bitfit_kernels_load(int64_t device, const void *image) {
  return guarded([&] {
    const auto *driver = gpu::Driver::get();
    TORCH_CHECK(driver, "no driver: libcuda.so.1 cannot be loaded");
    TORCH_CHECK(device >= 0 && device < gpu::MOST_DEVICES, "no device ", device);
    const at::Device place(at::kCUDA, static_cast<c10::DeviceIndex>(device));
    const c10::OptionalDeviceGuard guard(place);
    // The first tensor on a device makes its context.
    at::empty({1}, at::TensorOptions().device(place));
    auto module = std::make_unique<gpu::Module>();
    driver->check(driver->load(&module->handle, image), "loading the kernels");
    // A kernel of an earlier call may be running: its module stays.
    gpu::modules[device].store(module.release());
  });
}

int bitfit_capability(int64_t *out, int64_t device) {
  return guarded([&] {
    const at::Device place(at::kCUDA, static_cast<c10::DeviceIndex>(device));
    *out = gpu::capability(at::empty({0}, at::TensorOptions().device(place)));
  });
}

int bitfit_gpu_name(const char **out, int64_t device) {
  return guarded([&] {
    thread_local char name[256];
    const auto *driver = gpu::Driver::get();
    TORCH_CHECK(driver, "no driver: libcuda.so.1 cannot be loaded");
    driver->check(driver->name(name, sizeof name, static_cast<int>(device)), "the device's name");
    *out = name;
  });
}
