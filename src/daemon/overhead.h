// How much device memory a tenant holds beyond its charges: contexts above their learned figure,
// modules, the driver's own rounding. Measured as NVML's figure minus the charges.
//
// Pure: time comes with each sample. The rule: a sample counts only when nothing was charged or
// credited around it (the caller says so: `quiet`); a charge for imported
// memory that NVML does not show is no over-charge, because that memory outlives its exporter's
// charge; the figure rises at once, falls by a quarter of
// the way per sample that is `comparable`, and is never more than `ceiling`. What lies beyond the
// ceiling in two quiet samples running is a finding, not overhead.
#pragma once

#include <cstdint>

namespace divvy::daemon {

class Overhead {
 public:
  struct Sample {
    int64_t gap_bytes = 0;      // NVML's sum - charges; negative when contexts were over-charged
    int64_t ceiling_bytes = 0;  // what contexts may explain
    int64_t import_bytes =
        0;  // charged for imports: NVML may show such memory with its exporter only
    int64_t floor_bytes = 0;  // <= 0: what over-charged contexts may explain
    bool quiet = false;
    // All that was charged had been taken, and nothing was being given back: memory that is charged
    // and not yet taken looks like a charge that was too high.
    bool comparable = false;
  };

  // Returns how much lies beyond the ceiling, 0 for nothing (or not sure yet).
  int64_t Add(const Sample& sample);
  // Over-charged contexts went: what was deducted for them must go too.
  void RaiseTo(int64_t floor_bytes) {
    if (bytes_ < floor_bytes) bytes_ = floor_bytes;
  }
  int64_t bytes() const { return bytes_; }

 private:
  static constexpr int64_t kSnap = int64_t{2} << 20;
  int64_t bytes_ = 0;
  bool beyond_before_ = false;
};

}  // namespace divvy::daemon
