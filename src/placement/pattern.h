// The pattern potential: what the rest of a device is worth if the expected requests are packed as
// well as they can be. From the dual prices of the cutting-stock problem "serve as large a part of
// the mix as the devices allow" (column generation), so it is learnt from the requests, size by
// size. Two-dimensional: compute and device memory; devices of several memory sizes are priced
// together, so that a request finds the size that suits it. Slow (milliseconds to a second); used
// by Learn only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "src/placement/mix.h"

namespace divvy::placement {

class PatternValue {
 public:
  // Devices of one memory size. 0: memory is not counted (then all of them are of one kind).
  struct Kind {
    int32_t memory_mib;
    double count;
  };
  // One value per kind, in their order.
  static std::vector<PatternValue> Learn(const std::vector<MixEntry>& entries,
                                         const std::vector<Kind>& kinds);

  // Worth of a device with so much left, in thousandths of an average untouched device.
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
