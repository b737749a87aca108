// Products with frozen weights. A weight that does not change is copied once into panels, which a
// product reads from the first to the last byte. libtorch's products would rearrange it each time.
#include "packed.h"

#include "levels.h"

#include <map>
#include <tuple>

namespace bitfit {
namespace {

int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The matrix [k, n] in panels; `from` is the matrix, or its transpose [n, k].
at::Tensor panels(const at::Tensor &from, bool is_transposed) {
  const auto width = rows().panel_columns;
  const int64_t n = from.size(is_transposed ? 0 : 1), k = from.size(is_transposed ? 1 : 0);
  const int64_t row = is_transposed ? 1 : n, column = is_transposed ? k : 1;
  auto values = at::empty({divided_up(n, width), k, width}, from.options());
  const float *data = from.const_data_ptr<float>();
  float *to = values.mutable_data_ptr<float>();
  const auto pack = rows().pack_panel;
  at::parallel_for(0, values.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      pack({k, std::min(width, n - p * width), data + p * width * column, row, column,
            to + p * k * width});
  });
  forget(from);
  return values;
}

// How a product is divided among threads: into parts of rows, and of panels.
struct Grid {
  int64_t by_rows, by_panels;
};

// The grid in which the longest part is shortest, for m rows of x in tiles and n columns of the
// weight in panels. Of several, the one whose parts read least together: each part of rows reads
// the whole weight, and each part of panels reads the whole of x.
Grid grid(int64_t m, int64_t tiles, int64_t n, int64_t panels) {
  const int64_t threads = at::get_num_threads();
  Grid best{1, 1};
  auto least = std::pair(tiles * panels, m + n);
  for (int64_t by_panels = 1; by_panels <= std::min(threads, panels); ++by_panels) {
    const int64_t by_rows = std::min(threads / by_panels, tiles);
    const int64_t longest = divided_up(tiles, by_rows) * divided_up(panels, by_panels);
    const auto cost = std::pair(longest, by_panels * m + by_rows * n);
    if (cost < least) {
      least = cost;
      best = {by_rows, by_panels};
    }
  }
  return best;
}

// The name in the profile, followed by the sizes of x and of the weight.
std::string profile_name(const at::Tensor &x, int64_t n) {
  const auto k = std::to_string(x.size(1));
  return "bitfit::packed_product " + std::to_string(x.size(0)) + "x" + k + " " + std::to_string(n) +
         "x" + k;
}

// x [R, K] times a matrix [K, n] in panels, plus bias [n] if given.
at::Tensor multiply(const at::Tensor &x, const at::Tensor &panels, int64_t n,
                    const std::optional<at::Tensor> &bias) {
  BITFIT_PROFILED(profile_name(x, n));
  const auto &functions = rows();
  const int64_t m = x.size(0), k = x.size(1), height = functions.tile_rows;
  const int64_t width = functions.panel_columns;
  auto y = at::empty({m, n}, x.options());
  if (m == 0) return y;
  const auto vector = bias ? bias->contiguous() : at::Tensor();
  const float *a = x.const_data_ptr<float>(), *b = panels.const_data_ptr<float>();
  const float *added = bias ? vector.const_data_ptr<float>() : nullptr;
  float *c = y.mutable_data_ptr<float>();
  const int64_t tiles = divided_up(m, height), count = panels.size(0);
  const auto [by_rows, by_panels] = grid(m, tiles, n, count);
  at::parallel_for(
      0, by_rows * by_panels, 1,
      [&, by_rows = by_rows, by_panels = by_panels](int64_t begin, int64_t end) {
        for (int64_t part = begin; part < end; ++part) {
          const int64_t r = part / by_panels, p = part % by_panels;
          const int64_t top = tiles * r / by_rows * height;
          const int64_t bottom = std::min(m, tiles * (r + 1) / by_rows * height);
          const int64_t first = count * p / by_panels * width;
          const int64_t last = std::min(n, count * (p + 1) / by_panels * width);
          functions.multiply({bottom - top, last - first, k, 1.0f, a + top * k, k, 1, b + first * k,
                              0, added ? added + first : nullptr, false, c + top * n + first, n});
        }
      });
  return y;
}

using Place = std::tuple<const void *, int64_t, int64_t>;

struct Entry {
  c10::weak_intrusive_ptr<c10::StorageImpl> storage;
  uint32_t version;
  std::shared_ptr<PackedWeight> packed;
};

std::mutex lock;

std::map<Place, Entry> &entries() {
  // Never destroyed: threads may multiply while the process exits.
  static auto *entries = new std::map<Place, Entry>;
  return *entries;
}

uint32_t version(const at::Tensor &weight) {
  return weight.unsafeGetTensorImpl()->version_counter().current_version();
}

}  // namespace

bool is_packable(const at::Tensor &weight) {
  return is_cpu_fp32(weight) && !weight.requires_grad() && weight.is_contiguous() &&
         !weight.is_inference() && weight.size(0) >= rows().panel_columns;
}

std::shared_ptr<PackedWeight> packed(const at::Tensor &weight) {
  const Place place{weight.const_data_ptr(), weight.size(0), weight.size(1)};
  auto storage = weight.storage().getWeakStorageImpl();
  const std::lock_guard<std::mutex> guard(lock);
  auto &all = entries();
  const auto found = all.find(place);
  if (found != all.end() && found->second.storage == storage &&
      found->second.version == version(weight))
    return found->second.packed;
  std::erase_if(all, [](const auto &entry) { return entry.second.storage.expired(); });
  auto made = std::make_shared<PackedWeight>();
  all.insert_or_assign(place, Entry{std::move(storage), version(weight), made});
  return made;
}

at::Tensor PackedWeight::product(const at::Tensor &x, const at::Tensor &weight,
                                 const std::optional<at::Tensor> &bias) {
  std::call_once(forward.filled, [&] { forward.values = panels(weight, true); });
  return multiply(x, forward.values, weight.size(0), bias);
}

at::Tensor PackedWeight::gradient(const at::Tensor &grad_y, const at::Tensor &weight) {
  std::call_once(backward.filled, [&] { backward.values = panels(weight, false); });
  return multiply(grad_y, backward.values, weight.size(1), std::nullopt);
}

}  // namespace bitfit
