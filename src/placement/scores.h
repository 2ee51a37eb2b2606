// The cached scores of one shape: one number per node and the maximum of each block of nodes. Nodes
// stand in lanes, one per pool, so that a bias per pool needs no re-scoring. Used by the
// Engine only.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "src/placement/cluster.h"
#include "src/placement/model.h"
#include "src/placement/policy.h"

namespace divvy::placement {

// Where each node stands in the lanes; shared by all shapes.
class Lanes {
 public:
  static constexpr size_t kBlock = 256;
  void Update(const Cluster& cluster);             // takes in new nodes
  size_t size() const { return node_at_.size(); }  // a whole number of blocks
  size_t SlotOf(NodeId id) const { return slot_of_[id]; }
  NodeId NodeAt(size_t slot) const { return node_at_[slot]; }
  uint8_t PoolOf(size_t block) const { return pool_of_[block]; }

 private:
  std::vector<uint32_t> slot_of_;                 // per node
  std::vector<NodeId> node_at_;                   // per slot, kNoNode where a block is not full
  std::vector<uint8_t> pool_of_;                  // per block
  std::array<uint32_t, kMaxPools> last_block_{};  // per pool, + 1
  std::array<uint32_t, kMaxPools> used_in_last_{};
};

class Scores {
 public:
  // Brings every score up to date with the cluster. `epoch` changes when the policy learnt.
  void Refresh(const Cluster& cluster, const Lanes& lanes, const Policy& policy, const Shape& shape,
               uint32_t epoch);
  // The first node with the highest score plus its pool's bias, kNoNode if nothing fits.
  NodeId Best(const Lanes& lanes, const std::array<int32_t, kMaxPools>& bias) const;
  uint32_t CountFitting() const;
  NodeId NthFitting(const Lanes& lanes, uint32_t n) const;
  size_t BytesUsed() const { return score_.capacity() * 4 + block_max_.capacity() * 4; }

 private:
  static constexpr size_t kBlock = Lanes::kBlock;
  void RefreshAll(const Cluster& cluster, const Lanes& lanes, const Policy& policy,
                  const Shape& shape);
  void RecomputeBlock(size_t block);

  std::vector<int32_t> score_;  // per slot; kNoFit where a block is not full
  std::vector<int32_t> block_max_;
  uint64_t cursor_ = 0;
  uint32_t epoch_ = 0;
};

}  // namespace divvy::placement
