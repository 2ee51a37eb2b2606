// Scores: see scores.h. The block loops have constant trip counts so that they vectorise.
#include "src/placement/scores.h"

#include <algorithm>
#include <array>
#include <limits>

namespace divvy::placement {
namespace {
constexpr size_t kBatch = 64;  // nodes whose memory is asked for at once

// MayFit without a branch.
struct Needs {
  explicit Needs(const Shape& s)
      : cpu_milli(s.cpu_milli),
        memory_mib(s.memory_mib),
        compute_milli(s.devices == 0 ? 0 : s.compute_milli),
        whole(s.devices == 0 || s.compute_milli < kWholeMilli ? 0 : s.devices),
        models(s.devices == 0 ? kAnyModel : s.models) {}
  bool MetBy(const Change& n) const {
    return (n.cpu_left >= cpu_milli) & (n.memory_left >= memory_mib) &
           (n.most_left >= compute_milli) & (n.whole >= whole) & (n.model != Change::kClosed) &
           ((models >> (n.model % kMaxModels) & 1) != 0);
  }
  int32_t cpu_milli, memory_mib, compute_milli, whole;
  uint64_t models;
};

int32_t Score(const Cluster& cluster, const Policy& policy, const Shape& shape, NodeId id) {
  const NodeView view = cluster.View(id);
  return Fits(view, shape) ? policy.Evaluate(view, shape).score : kNoFit;
}
}  // namespace

void Lanes::Extend(const Cluster& cluster) {
  // Nodes that come together get one run per pool, whatever order they come in.
  std::array<size_t, kMaxPools> coming{};
  for (size_t id = slot_of_.size(); id < cluster.size(); ++id) {
    ++coming[cluster.node(static_cast<NodeId>(id)).pool];
  }
  std::array<size_t, kMaxPools> fresh{};  // per pool: first slot of its new run
  for (size_t pool = 0; pool < kMaxPools; ++pool) {
    const size_t room = end_[pool] - next_[pool];
    if (coming[pool] <= room) continue;
    const size_t begin = node_at_.size() / kBlock;
    const size_t blocks = (coming[pool] - room + kBlock - 1) / kBlock;
    fresh[pool] = node_at_.size();
    node_at_.resize(node_at_.size() + blocks * kBlock, kNoNode);
    runs_.push_back({static_cast<uint8_t>(pool), static_cast<uint32_t>(begin),
                     static_cast<uint32_t>(begin + blocks)});
  }
  for (size_t id = slot_of_.size(); id < cluster.size(); ++id) {
    const uint8_t pool = cluster.node(static_cast<NodeId>(id)).pool;
    if (next_[pool] == end_[pool]) {
      next_[pool] = fresh[pool];
      end_[pool] = fresh[pool];
      for (const Run& r : runs_) {
        if (r.begin * kBlock == fresh[pool] && r.pool == pool) end_[pool] = r.end * kBlock;
      }
    }
    slot_of_.push_back(static_cast<uint32_t>(next_[pool]));
    node_at_[next_[pool]++] = static_cast<NodeId>(id);
  }
}

void Scores::RecomputeBlock(size_t block) {
  const int32_t* s = score_.data() + block * kBlock;
  int32_t best = kNoFit;
  for (size_t i = 0; i < kBlock; ++i) best = std::max(best, s[i]);
  block_max_[block] = best;
  stale_[block] = 0;
}

void Scores::RefreshAll(const Cluster& cluster, const Lanes& lanes, const Policy& policy,
                        const Shape& shape) {
  const size_t blocks = lanes.size() / kBlock;
  score_.assign(blocks * kBlock, kNoFit);
  block_max_.assign(blocks, kNoFit);
  stale_.assign(blocks, 0);
  fits_.assign((cluster.size() + 63) / 64, 0);
  // Untouched nodes of a pool are alike: score one of them. In a young cluster that is most.
  std::array<int32_t, kMaxPools> untouched{};
  uint64_t known = 0;
  for (NodeId id = 0; id < cluster.size(); ++id) {
    const Node& n = cluster.node(id);
    if (!MayFit(n, shape)) continue;
    int32_t& score = score_[lanes.SlotOf(id)];
    if (!cluster.Untouched(id)) {
      score = Score(cluster, policy, shape, id);
      SetFits(id, score != kNoFit);
      continue;
    }
    if ((known >> n.pool & 1) == 0) {
      untouched[n.pool] = Score(cluster, policy, shape, id);
      known |= uint64_t{1} << n.pool;
    }
    score = untouched[n.pool];
    SetFits(id, score != kNoFit);
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
  stale_.resize(lanes.size() / kBlock, 0);
  fits_.resize((cluster.size() + 63) / 64, 0);
  std::array<NodeId, kBatch> batch;
  const Needs needs(shape);
  while (cursor_ < end) {
    // Most entries end here: a later one counts, or the shape fitted neither before nor now. No
    // branches: which entries do cannot be predicted.
    const uint64_t stop = std::min<uint64_t>(end, cursor_ + kBatch);
    size_t n = 0;
    for (; cursor_ < stop; ++cursor_) {
      const Change& change = cluster.Changed(cursor_);
      batch[n] = change.id;
      const bool counts = change.id != kNoNode;
      n += counts & (needs.MetBy(change) | Fitted(counts ? change.id : 0));
    }
    Rescore(cluster, lanes, policy, shape, {batch.data(), n});
  }
}

void Scores::Rescore(const Cluster& cluster, const Lanes& lanes, const Policy& policy,
                     const Shape& shape, std::span<const NodeId> nodes) {
  // These are random accesses all over the cluster.
  for (const NodeId id : nodes) {
    cluster.Prefetch(id);
    __builtin_prefetch(&score_[lanes.SlotOf(id)]);
  }
  for (const NodeId id : nodes) cluster.PrefetchDevices(id);
  for (const NodeId id : nodes) {
    const size_t slot = lanes.SlotOf(id);
    const size_t block = slot / kBlock;
    const int32_t before = score_[slot];
    const int32_t now = Score(cluster, policy, shape, id);
    if (now == before) continue;
    score_[slot] = now;
    SetFits(id, now != kNoFit);
    if (now >= block_max_[block]) {
      block_max_[block] = now;
      stale_[block] = 0;
    } else if (before == block_max_[block]) {
      stale_[block] = 1;  // looked at again only if it would win
    }
  }
}

NodeId Scores::Best(const Lanes& lanes, const std::array<int32_t, kMaxPools>& bias) {
  int64_t best = std::numeric_limits<int64_t>::min();  // a bias may take a fit below kNoFit
  NodeId first = kNoNode;                              // of those with the best score
  for (const Lanes::Run& run : lanes.runs()) {
    for (;;) {
      int32_t max = kNoFit;
      for (uint32_t b = run.begin; b < run.end; ++b) max = std::max(max, block_max_[b]);
      const int64_t score = int64_t{max} + bias[run.pool];
      if (max == kNoFit || score < best) break;
      uint32_t block = run.begin;
      while (block_max_[block] != max) ++block;
      if (stale_[block] != 0) {
        RecomputeBlock(block);
        continue;
      }
      const auto begin = score_.begin() + static_cast<ptrdiff_t>(block * kBlock);
      const auto at = static_cast<size_t>(std::find(begin, begin + kBlock, max) - score_.begin());
      first = score > best ? lanes.NodeAt(at) : std::min(first, lanes.NodeAt(at));
      best = score;
      break;
    }
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
