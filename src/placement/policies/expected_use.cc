// ExpectedUse: see expected_use.h.
#include "src/placement/policies/expected_use.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace divvy::placement {
namespace {

constexpr size_t kMaxCpuSizes = 96;
constexpr size_t kCpuStarts = 2048;
constexpr size_t kMaxComputeSizes = 120;
constexpr size_t kMaxMemorySizes = 30;

// Sorted, distinct, and thinned to `most` by keeping every k-th (the largest always stays).
void Thin(std::vector<int32_t>* v, size_t most) {
  std::sort(v->begin(), v->end());
  v->erase(std::unique(v->begin(), v->end()), v->end());
  if (v->size() <= most) return;
  std::vector<int32_t> kept;
  for (size_t i = 1; i <= most; ++i) kept.push_back((*v)[i * v->size() / most - 1]);
  *v = std::move(kept);
}

// How many of the sizes are at most `amount`: the amount's bucket.
size_t Bucket(const std::vector<int32_t>& sizes, int32_t amount) {
  return static_cast<size_t>(std::upper_bound(sizes.begin(), sizes.end(), amount) - sizes.begin());
}
// The first bucket that can serve a request of this size.
size_t Needs(const std::vector<int32_t>& sizes, int32_t size) {
  return static_cast<size_t>(std::lower_bound(sizes.begin(), sizes.end(), size) - sizes.begin()) +
         1;
}

}  // namespace

void ExpectedUse::Learn(const std::vector<MixEntry>& entries, const Cluster& cluster,
                        const Weights& weights) {
  std::vector<int32_t> compute_sizes;
  cpu_sizes_.clear();
  memory_sizes_.clear();
  double total = 0;
  for (const MixEntry& e : entries) {
    total += e.count * (e.shape.devices + weights.base);
    if (e.shape.devices == 0) continue;
    cpu_sizes_.push_back(e.shape.cpu_milli);
    if (e.shape.devices == 1) compute_sizes.push_back(e.shape.compute_milli);
    if (e.shape.device_memory_mib > 0) memory_sizes_.push_back(e.shape.device_memory_mib);
  }
  Thin(&cpu_sizes_, kMaxCpuSizes);
  cpu_shift_ = 0;
  const auto most_cpu = static_cast<size_t>(cpu_sizes_.empty() ? 0 : cpu_sizes_.back());
  while (most_cpu >> cpu_shift_ >= kCpuStarts) ++cpu_shift_;
  cpu_start_.clear();
  for (size_t i = 0; i <= most_cpu >> cpu_shift_; ++i) {
    cpu_start_.push_back(
        static_cast<uint8_t>(Bucket(cpu_sizes_, static_cast<int32_t>(i << cpu_shift_))));
  }
  Thin(&compute_sizes, kMaxComputeSizes);
  Thin(&memory_sizes_, kMaxMemorySizes);
  for (int32_t c = 0; c <= kWholeMilli; ++c) {
    compute_bucket_[c] = static_cast<uint8_t>(Bucket(compute_sizes, c));
  }
  compute_buckets_ = compute_sizes.size() + 1;
  memory_buckets_ = memory_sizes_.empty() ? 1 : memory_sizes_.size() + 1;

  // Tables by model, slots by number of devices; models that no request tells apart share one.
  place_of_pool_.clear();
  std::vector<uint8_t> tables;  // one model of each table
  std::vector<int32_t> counts;  // devices of a node of each slot
  for (const Pool& pool : cluster.pools()) {
    const auto same = [&](uint8_t other) {
      return std::all_of(entries.begin(), entries.end(), [&](const MixEntry& e) {
        return (e.shape.models >> pool.model & 1) == (e.shape.models >> other & 1);
      });
    };
    const auto table = std::find_if(tables.begin(), tables.end(), same);
    const auto slot = std::find(counts.begin(), counts.end(), pool.devices);
    place_of_pool_.push_back({static_cast<uint16_t>(table - tables.begin()),
                              static_cast<uint16_t>(slot - counts.begin())});
    if (table == tables.end()) tables.push_back(pool.model);
    if (slot == counts.end()) counts.push_back(pool.devices);
  }
  slots_ = std::max<size_t>(1, counts.size());

  const size_t cpus = cpu_sizes_.size() + 1;
  const size_t cells = compute_buckets_ * memory_buckets_;
  std::vector<double> single(tables.size() * cpus * cells, 0);
  constexpr size_t kWide = kMaxDevices + 1;
  std::vector<double> multi(tables.size() * cpus * slots_ * kWide, 0);
  for (size_t t = 0; t < tables.size(); ++t) {
    for (const MixEntry& e : entries) {
      if (e.shape.devices == 0 || (e.shape.models >> tables[t] & 1) == 0) continue;
      const double share = e.count * (e.shape.devices + weights.base) / total;
      const size_t row = t * cpus + Needs(cpu_sizes_, e.shape.cpu_milli);
      if (e.shape.devices == 1) {
        const size_t c = Needs(compute_sizes, e.shape.compute_milli);
        const size_t m =
            e.shape.device_memory_mib > 0 ? Needs(memory_sizes_, e.shape.device_memory_mib) : 0;
        single[row * cells + c * memory_buckets_ + m] += share;
      } else if (e.shape.devices <= kMaxDevices) {
        const int32_t k = e.shape.devices;
        for (size_t i = 0; i < counts.size(); ++i) {
          for (int32_t whole = 1; whole <= counts[i] && k <= counts[i]; ++whole) {
            const double part =
                weights.near_part * std::pow(double(whole % k) / k, weights.near_power);
            multi[(row * slots_ + i) * kWide + static_cast<size_t>(whole)] +=
                share * weights.whole * kWholeMilli * k * (whole / k + part);
          }
        }
      }
    }
    // A device serves every request that needs no more CPU, compute and memory than it has.
    const auto add = [](std::vector<double>* v, size_t to, size_t from) { (*v)[to] += (*v)[from]; };
    for (size_t r = 0; r < cpus; ++r) {
      const size_t row = t * cpus + r;
      for (size_t c = 0; c < compute_buckets_; ++c) {
        for (size_t m = 1; m < memory_buckets_; ++m) {
          add(&single, row * cells + c * memory_buckets_ + m,
              row * cells + c * memory_buckets_ + m - 1);
        }
      }
      for (size_t i = memory_buckets_; i < cells; ++i) {
        add(&single, row * cells + i, row * cells + i - memory_buckets_);
      }
      if (r == 0) continue;
      for (size_t i = 0; i < cells; ++i) add(&single, row * cells + i, (row - 1) * cells + i);
      for (size_t i = 0; i < slots_ * kWide; ++i) {
        add(&multi, row * slots_ * kWide + i, (row - 1) * slots_ * kWide + i);
      }
    }
  }
  single_.resize(single.size());
  multi_.resize(multi.size());
  std::transform(single.begin(), single.end(), single_.begin(), [](double v) {
    return static_cast<int32_t>(std::lround(v * static_cast<double>(kOne)));
  });
  std::transform(multi.begin(), multi.end(), multi_.begin(),
                 [](double v) { return std::llround(v * static_cast<double>(kOne)); });
}

size_t ExpectedUse::MemoryBucket(int32_t memory_left) const {
  return Bucket(memory_sizes_, memory_left);
}

}  // namespace divvy::placement
