// How much of a node's idle compute the expected requests could use: sums over the request mix,
// tabulated so that one device costs one look-up. Part of the default policy.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "src/placement/cluster.h"
#include "src/placement/mix.h"

namespace divvy::placement {

class ExpectedUse {
 public:
  static constexpr int kOneBits = 16;
  static constexpr int64_t kOne = 1 << kOneBits;

  struct Weights {
    double base;   // a request counts count * (devices + base) times
    double whole;  // times this if it is for several devices
    // A node that lacks some of the devices for such a request is worth this part of one that has
    // them all, times (there / wanted) ^ power: it may become whole when tenants leave.
    double near_part;
    double near_power;
  };
  void Learn(const std::vector<MixEntry>& entries, const Hardware& hardware,
             const Weights& weights);

  // The tables for that node with that much CPU left.
  class Row {
   public:
    // Of a device's rest: idle compute, in milli / kOne, times the part of the requests (for one
    // device) that it could serve.
    int64_t Of(int32_t compute_left, int32_t memory_left) const {
      if (single_ == nullptr) return 0;
      const size_t c = use_->compute_bucket_[compute_left];
      const size_t m = use_->memory_sizes_.empty() ? 0 : use_->MemoryBucket(memory_left);
      return compute_left * int64_t{single_[c * use_->memory_buckets_ + m]};
    }
    // The same for requests for several devices, of which this many whole ones are there.
    int64_t OfWhole(int32_t whole) const { return multi_ == nullptr ? 0 : multi_[whole]; }

   private:
    friend class ExpectedUse;
    const ExpectedUse* use_;
    const int32_t* single_;  // null for a pool that Learn did not see
    const int64_t* multi_;
  };
  Row At(const Node& node, int32_t cpu_left) const;

 private:
  // What requests want of CPU, ascending: how many of these sizes an amount suffices for.
  struct CpuSizes {
    std::vector<int32_t> sizes;
    std::vector<uint8_t> start;  // by amount >> shift: a bucket not above the right one
    int shift = 0;
    void Index();
    size_t Bucket(int32_t cpu_left) const;
  };
  size_t MemoryBucket(int32_t memory_left) const;

  // Apart, so that few large requests among very many sizes of small ones keep theirs.
  CpuSizes single_cpu_, multi_cpu_;
  std::array<uint8_t, kWholeMilli + 1> compute_bucket_{};
  std::vector<int32_t> memory_sizes_;
  size_t compute_buckets_ = 1;
  size_t memory_buckets_ = 1;
  struct Place {
    uint16_t table;  // pools that no request tells apart share one
    uint16_t slot;   // by the number of devices
  };
  std::vector<Place> place_of_pool_;  // pools that came later are not in it
  size_t slots_ = 1;
  std::vector<int32_t> single_;  // [table][cpu][compute][memory]
  std::vector<int64_t> multi_;   // [table][cpu][slot][whole devices]
};

inline size_t ExpectedUse::CpuSizes::Bucket(int32_t cpu_left) const {
  const size_t n = sizes.size();
  const auto at = static_cast<size_t>(std::max(0, cpu_left)) >> shift;
  size_t bucket = at < start.size() ? start[at] : n;
  while (bucket < n && sizes[bucket] <= cpu_left) ++bucket;
  return bucket;
}

inline ExpectedUse::Row ExpectedUse::At(const Node& node, int32_t cpu_left) const {
  Row row;
  row.use_ = this;
  if (node.pool >= place_of_pool_.size()) {  // nothing learnt yet
    row.single_ = nullptr;
    row.multi_ = nullptr;
    return row;
  }
  const Place place = place_of_pool_[node.pool];
  const size_t single = place.table * (single_cpu_.sizes.size() + 1) + single_cpu_.Bucket(cpu_left);
  const size_t multi = place.table * (multi_cpu_.sizes.size() + 1) + multi_cpu_.Bucket(cpu_left);
  row.single_ = single_.data() + single * compute_buckets_ * memory_buckets_;
  row.multi_ = multi_.data() + (multi * slots_ + place.slot) * (kMaxDevices + 1);
  return row;
}

}  // namespace divvy::placement
