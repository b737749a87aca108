// A pool for large CPU tensors. The tensors of a step have a few sizes, which vary a little from
// batch to batch. glibc would leave holes that the next tensors do not fit, or take fresh pages
// from the system each time. The pool keeps a freed block for the next tensor of about its size. A
// free block that is slightly too small is freed before its larger replacement is allocated.
#include "common.h"

#include <ATen/MapAllocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <unordered_map>

namespace bitfit {
namespace {

constexpr size_t SMALL = size_t(1) << 16, ALIGNMENT = 64, HUGE_PAGE = size_t(1) << 21;

size_t rounded(size_t size) { return (size + SMALL - 1) / SMALL * SMALL; }

// Allocates a block, in huge pages if it spans at least two. A step touches far more memory than
// the TLB covers with small pages.
void *fresh(size_t size) {
  const bool huge = size >= 2 * HUGE_PAGE;
  void *block = nullptr;
  // Not aligned_alloc, which takes only sizes that are multiples of the alignment.
  if (posix_memalign(&block, huge ? HUGE_PAGE : ALIGNMENT, size) != 0) return nullptr;
#ifdef MADV_HUGEPAGE
  if (huge) madvise(block, size, MADV_HUGEPAGE);
#endif
  return block;
}

class Pool final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override {
    void *data = size < SMALL ? c10::alloc_cpu(size) : take(rounded(size));
    return {data, data, &give_back, c10::Device(c10::kCPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }

  void copy_data(void *to, const void *from, std::size_t count) const override {
    default_copy_data(to, from, count);
  }

  // Returns the free blocks to the system.
  void empty() {
    const std::lock_guard<std::mutex> guard(lock);
    while (!free.empty()) drop(free.begin());
  }

 private:
  using Free = std::multimap<size_t, void *>;

  std::mutex lock;
  // Free blocks, by size.
  Free free;
  // The sizes of all blocks of the pool.
  std::unordered_map<void *, size_t> sizes;

  void drop(Free::iterator block) {
    sizes.erase(block->second);
    std::free(block->second);
    free.erase(block);
  }

  void *take(size_t size) {
    {
      const std::lock_guard<std::mutex> guard(lock);
      const auto found = free.lower_bound(size);
      if (found != free.end() && found->first <= size + size / 4) {
        void *block = found->second;
        free.erase(found);
        return block;
      }
      if (found != free.begin() && std::prev(found)->first >= size - size / 4)
        drop(std::prev(found));
    }
    void *block = fresh(size);
    if (!block) {
      empty();
      block = fresh(size);
    }
    // libtorch's own message: callers recognise out-of-memory errors by it.
    TORCH_CHECK(block, "DefaultCPUAllocator: can't allocate memory: you tried to allocate ", size,
                " bytes.");
    const std::lock_guard<std::mutex> guard(lock);
    sizes[block] = size;
    return block;
  }

  static void give_back(void *block);
};

Pool &pool() {
  // Never destroyed: tensors may outlive it.
  static Pool *pool = new Pool;
  return *pool;
}

void Pool::give_back(void *block) {
  auto &p = pool();
  {
    const std::lock_guard<std::mutex> guard(p.lock);
    const auto found = p.sizes.find(block);
    if (found != p.sizes.end()) {
      p.free.emplace(found->second, block);
      return;
    }
  }
  c10::free_cpu(block);
}

}  // namespace

void forget(const at::Tensor &t) {
#ifdef MADV_DONTNEED
  if (!t.is_contiguous() || !at::MapAllocator::fromDataPtr(t.storage().data_ptr())) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(t.const_data_ptr());
  const auto first = (begin + page - 1) / page * page, end = (begin + t.nbytes()) / page * page;
  // The mapping is private and was never written to, so that the file has the same bytes.
  if (first < end) madvise(reinterpret_cast<void *>(first), end - first, MADV_DONTNEED);
#endif
}

}  // namespace bitfit

void bitfit_forget(bitfit_tensor t) { bitfit::forget(bitfit::ref(t)); }

void bitfit_pool_use() { c10::SetCPUAllocator(&bitfit::pool(), 1); }

void bitfit_pool_empty() { bitfit::pool().empty(); }
