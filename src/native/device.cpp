// Devices other than the CPU: a flag that is copied from one, and settings of CUDA.
#include "common.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

using namespace bitfit;

// The copy on the host, and an event that the device records after the copy.
struct bitfit::Flag {
  at::Tensor host;
  c10::Event event;
};

int bitfit_flag_send(Flag **out, bitfit_tensor value) {
  return guarded([&] {
    const auto &given = ref(value);
    const auto type = given.device().type();
    const bool remote = !given.is_cpu();
    const auto options = given.options().device(at::kCPU).pinned_memory(remote);
    auto sent = std::make_unique<Flag>(Flag{at::empty({}, options), c10::Event(type)});
    sent->host.copy_(given, remote);
    if (remote) sent->event.record(c10::impl::VirtualGuardImpl(type).getStream(given.device()));
    *out = sent.release();
  });
}

int bitfit_flag_receive(Flag *flag, bool *out) {
  return guarded([&] {
    if (flag->event.was_marked_for_recording()) flag->event.synchronize();
    *out = flag->host.item<bool>();
  });
}

void bitfit_flag_free(Flag *flag) { delete flag; }

int bitfit_allow_tf32(bool allow) {
  return guarded([&] { at::globalContext().setAllowTF32CuBLAS(allow); });
}

int bitfit_release_gpu_memory() {
  return guarded([&] { c10::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache(); });
}

int bitfit_reset_gpu_peak(int64_t index) {
  return guarded([&] {
    c10::getDeviceAllocator(c10::DeviceType::CUDA)
        ->resetPeakStats(static_cast<c10::DeviceIndex>(index));
  });
}

int bitfit_pinned(bitfit_tensor *out, bitfit_tensor t) {
  // libtorch warns if it is told for which device.
  return guarded_tensor(out, [&] { return ref(t).pin_memory(); });
}

int bitfit_peak_gpu_bytes(int64_t *out, int64_t index) {
  return guarded([&] {
    const auto stats = c10::getDeviceAllocator(c10::DeviceType::CUDA)
                           ->getDeviceStats(static_cast<c10::DeviceIndex>(index));
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    *out = stats.allocated_bytes[all].peak;
  });
}
