// The published fragmentation measure (Weng et al., USENIX ATC 2023): how much idle compute of a
// node the typical requests could not use. Floating point in the authors' order of operations,
// because the published scores depend on the last bit. Used by the fgd policy and by the metrics.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "src/placement/cluster.h"
#include "src/placement/mix.h"

namespace divvy::placement {

class Fragmentation {
 public:
  // Typical requests: the most frequent shapes (by CPU, compute, device count and models) that
  // together make up 95 % of all requests, with their share of them. Beyond 512 of them (the
  // published mixes have up to 127) amounts are rounded up, coarser until they are that few.
  void Learn(const Mix& mix);

  // F of the node, in milli devices, after taking `cpu_milli` and with `left` on its devices.
  double Of(int32_t cpu_left, uint64_t model_bit, const int16_t* left, size_t devices) const;
  double Of(const NodeView& view) const;
  bool empty() const { return typical_.empty(); }

 private:
  struct Typical {
    int32_t cpu_milli;
    int32_t devices;
    int size_index;  // into sizes_
    bool cpu_only;
    uint64_t models;
    double share;
  };
  std::vector<Typical> typical_;
  std::vector<int32_t> sizes_;                             // distinct compute_milli, ascending
  std::array<uint16_t, kWholeMilli + 1> sizes_fitting_{};  // how many sizes are <= a device's rest
};

}  // namespace divvy::placement
