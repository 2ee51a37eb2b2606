// ExpectedUse: see expected_use.h.
#include "src/placement/policies/expected_use.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>
#include <map>

namespace divvy::placement {
namespace {

constexpr size_t kMaxSingleCpuSizes = 96, kMaxMultiCpuSizes = 192;
constexpr size_t kCpuStarts = 2048;
constexpr size_t kMaxComputeSizes = 120;
constexpr size_t kMaxMemorySizes = 30;

constexpr size_t kWide = kMaxDevices + 1;

using Weighted = std::map<int32_t, double>;  // sizes, and what of the mix has them

// The sizes; if they are more than `most`, those that part the mix evenly. The largest always
// stays, and so does a size that makes up more than such a part.
std::vector<int32_t> Thin(const Weighted& sizes, size_t most) {
  double total = 0, passed = 0;
  for (const auto& [size, weight] : sizes) total += weight;
  std::vector<int32_t> kept;
  size_t parts = 0;  // of the mix that end at or before the last one kept
  for (auto it = sizes.begin(); it != sizes.end(); ++it) {
    passed += it->second;
    const auto now = static_cast<size_t>(passed / total * static_cast<double>(most) + 1e-9);
    if (sizes.size() > most && now == parts && std::next(it) != sizes.end()) continue;
    parts = now;
    kept.push_back(it->first);
  }
  return kept;
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

void ExpectedUse::CpuSizes::Index() {
  shift = 0;
  const auto most = static_cast<size_t>(sizes.empty() ? 0 : sizes.back());
  while (most >> shift >= kCpuStarts) ++shift;
  start.clear();
  for (size_t i = 0; i <= most >> shift; ++i) {
    start.push_back(
        static_cast<uint8_t>(placement::Bucket(sizes, static_cast<int32_t>(i << shift))));
  }
}

void ExpectedUse::Learn(const std::vector<MixEntry>& entries, const Hardware& hardware,
                        const Weights& weights) {
  Weighted single_cpu, multi_cpu, compute, memory;
  double total = 0;
  for (const MixEntry& e : entries) {
    const double weight = e.count * (e.shape.devices + weights.base);
    total += weight;
    if (e.shape.devices == 0) continue;
    (e.shape.devices == 1 ? single_cpu : multi_cpu)[e.shape.cpu_milli] += weight;
    if (e.shape.devices == 1) compute[e.shape.compute_milli] += weight;
    if (e.shape.device_memory_mib > 0) memory[e.shape.device_memory_mib] += weight;
  }
  single_cpu_.sizes = Thin(single_cpu, kMaxSingleCpuSizes);
  multi_cpu_.sizes = Thin(multi_cpu, kMaxMultiCpuSizes);
  single_cpu_.Index();
  multi_cpu_.Index();
  const std::vector<int32_t> compute_sizes = Thin(compute, kMaxComputeSizes);
  memory_sizes_ = Thin(memory, kMaxMemorySizes);
  for (int32_t c = 0; c <= kWholeMilli; ++c) {
    compute_bucket_[c] = static_cast<uint8_t>(Bucket(compute_sizes, c));
  }
  compute_buckets_ = compute_sizes.size() + 1;
  memory_buckets_ = memory_sizes_.empty() ? 1 : memory_sizes_.size() + 1;

  // Tables by model, slots by number of devices; models that no request tells apart share one.
  place_of_pool_.clear();
  std::vector<uint8_t> tables;  // one model of each table
  std::vector<int32_t> counts;  // devices of a node of each slot
  for (const Pool& pool : hardware.pools) {
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

  const size_t single_rows = single_cpu_.sizes.size() + 1, multi_rows = multi_cpu_.sizes.size() + 1;
  const size_t cells = compute_buckets_ * memory_buckets_;
  std::vector<double> single(tables.size() * single_rows * cells, 0);
  const size_t wide = slots_ * kWide;
  std::vector<double> multi(tables.size() * multi_rows * wide, 0);
  for (size_t t = 0; t < tables.size(); ++t) {
    for (const MixEntry& e : entries) {
      if (e.shape.devices == 0 || (e.shape.models >> tables[t] & 1) == 0) continue;
      const double share = e.count * (e.shape.devices + weights.base) / total;
      if (e.shape.devices == 1) {
        const size_t row = t * single_rows + Needs(single_cpu_.sizes, e.shape.cpu_milli);
        const size_t c = Needs(compute_sizes, e.shape.compute_milli);
        const size_t m =
            e.shape.device_memory_mib > 0 ? Needs(memory_sizes_, e.shape.device_memory_mib) : 0;
        single[row * cells + c * memory_buckets_ + m] += share;
      } else if (e.shape.devices <= kMaxDevices) {
        const size_t row = t * multi_rows + Needs(multi_cpu_.sizes, e.shape.cpu_milli);
        const int32_t k = e.shape.devices;
        for (size_t i = 0; i < counts.size(); ++i) {
          for (int32_t whole = 1; whole <= counts[i] && k <= counts[i]; ++whole) {
            const double part =
                weights.near_part * std::pow(double(whole % k) / k, weights.near_power);
            multi[row * wide + i * kWide + static_cast<size_t>(whole)] +=
                share * weights.whole * kWholeMilli * k * (whole / k + part);
          }
        }
      }
    }
    // A device serves every request that needs no more CPU, compute and memory than it has.
    const auto add = [](std::vector<double>* v, size_t to, size_t from) { (*v)[to] += (*v)[from]; };
    for (size_t row = t * single_rows; row < (t + 1) * single_rows; ++row) {
      for (size_t c = 0; c < compute_buckets_; ++c) {
        for (size_t m = 1; m < memory_buckets_; ++m) {
          add(&single, row * cells + c * memory_buckets_ + m,
              row * cells + c * memory_buckets_ + m - 1);
        }
      }
      for (size_t i = memory_buckets_; i < cells; ++i) {
        add(&single, row * cells + i, row * cells + i - memory_buckets_);
      }
      if (row == t * single_rows) continue;
      for (size_t i = 0; i < cells; ++i) add(&single, row * cells + i, (row - 1) * cells + i);
    }
    for (size_t row = t * multi_rows + 1; row < (t + 1) * multi_rows; ++row) {
      for (size_t i = 0; i < wide; ++i) add(&multi, row * wide + i, (row - 1) * wide + i);
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
