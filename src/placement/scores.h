// The cached scores of one shape: one number per node and the maximum of each block of nodes. Nodes
// stand in lanes, one per pool, so that a bias per pool needs no re-scoring. Used by the
// Engine only.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "src/placement/cluster.h"
#include "src/placement/memo.h"
#include "src/placement/model.h"
#include "src/placement/policy.h"

namespace divvy::placement {

// Where each node stands in the lanes; shared by all shapes.
class Lanes {
 public:
  static constexpr size_t kBlock = 64;
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
  uint16_t RunOf(size_t block) const { return run_of_[block]; }

 private:
  void Extend(const Cluster& cluster);

  std::vector<uint32_t> slot_of_;  // per node
  std::vector<NodeId> node_at_;    // per slot, kNoNode where a block is not full
  std::vector<Run> runs_;
  std::vector<uint16_t> run_of_;          // per block
  std::array<size_t, kMaxPools> next_{};  // per pool: its next free slot
  std::array<size_t, kMaxPools> end_{};   // and where its last run ends
};

// Since when the policy gives other scores for nodes with untouched devices, per pool, and since
// when they may be higher, see Policy::Adapt.
struct Adapted {
  uint32_t now = 0;  // counts up
  std::array<uint32_t, kMaxPools> since{};
  std::array<uint32_t, kMaxPools> higher_since{};
};

// What scores are computed from; shared by all shapes.
struct Sources {
  const Cluster& cluster;
  const Lanes& lanes;
  const Policy& policy;
  const Adapted& adapted;
  Memo& memo;
};

class Scores {
 public:
  Scores() = default;
  // `shape` says what fits, policy.ScoredAs(shape) how well.
  Scores(const Shape& shape, const Policy& policy, uint32_t epoch);
  // Asks for the memory that Refresh and Best will look at first.
  void Prefetch() const { is_narrow_ ? PrefetchIn(narrow_) : PrefetchIn(wide_); }
  // Brings every score up to date with the cluster.
  void Refresh(const Sources& from);
  // The first node with the highest score plus its pool's bias, among the pools in the mask;
  // kNoNode if nothing fits.
  NodeId Best(const Sources& from, const std::array<int32_t, kMaxPools>& bias, uint64_t pools);
  uint32_t CountFitting() const;
  NodeId NthFitting(const Lanes& lanes, uint32_t n) const;
  size_t BytesUsed() const { return narrow_.BytesUsed() + wide_.BytesUsed() + stale_.capacity(); }
  const Shape& shape() const { return shape_; }

 private:
  static constexpr size_t kBlock = Lanes::kBlock;
  static constexpr size_t kBatch = 64;  // nodes whose memory is asked for at once
  // Scores divided by unit_, per slot and the most of each block; the least number a T can hold
  // where nothing fits.
  template <class T>
  struct Column {
    static constexpr T kNone = std::numeric_limits<T>::min();
    std::vector<T> score;  // kNone too where a block is not full
    std::vector<T> max;    // exact, or too high where stale_ says so
    std::vector<T> top;    // of each run; exact or too high
    size_t BytesUsed() const {
      return (score.capacity() + max.capacity() + top.capacity()) * sizeof(T);
    }
    void Resize(const Lanes& lanes) {
      score.resize(lanes.size(), kNone);
      max.resize(lanes.size() / kBlock, kNone);
      top.resize(lanes.runs().size(), kNone);
    }
    void Recompute(size_t block);
    // Raises its maximum; false if it is too high for that.
    bool Raise(size_t block, uint16_t run, int32_t by);
    size_t Count() const;
    size_t Nth(uint32_t n) const;
  };
  struct Item {  // a node to be scored anew
    NodeId id;
    uint32_t slot;
    uint64_t key;
  };
  struct Batch {
    std::array<Item, kBatch> items;
    size_t size = 0;
  };
  int32_t Evaluate(const Sources& from, NodeId id) const;
  int32_t Known(const Sources& from, NodeId id, uint64_t key) const;  // or evaluated and put down
  // Nodes without untouched devices score as they did whatever the policy adapts to.
  uint64_t Key(const Adapted& adapted, uint64_t state, int whole) const {
    const uint64_t since = whole > 0 ? adapted.since[state >> kStatePoolShift] : 0;
    const uint64_t key = state ^ seed_ ^ since * 0x9E3779B97F4A7C15ull;
    return key == 0 ? 1 : key;
  }
  void RefreshAll(const Sources& from);
  void FillRun(const Sources& from, size_t run);
  template <class T>
  void FillIn(Column<T>* column, const Lanes::Run& run, size_t at, size_t filled);
  void RefreshAdapted(const Sources& from);
  void RefreshWhole(const Sources& from, size_t block);
  void Rescore(const Sources& from, Batch* batch);  // and empties it
  // Untouched nodes of a pool are alike: one of them is scored. In a young cluster that is most.
  struct Alike {
    std::array<uint64_t, kMaxPools> key{};
    std::array<int32_t, kMaxPools> score{};
  };
  void Add(const Sources& from, NodeId id, Alike* alike, Batch* batch);
  void Resize(const Sources& from);
  template <class T>
  void PrefetchIn(const Column<T>& column) const {
    constexpr size_t kLine = 64;
    const auto* scores = reinterpret_cast<const char*>(column.score.data() + best_block_ * kBlock);
    for (size_t at = 0; at < kBlock * sizeof(T); at += kLine) __builtin_prefetch(scores + at);
    __builtin_prefetch(stale_.data() + best_block_);
  }
  void SetNone(const Lanes& lanes, size_t slot) {
    is_narrow_ ? SetIn(&narrow_, lanes, slot, Column<int16_t>::kNone)
               : SetIn(&wide_, lanes, slot, Column<int32_t>::kNone);
  }
  void Set(const Lanes& lanes, size_t slot, int32_t score) {
    if (score == kNoFit) return SetNone(lanes, slot);
    const int32_t part = score / unit_;
    const bool whole = part * unit_ == score && part == static_cast<int16_t>(part);
    if (is_narrow_ && whole && part != Column<int16_t>::kNone) {
      SetIn(&narrow_, lanes, slot, static_cast<int16_t>(part));
    } else {
      SetOther(lanes, slot, score);
    }
  }
  void SetOther(const Lanes& lanes, size_t slot, int32_t score);
  template <class T>
  void SetIn(Column<T>* column, const Lanes& lanes, size_t slot, T score);
  template <class T>
  NodeId BestIn(Column<T>* column, const Sources& from, const std::array<int32_t, kMaxPools>& bias,
                uint64_t pools);
  template <class T>
  bool Recomputed(Column<T>* column, const Sources& from, size_t block);
  void Widen();
  template <class T>
  static size_t Find(const T* values, size_t count, T value);
  bool Fitted(size_t slot) const {
    return is_narrow_ ? narrow_.score[slot] != Column<int16_t>::kNone
                      : wide_.score[slot] != Column<int32_t>::kNone;
  }

  Shape shape_;
  uint64_t seed_ = 0;  // of keys in the memo; 0: it is not used
  int32_t unit_ = 1;
  int32_t policy_unit_ = 1;
  bool is_narrow_ = true;
  Column<int16_t> narrow_;  // in use until a score does not fit in
  Column<int32_t> wide_;    // then this, with unit_ 1
  // Per block: its maximum may be too high; scores of nodes with untouched devices, too.
  static constexpr uint8_t kMaxStale = 1, kScoresStale = 2;
  std::vector<uint8_t> stale_;
  uint32_t best_block_ = 0;  // where the best node was last time
  uint64_t cursor_ = 0;
  uint32_t adapted_ = 0;
  bool fresh_ = true;
};

}  // namespace divvy::placement
