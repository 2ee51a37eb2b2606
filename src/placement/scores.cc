// Scores: see scores.h. The block loops have constant trip counts so that they vectorise.
#include "src/placement/scores.h"

#include <algorithm>

namespace divvy::placement {
namespace {
int32_t Score(const Cluster& cluster, const Policy& policy, const Shape& shape, NodeId id) {
  const NodeView view = cluster.View(id);
  return Fits(view, shape) ? policy.Evaluate(view, shape).score : kNoFit;
}
}  // namespace

void Lanes::Update(const Cluster& cluster) {
  for (auto id = static_cast<NodeId>(slot_of_.size()); id < cluster.size(); ++id) {
    const uint8_t pool = cluster.node(id).pool;
    if (last_block_[pool] == 0 || used_in_last_[pool] == kBlock) {
      pool_of_.push_back(pool);
      node_at_.resize(node_at_.size() + kBlock, kNoNode);
      last_block_[pool] = static_cast<uint32_t>(pool_of_.size());
      used_in_last_[pool] = 0;
    }
    const size_t slot = (last_block_[pool] - 1) * kBlock + used_in_last_[pool]++;
    slot_of_.push_back(static_cast<uint32_t>(slot));
    node_at_[slot] = id;
  }
}

void Scores::RecomputeBlock(size_t block) {
  const int32_t* s = score_.data() + block * kBlock;
  int32_t best = kNoFit;
  for (size_t i = 0; i < kBlock; ++i) best = std::max(best, s[i]);
  block_max_[block] = best;
}

void Scores::RefreshAll(const Cluster& cluster, const Lanes& lanes, const Policy& policy,
                        const Shape& shape) {
  const size_t blocks = lanes.size() / kBlock;
  score_.assign(blocks * kBlock, kNoFit);
  block_max_.assign(blocks, kNoFit);
  // Many nodes are alike when a shape is new (an empty or young cluster): remember by state.
  struct Memo {
    uint64_t hash = 0;
    int32_t score = 0;
    bool used = false;
  };
  std::vector<Memo> memo(cluster.size() >= 4096 ? 4096 : 0);
  for (NodeId id = 0; id < cluster.size(); ++id) {
    int32_t& score = score_[lanes.SlotOf(id)];
    if (memo.empty()) {
      score = Score(cluster, policy, shape, id);
      continue;
    }
    const Node& n = cluster.node(id);
    if (n.closed || n.cpu_left < shape.cpu_milli ||
        (shape.devices > 0 && (shape.models >> n.model & 1) == 0)) {
      continue;
    }
    const uint64_t hash = cluster.StateHash(id);
    Memo& m = memo[(hash >> 20) & (memo.size() - 1)];
    if (!m.used || m.hash != hash) m = {hash, Score(cluster, policy, shape, id), true};
    score = m.score;
  }
  for (size_t b = 0; b < blocks; ++b) RecomputeBlock(b);
}

void Scores::Refresh(const Cluster& cluster, const Lanes& lanes, const Policy& policy,
                     const Shape& shape, uint32_t epoch) {
  const uint64_t end = cluster.log_end();
  if (epoch_ != epoch || cursor_ < cluster.log_begin() || end - cursor_ >= cluster.size()) {
    RefreshAll(cluster, lanes, policy, shape);
    epoch_ = epoch;
    cursor_ = end;
    return;
  }
  score_.resize(lanes.size(), kNoFit);
  block_max_.resize(lanes.size() / kBlock, kNoFit);
  for (; cursor_ < end; ++cursor_) {
    const NodeId id = cluster.Changed(cursor_);
    if (cluster.LastChange(id) != cursor_) continue;  // a later entry counts
    const size_t slot = lanes.SlotOf(id);
    const size_t block = slot / kBlock;
    const int32_t before = score_[slot];
    const int32_t now = Score(cluster, policy, shape, id);
    score_[slot] = now;
    if (now >= block_max_[block]) {
      block_max_[block] = now;
    } else if (before == block_max_[block]) {
      RecomputeBlock(block);
    }
  }
}

NodeId Scores::Best(const Lanes& lanes, const std::array<int32_t, kMaxPools>& bias) const {
  int64_t best = kNoFit;
  for (size_t b = 0; b < block_max_.size(); ++b) {
    if (block_max_[b] == kNoFit) continue;
    best = std::max(best, int64_t{block_max_[b]} + bias[lanes.PoolOf(b)]);
  }
  // Equal scores in several blocks: the first node wins. Inside a lane nodes stand in order.
  NodeId first = kNoNode;
  uint64_t searched = 0;  // pools whose first block with the best score is done
  for (size_t b = 0; b < block_max_.size(); ++b) {
    const uint8_t pool = lanes.PoolOf(b);
    if (block_max_[b] == kNoFit || int64_t{block_max_[b]} + bias[pool] != best ||
        (searched >> pool & 1) != 0) {
      continue;
    }
    searched |= uint64_t{1} << pool;
    const auto begin = score_.begin() + static_cast<ptrdiff_t>(b * kBlock);
    const auto at = std::find(begin, begin + kBlock, block_max_[b]) - score_.begin();
    first = std::min(first, lanes.NodeAt(static_cast<size_t>(at)));
  }
  return first;
}

uint32_t Scores::CountFitting() const {
  uint32_t n = 0;
  for (const int32_t s : score_) n += s != kNoFit;
  return n;
}

NodeId Scores::NthFitting(const Lanes& lanes, uint32_t n) const {
  for (size_t i = 0; i < score_.size(); ++i) {
    if (score_[i] != kNoFit && n-- == 0) return lanes.NodeAt(i);
  }
  return kNoNode;
}

}  // namespace divvy::placement
