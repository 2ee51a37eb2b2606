// The cached scores of one shape: one number per node and the maximum of each block of nodes. Nodes
// stand in lanes, one per pool, so that a bias per pool needs no re-scoring. Used by the
// Engine only.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "src/placement/cluster.h"
#include "src/placement/model.h"
#include "src/placement/policy.h"

namespace divvy::placement {

// Where each node stands in the lanes; shared by all shapes.
class Lanes {
 public:
  static constexpr size_t kBlock = 256;
  // Blocks [begin, end) hold nodes of one pool, in order.
  struct Run {
    uint8_t pool;
    uint32_t begin, end;
  };
  void Update(const Cluster& cluster) {  // takes in new nodes
    if (slot_of_.size() < cluster.size()) Extend(cluster);
  }
  size_t size() const { return node_at_.size(); }  // a whole number of blocks
  size_t SlotOf(NodeId id) const { return slot_of_[id]; }
  NodeId NodeAt(size_t slot) const { return node_at_[slot]; }
  const std::vector<Run>& runs() const { return runs_; }

 private:
  void Extend(const Cluster& cluster);

  std::vector<uint32_t> slot_of_;  // per node
  std::vector<NodeId> node_at_;    // per slot, kNoNode where a block is not full
  std::vector<Run> runs_;
  std::array<size_t, kMaxPools> next_{};  // per pool: its next free slot
  std::array<size_t, kMaxPools> end_{};   // and where its last run ends
};

class Scores {
 public:
  // Brings every score up to date with the cluster. `epoch` changes when the policy learnt.
  void Refresh(const Cluster& cluster, const Lanes& lanes, const Policy& policy, const Shape& shape,
               uint32_t epoch);
  // The first node with the highest score plus its pool's bias, kNoNode if nothing fits.
  NodeId Best(const Lanes& lanes, const std::array<int32_t, kMaxPools>& bias);
  uint32_t CountFitting() const;
  NodeId NthFitting(const Lanes& lanes, uint32_t n) const;
  size_t BytesUsed() const {
    return score_.capacity() * 4 + block_max_.capacity() * 5 + fits_.capacity() * 8;
  }
  bool empty() const { return score_.empty(); }
  void Forget() { *this = Scores(); }

 private:
  static constexpr size_t kBlock = Lanes::kBlock;
  void RefreshAll(const Cluster& cluster, const Lanes& lanes, const Policy& policy,
                  const Shape& shape);
  void RecomputeBlock(size_t block);
  void Rescore(const Cluster& cluster, const Lanes& lanes, const Policy& policy, const Shape& shape,
               std::span<const NodeId> nodes);
  bool Fitted(NodeId id) const { return (fits_[id / 64] >> id % 64 & 1) != 0; }
  void SetFits(NodeId id, bool fits) {
    const uint64_t bit = uint64_t{1} << id % 64;
    fits_[id / 64] = fits ? fits_[id / 64] | bit : fits_[id / 64] & ~bit;
  }

  std::vector<int32_t> score_;      // per slot; kNoFit where a block is not full
  std::vector<int32_t> block_max_;  // exact, or too high where stale_ says so
  std::vector<uint8_t> stale_;
  std::vector<uint64_t> fits_;  // per node, a bit: its score is not kNoFit
  uint64_t cursor_ = 0;
  uint32_t epoch_ = 0;
};

}  // namespace divvy::placement
