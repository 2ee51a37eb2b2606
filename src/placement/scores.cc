// Scores: see scores.h. The block loops have constant trip counts so that they vectorise.
#include "src/placement/scores.h"

#include <algorithm>
#include <array>
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
bool Scores::Column<T>::Raise(size_t block, int32_t by) {
  if (max[block] == kNone) return true;
  if (max[block] > std::numeric_limits<T>::max() - by) return false;
  max[block] = static_cast<T>(max[block] + by);
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
  wide_.Resize(narrow_.score.size());
  for (size_t i = 0; i < wide_.score.size(); ++i) {
    if (narrow_.score[i] != Column<int16_t>::kNone) wide_.score[i] = narrow_.score[i] * unit_;
  }
  for (size_t b = 0; b < wide_.max.size(); ++b) {  // also where they are too high
    if (narrow_.max[b] == Column<int16_t>::kNone) continue;
    wide_.max[b] = static_cast<int32_t>(
        std::min<int64_t>(int64_t{narrow_.max[b]} * unit_, std::numeric_limits<int32_t>::max()));
  }
  is_narrow_ = false;
  unit_ = 1;
  narrow_ = {};
}

void Scores::RecomputeBlock(size_t block) {
  is_narrow_ ? narrow_.Recompute(block) : wide_.Recompute(block);
  stale_[block] &= static_cast<uint8_t>(~kMaxStale);
}

template <class T>
void Scores::SetIn(Column<T>* column, size_t slot, NodeId id, T now) {
  const size_t block = slot / kBlock;
  const T before = column->score[slot];
  if (now == before) return;
  column->score[slot] = now;
  if ((now == Column<T>::kNone) != (before == Column<T>::kNone)) {
    SetFits(id, now != Column<T>::kNone);
  }
  if (now >= column->max[block]) {
    column->max[block] = now;
    stale_[block] &= static_cast<uint8_t>(~kMaxStale);
  } else if (before == column->max[block]) {
    stale_[block] |= kMaxStale;  // looked at again only if it would win
  }
}

void Scores::SetOther(size_t slot, NodeId id, int32_t score) {
  if (is_narrow_) Widen();
  SetIn(&wide_, slot, id, score);
}

void Scores::Resize(const Sources& from) {
  if (is_narrow_) narrow_.Resize(from.lanes.size());
  if (!is_narrow_) wide_.Resize(from.lanes.size());
  stale_.resize(from.lanes.size() / kBlock, 0);
  fits_.resize((from.cluster.size() + 63) / 64, 0);
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
      return Set(from.lanes.SlotOf(id), id, alike->score[n.pool]);
    }
  }
  batch->items[batch->size++] = {id, true, key};
  if (batch->size == kBatch) Rescore(from, batch);
}

void Scores::RefreshAll(const Sources& from) {
  const Cluster& cluster = from.cluster;
  narrow_.score.clear();
  narrow_.max.clear();
  wide_.score.clear();
  wide_.max.clear();
  stale_.clear();
  fits_.clear();
  Resize(from);
  Alike alike;
  Batch batch;
  for (NodeId id = 0; id < cluster.size(); ++id) {
    if (MayFit(cluster.node(id), shape_)) Add(from, id, &alike, &batch);
  }
  Rescore(from, &batch);
}

// The policy says other than before of nodes with untouched devices in some pools. Where it says
// less, a block is looked at when it would win.
void Scores::RefreshAdapted(const Sources& from) {
  for (const Lanes::Run& run : from.lanes.runs()) {
    if (from.adapted.since[run.pool] <= adapted_) continue;
    const bool higher = from.adapted.higher_since[run.pool] > adapted_;
    for (uint32_t block = run.begin; block < run.end; ++block) {
      // Lower, but for rounding.
      if (!higher && (is_narrow_ ? narrow_.Raise(block, 1) : wide_.Raise(block, policy_unit_))) {
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
    if (id == kNoNode || !Fitted(id)) continue;
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
  Batch batch;
  const Needs needs(shape_);
  while (cursor_ < end) {
    // Most entries end here: a later one counts, or the shape fitted neither before nor now. No
    // branches: which entries do cannot be predicted.
    const uint64_t stop = std::min<uint64_t>(end, cursor_ + kBatch);
    std::array<const Change*, kBatch> live;
    size_t n = 0;
    for (; cursor_ < stop; ++cursor_) {
      const Change& change = cluster.Changed(cursor_);
      live[n] = &change;
      n += change.id != kNoNode;
    }
    for (size_t i = 0; i < n; ++i) {
      const Change& change = *live[i];
      const bool fits = needs.MetBy(change);
      batch.items[batch.size] = {change.id, fits, change.state};
      if (fits) batch.items[batch.size].key = Key(from.adapted, change.state, change.whole);
      batch.size += fits | Fitted(change.id);
    }
    Rescore(from, &batch);
  }
  if (adapted_ != from.adapted.now) RefreshAdapted(from);
  adapted_ = from.adapted.now;
}

void Scores::Rescore(const Sources& from, Batch* batch) {
  // These are random accesses all over the cluster.
  const size_t size = batch->size;
  batch->size = 0;
  std::array<uint32_t, kBatch> slots;
  for (size_t i = 0; i < size; ++i) {
    const Item& item = batch->items[i];
    slots[i] = static_cast<uint32_t>(from.lanes.SlotOf(item.id));
    is_narrow_ ? __builtin_prefetch(&narrow_.score[slots[i]])
               : __builtin_prefetch(&wide_.score[slots[i]]);
    if (item.fits && seed_ != 0) from.memo.Prefetch(item.key);
    if (item.fits && seed_ == 0) from.cluster.Prefetch(item.id);
  }
  std::array<uint8_t, kBatch> unknown;
  size_t n = 0;
  for (size_t i = 0; i < size; ++i) {
    const Item& item = batch->items[i];
    const int32_t* known = item.fits && seed_ != 0 ? from.memo.Find(item.key) : nullptr;
    if (!item.fits || known != nullptr) {
      Set(slots[i], item.id, item.fits ? *known : kNoFit);
      continue;
    }
    unknown[n++] = static_cast<uint8_t>(i);
    if (seed_ != 0) from.cluster.Prefetch(item.id);
  }
  for (size_t i = 0; i < n; ++i) from.cluster.PrefetchDevices(batch->items[unknown[i]].id);
  for (size_t i = 0; i < n; ++i) {
    const Item& item = batch->items[unknown[i]];
    Set(slots[unknown[i]], item.id,
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

template <class T>
NodeId Scores::BestIn(Column<T>* column, const Sources& from,
                      const std::array<int32_t, kMaxPools>& bias, uint64_t pools) {
  int64_t best = std::numeric_limits<int64_t>::min();  // a bias may take a fit below kNoFit
  NodeId first = kNoNode;                              // of those with the best score
  for (const Lanes::Run& run : from.lanes.runs()) {
    while ((pools >> run.pool & 1) != 0) {
      const T* maxima = column->max.data();
      T max = Column<T>::kNone;
      for (uint32_t b = run.begin; b < run.end; ++b) max = std::max(max, maxima[b]);
      const int64_t score = int64_t{max} * unit_ + bias[run.pool];
      if (max == Column<T>::kNone || score < best) break;
      const size_t block = run.begin + Find(maxima + run.begin, run.end - run.begin, max);
      if (stale_[block] != 0) {
        if ((stale_[block] & kScoresStale) != 0) RefreshWhole(from, block);
        // Was a score too large for 16 bits?
        if (sizeof(T) == 2 && !is_narrow_) return Best(from, bias, pools);
        RecomputeBlock(block);
        continue;
      }
      const size_t begin = block * kBlock;
      const NodeId node =
          from.lanes.NodeAt(begin + Find(column->score.data() + begin, kBlock, max));
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
