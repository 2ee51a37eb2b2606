// The cached scores of one shape: one number per node and the maximum of each block of nodes.
// Used by the Engine only.
#pragma once

#include <cstdint>
#include <vector>

#include "src/placement/cluster.h"
#include "src/placement/model.h"
#include "src/placement/policy.h"

namespace divvy::placement {

class Scores {
 public:
  // Brings every score up to date with the cluster. `epoch` changes when the policy learnt.
  void Refresh(const Cluster& cluster, const Policy& policy, const Shape& shape, uint32_t epoch);
  // The first node with the highest score, kNoNode if nothing fits.
  NodeId Best() const;
  uint32_t CountFitting() const;
  NodeId NthFitting(uint32_t n) const;
  size_t BytesUsed() const { return score_.capacity() * 4 + block_max_.capacity() * 4; }

 private:
  static constexpr size_t kBlock = 256;
  void RefreshAll(const Cluster& cluster, const Policy& policy, const Shape& shape);
  void RecomputeBlock(size_t block);

  std::vector<int32_t> score_;  // padded to whole blocks with kNoFit
  std::vector<int32_t> block_max_;
  uint64_t cursor_ = 0;
  uint32_t epoch_ = 0;
};

}  // namespace divvy::placement
