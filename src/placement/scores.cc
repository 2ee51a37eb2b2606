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

void Scores::RecomputeBlock(size_t block) {
  const int32_t* s = score_.data() + block * kBlock;
  int32_t best = kNoFit;
  for (size_t i = 0; i < kBlock; ++i) best = std::max(best, s[i]);
  block_max_[block] = best;
}

void Scores::RefreshAll(const Cluster& cluster, const Policy& policy, const Shape& shape) {
  const size_t blocks = (cluster.size() + kBlock - 1) / kBlock;
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
    if (memo.empty()) {
      score_[id] = Score(cluster, policy, shape, id);
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
    score_[id] = m.score;
  }
  for (size_t b = 0; b < blocks; ++b) RecomputeBlock(b);
}

void Scores::Refresh(const Cluster& cluster, const Policy& policy, const Shape& shape,
                     uint32_t epoch) {
  const uint64_t end = cluster.log_end();
  if (epoch_ != epoch || cursor_ < cluster.log_begin() || end - cursor_ >= cluster.size()) {
    RefreshAll(cluster, policy, shape);
    epoch_ = epoch;
    cursor_ = end;
    return;
  }
  for (; cursor_ < end; ++cursor_) {
    const NodeId id = cluster.Changed(cursor_);
    if (cluster.LastChange(id) != cursor_) continue;  // a later entry counts
    const size_t block = id / kBlock;
    if (block >= block_max_.size()) {
      score_.resize((block + 1) * kBlock, kNoFit);
      block_max_.resize(block + 1, kNoFit);
    }
    const int32_t before = score_[id];
    const int32_t now = Score(cluster, policy, shape, id);
    score_[id] = now;
    if (now >= block_max_[block]) {
      block_max_[block] = now;
    } else if (before == block_max_[block]) {
      RecomputeBlock(block);
    }
  }
}

NodeId Scores::Best() const {
  int32_t best = kNoFit;
  for (const int32_t m : block_max_) best = std::max(best, m);
  if (best == kNoFit) return kNoNode;
  const size_t block = std::find(block_max_.begin(), block_max_.end(), best) - block_max_.begin();
  const auto first = score_.begin() + static_cast<ptrdiff_t>(block * kBlock);
  return static_cast<NodeId>(std::find(first, first + kBlock, best) - score_.begin());
}

uint32_t Scores::CountFitting() const {
  uint32_t n = 0;
  for (const int32_t s : score_) n += s != kNoFit;
  return n;
}

NodeId Scores::NthFitting(uint32_t n) const {
  for (size_t i = 0; i < score_.size(); ++i) {
    if (score_[i] != kNoFit && n-- == 0) return static_cast<NodeId>(i);
  }
  return kNoNode;
}

}  // namespace divvy::placement
