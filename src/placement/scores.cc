// Scores: see scores.h. The block loops have constant trip counts so that they vectorise.
#include "src/placement/scores.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

namespace divvy::placement {
namespace {
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
    run_of_.resize(begin + blocks, static_cast<uint16_t>(runs_.size()));
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

template <class T>
void Scores::Column<T>::Recompute(size_t block) {
  const T* s = score.data() + block * kBlock;
  T best = kNone;
  for (size_t i = 0; i < kBlock; ++i) best = std::max(best, s[i]);
  max[block] = best;
}

template <class T>
bool Scores::Column<T>::Raise(size_t block, uint16_t run, int32_t by) {
  if (max[block] == kNone) return true;
  if (max[block] > std::numeric_limits<T>::max() - by) return false;
  max[block] = static_cast<T>(max[block] + by);
  top[run] = std::max(top[run], max[block]);
  return true;
}

template <class T>
size_t Scores::Column<T>::Count() const {
  return score.size() - static_cast<size_t>(std::count(score.begin(), score.end(), kNone));
}

template <class T>
size_t Scores::Column<T>::Nth(uint32_t n) const {
  for (size_t i = 0; i < score.size(); ++i) {
    if (score[i] != kNone && n-- == 0) return i;
  }
  return score.size();
}

Scores::Scores(const Shape& shape, const Policy& policy, uint32_t epoch)
    : shape_(shape), unit_(policy.ScoreUnit()), policy_unit_(unit_) {
  if (policy.ByState(shape)) seed_ = Scramble(ShapeHash()(policy.ScoredAs(shape)) + epoch) | 1;
}

int32_t Scores::Evaluate(const Sources& from, NodeId id) const {
  const NodeView view = from.cluster.View(id);
  return Fits(view, shape_) ? from.policy.Evaluate(view, shape_).score : kNoFit;
}

int32_t Scores::Known(const Sources& from, NodeId id, uint64_t key) const {
  if (const int32_t* known = from.memo.Find(key)) return *known;
  const int32_t score = Evaluate(from, id);
  from.memo.Put(key, score);
  return score;
}

void Scores::Widen() {
  const auto widen = [this](const std::vector<int16_t>& from, std::vector<int32_t>* to) {
    to->assign(from.size(), Column<int32_t>::kNone);
    for (size_t i = 0; i < from.size(); ++i) {
      if (from[i] == Column<int16_t>::kNone) continue;  // a bound that is too high may overflow
      (*to)[i] = static_cast<int32_t>(
          std::min<int64_t>(int64_t{from[i]} * unit_, std::numeric_limits<int32_t>::max()));
    }
  };
  widen(narrow_.score, &wide_.score);
  widen(narrow_.max, &wide_.max);
  widen(narrow_.top, &wide_.top);
  is_narrow_ = false;
  unit_ = 1;
  narrow_ = {};
}

template <class T>
void Scores::SetIn(Column<T>* column, const Lanes& lanes, size_t slot, T now) {
  const size_t block = slot / kBlock;
  const T before = column->score[slot];
  if (now == before) return;
  column->score[slot] = now;
  if (now >= column->max[block]) {
    column->max[block] = now;
    T& top = column->top[lanes.RunOf(block)];
    top = std::max(top, now);
    stale_[block] &= static_cast<uint8_t>(~kMaxStale);
  } else if (before == column->max[block]) {
    stale_[block] |= kMaxStale;  // looked at again only if it would win
  }
}

void Scores::SetOther(const Lanes& lanes, size_t slot, int32_t score) {
  if (is_narrow_) Widen();
  SetIn(&wide_, lanes, slot, score);
}

void Scores::Resize(const Sources& from) {
  if (stale_.size() * kBlock == from.lanes.size() && !fresh_) return;
  if (is_narrow_) narrow_.Resize(from.lanes);
  if (!is_narrow_) wide_.Resize(from.lanes);
  stale_.resize(from.lanes.size() / kBlock, 0);
}

void Scores::Add(const Sources& from, NodeId id, Alike* alike, Batch* batch) {
  const Node& n = from.cluster.node(id);
  const uint64_t key = Key(from.adapted, StateOf(n), n.whole);
  if (n.whole == n.device_count && n.cpu_left == n.cpu_total) {
    if (alike->key[n.pool] == 0 && from.cluster.Untouched(id)) {
      alike->key[n.pool] = key;
      alike->score[n.pool] = Evaluate(from, id);
    }
    if (alike->key[n.pool] == key && (seed_ != 0 || from.cluster.Untouched(id))) {
      return Set(from.lanes, from.lanes.SlotOf(id), alike->score[n.pool]);
    }
  }
  batch->items[batch->size++] = {id, static_cast<uint32_t>(from.lanes.SlotOf(id)), key};
  if (batch->size == kBatch) Rescore(from, batch);
}

void Scores::RefreshAll(const Sources& from) {
  const Cluster& cluster = from.cluster;
  narrow_ = {};
  wide_ = {};
  stale_.clear();
  Resize(from);
  for (size_t run = 0; run < from.lanes.runs().size(); ++run) FillRun(from, run);
  Alike alike;
  Batch batch;
  for (size_t word = 0; word * 64 < cluster.size(); ++word) {
    for (uint64_t rest = cluster.Touched(word); rest != 0; rest &= rest - 1) {
      const auto id = static_cast<NodeId>(word * 64 + static_cast<size_t>(std::countr_zero(rest)));
      if (MayFit(cluster.node(id), shape_)) {
        Add(from, id, &alike, &batch);
      } else {
        SetNone(from.lanes, from.lanes.SlotOf(id));
      }
    }
  }
  Rescore(from, &batch);
}

template <class T>
void Scores::FillIn(Column<T>* column, const Lanes::Run& run, size_t at, size_t filled) {
  const T score = column->score[at];
  std::fill_n(column->score.begin() + static_cast<ptrdiff_t>(run.begin * kBlock), filled, score);
  std::fill_n(column->max.begin() + run.begin, (filled + kBlock - 1) / kBlock, score);
}

// Nodes that nothing was ever placed on are alike within a pool: one of them is scored. The others
// of the run get that score as well, for now.
void Scores::FillRun(const Sources& from, size_t run) {
  const Lanes::Run& r = from.lanes.runs()[run];
  size_t filled = (r.end - r.begin) * kBlock;
  while (filled > 0 && from.lanes.NodeAt(r.begin * kBlock + filled - 1) == kNoNode) --filled;
  for (size_t slot = r.begin * kBlock; slot < r.begin * kBlock + filled; ++slot) {
    const NodeId id = from.lanes.NodeAt(slot);
    if (from.cluster.EverTouched(id)) continue;
    Set(from.lanes, slot, Evaluate(from, id));
    is_narrow_ ? FillIn(&narrow_, r, slot, filled) : FillIn(&wide_, r, slot, filled);
    return;
  }
}

// The policy says other than before of nodes with untouched devices in some pools. Where it says
// less, a block is looked at when it would win.
void Scores::RefreshAdapted(const Sources& from) {
  for (const Lanes::Run& run : from.lanes.runs()) {
    if (from.adapted.since[run.pool] <= adapted_) continue;
    const bool higher = from.adapted.higher_since[run.pool] > adapted_;
    for (uint32_t block = run.begin; block < run.end; ++block) {
      // Lower, but for rounding.
      const uint16_t in = from.lanes.RunOf(block);
      if (!higher &&
          (is_narrow_ ? narrow_.Raise(block, in, 1) : wide_.Raise(block, in, policy_unit_))) {
        stale_[block] = kMaxStale | kScoresStale;
      } else {
        RefreshWhole(from, block);
      }
    }
  }
}

void Scores::RefreshWhole(const Sources& from, size_t block) {
  constexpr size_t kAhead = 16;
  const size_t end = (block + 1) * kBlock;
  Alike alike;
  Batch batch;
  for (size_t slot = block * kBlock; slot < end; ++slot) {
    const NodeId ahead = from.lanes.NodeAt(std::min(slot + kAhead, end - 1));
    if (ahead != kNoNode) from.cluster.Prefetch(ahead);
    const NodeId id = from.lanes.NodeAt(slot);
    if (id == kNoNode || !Fitted(slot)) continue;
    if (from.cluster.node(id).whole > 0) Add(from, id, &alike, &batch);
  }
  Rescore(from, &batch);
  stale_[block] &= static_cast<uint8_t>(~kScoresStale);
}

void Scores::Refresh(const Sources& from) {
  const Cluster& cluster = from.cluster;
  const uint64_t end = cluster.log_end();
  if (fresh_ || cursor_ < cluster.log_begin() || end - cursor_ >= cluster.size()) {
    RefreshAll(from);
    fresh_ = false;
    adapted_ = from.adapted.now;
    cursor_ = end;
    return;
  }
  Resize(from);
  const Needs needs(shape_);
  Batch batch;
  std::array<uint32_t, kBatch> gone;  // slots of nodes that the shape does not fit now
  for (uint64_t first = cursor_ - cursor_ % kBatch; first < end; first += kBatch) {
    uint64_t counting = cluster.Counting(first);
    if (first < cursor_) counting &= ~uint64_t{0} << (cursor_ - first);
    if (end - first < kBatch) counting &= ~(~uint64_t{0} << (end - first));
    // No branches: whether it fits cannot be predicted. All over the memory: asked for ahead.
    size_t left = 0;
    for (; counting != 0; counting &= counting - 1) {
      const Change& change = cluster.Changed(first + std::countr_zero(counting));
      const auto slot = static_cast<uint32_t>(from.lanes.SlotOf(change.id));
      const bool fits = needs.MetBy(change);
      const uint64_t key = Key(from.adapted, change.state, change.whole);
      batch.items[batch.size] = {change.id, slot, key};
      gone[left] = slot;
      batch.size += fits;
      left += !fits;
      is_narrow_ ? __builtin_prefetch(&narrow_.score[slot])
                 : __builtin_prefetch(&wide_.score[slot]);
      from.memo.Prefetch(fits ? key : 0);
    }
    for (size_t i = 0; i < left; ++i) SetNone(from.lanes, gone[i]);
    Rescore(from, &batch);
  }
  cursor_ = end;
  if (adapted_ != from.adapted.now) RefreshAdapted(from);
  adapted_ = from.adapted.now;
}

void Scores::Rescore(const Sources& from, Batch* batch) {
  const size_t size = batch->size;
  batch->size = 0;
  std::array<uint8_t, kBatch> unknown;
  size_t n = 0;
  for (size_t i = 0; i < size; ++i) {
    const Item& item = batch->items[i];
    if (const int32_t* known = seed_ == 0 ? nullptr : from.memo.Find(item.key)) {
      Set(from.lanes, item.slot, *known);
    } else {
      unknown[n++] = static_cast<uint8_t>(i);
      from.cluster.Prefetch(item.id);
    }
  }
  for (size_t i = 0; i < n; ++i) from.cluster.PrefetchDevices(batch->items[unknown[i]].id);
  for (size_t i = 0; i < n; ++i) {
    const Item& item = batch->items[unknown[i]];
    Set(from.lanes, item.slot,
        seed_ == 0 ? Evaluate(from, item.id) : Known(from, item.id, item.key));
  }
}

// Where the value, which is there, stands first. In steps that vectorise.
template <class T>
size_t Scores::Find(const T* values, size_t count, T value) {
  constexpr size_t kStep = 32;
  size_t at = 0;
  for (; at + kStep <= count; at += kStep) {
    T there = 0;
    for (size_t i = 0; i < kStep; ++i) there |= static_cast<T>(values[at + i] == value ? -1 : 0);
    if (there != 0) break;
  }
  while (values[at] != value) ++at;
  return at;
}

// Brings a block that would win up to date. False: its scores no longer fit in the column.
template <class T>
bool Scores::Recomputed(Column<T>* column, const Sources& from, size_t block) {
  if ((stale_[block] & kScoresStale) != 0) RefreshWhole(from, block);
  if (sizeof(T) == 2 && !is_narrow_) return false;
  column->Recompute(block);
  stale_[block] &= static_cast<uint8_t>(~kMaxStale);
  return true;
}

template <class T>
NodeId Scores::BestIn(Column<T>* column, const Sources& from,
                      const std::array<int32_t, kMaxPools>& bias, uint64_t pools) {
  const std::vector<Lanes::Run>& runs = from.lanes.runs();
  int64_t best = std::numeric_limits<int64_t>::min();  // a bias may take a fit below kNoFit
  NodeId first = kNoNode;                              // of those with the best score
  // Where the best was last time is looked at first: then most runs need no look at their blocks.
  const size_t likely = from.lanes.RunOf(best_block_);
  for (size_t i = 0; i <= runs.size(); ++i) {
    const size_t at = i == 0 ? likely : i - 1;
    if (i > 0 && at == likely) continue;
    const Lanes::Run& run = runs[at];
    T& top = column->top[at];
    while ((pools >> run.pool & 1) != 0) {
      if (top == Column<T>::kNone || int64_t{top} * unit_ + bias[run.pool] < best) break;
      const T* maxima = column->max.data();
      T max = Column<T>::kNone;
      for (uint32_t b = run.begin; b < run.end; ++b) max = std::max(max, maxima[b]);
      top = max;
      const int64_t score = int64_t{max} * unit_ + bias[run.pool];
      if (max == Column<T>::kNone || score < best) break;
      const size_t block = run.begin + Find(maxima + run.begin, run.end - run.begin, max);
      if (stale_[block] != 0) {
        // Was a score too large for 16 bits?
        if (!Recomputed(column, from, block)) return Best(from, bias, pools);
        if (column->max[block] != max) continue;  // else it is still the first with most
      }
      const size_t begin = block * kBlock;
      const NodeId node =
          from.lanes.NodeAt(begin + Find(column->score.data() + begin, kBlock, max));
      if (score > best) best_block_ = static_cast<uint32_t>(block);
      first = score > best ? node : std::min(first, node);
      best = score;
      break;
    }
  }
  return first;
}

NodeId Scores::Best(const Sources& from, const std::array<int32_t, kMaxPools>& bias,
                    uint64_t pools) {
  return is_narrow_ ? BestIn(&narrow_, from, bias, pools) : BestIn(&wide_, from, bias, pools);
}

uint32_t Scores::CountFitting() const {
  return static_cast<uint32_t>(is_narrow_ ? narrow_.Count() : wide_.Count());
}

NodeId Scores::NthFitting(const Lanes& lanes, uint32_t n) const {
  const size_t slot = is_narrow_ ? narrow_.Nth(n) : wide_.Nth(n);
  return slot < lanes.size() ? lanes.NodeAt(slot) : kNoNode;
}

}  // namespace divvy::placement
