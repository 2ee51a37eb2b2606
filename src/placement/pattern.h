// The pattern potential: what the rest of a device is worth if the expected shared requests are
// packed as well as they can be. From the dual prices of the cutting-stock problem "pack the mix
// into the fewest devices" (column generation), so it is learnt from the requests, size by size.
// Two-dimensional: compute and device memory. Slow (milliseconds to a second); used by Learn only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "src/placement/mix.h"

namespace divvy::placement {

class PatternValue {
 public:
  // `device_memory_mib` 0: memory is not counted. Otherwise a device of that size.
  static PatternValue Learn(const std::vector<MixEntry>& entries, int32_t device_memory_mib);

  // Worth of a device with so much left, in thousandths of a whole device: 0 to 1000.
  int32_t Of(int32_t compute_left, int32_t memory_left) const {
    if (compute_left <= 0) return 0;
    if (memory_mib_ == 0) return value_[compute_left];
    const int64_t percent = int64_t{memory_left} * kGrid / memory_mib_;
    const int64_t m = std::clamp<int64_t>(percent, 0, kGrid);
    return value_[compute_left * kGrid / kWholeMilli * (kGrid + 1) + m];
  }
  size_t BytesUsed() const { return value_.capacity() * sizeof(int32_t); }

 private:
  static constexpr int32_t kGrid = 100;
  int32_t memory_mib_ = 0;      // 0: one-dimensional, indexed by milli
  std::vector<int32_t> value_;  // [milli] or [percent compute][percent memory]
};

}  // namespace divvy::placement
