// Engine: see engine.h.
#include "src/placement/engine.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

namespace divvy::placement {
namespace {
constexpr uint64_t kChangesPerLook = 16;  // the cluster's totals move slowly
constexpr size_t kMaxCached = 768;        // shapes with scores
}  // namespace

Engine::Engine(std::unique_ptr<Policy> policy) : policy_(std::move(policy)) {}

void Engine::Learn(const Mix& mix) {
  policy_->Learn(mix, cluster_.hardware());
  Forget();
}

std::unique_ptr<Policy> Engine::Adopt(std::unique_ptr<Policy> learnt) {
  std::swap(policy_, learnt);
  Forget();
  return learnt;
}

void Engine::Forget() {
  cluster_.SetCpuPerWhole(policy_->CpuPerWhole());
  cached_.clear();
  cached_ids_.clear();
  where_.assign(shapes_.size(), {});
  ++epoch_;
  Look();
  Prepare();  // now, not in the first decision
}

void Engine::Changed(size_t times) {
  if (!marks_.empty()) return;  // Commit counts them
  const uint64_t before = changes_;
  changes_ += times;
  if (before / kChangesPerLook != changes_ / kChangesPerLook) Look();
}

void Engine::Look() {
  const Policy::Adaption adaption = policy_->Adapt(cluster_);
  if (adaption.changed == 0) return;
  ++adapted_.now;
  for (uint64_t rest = adaption.changed; rest != 0; rest &= rest - 1) {
    const auto pool = static_cast<size_t>(std::countr_zero(rest));
    adapted_.since[pool] = adapted_.now;
    if ((adaption.higher >> pool & 1) != 0) adapted_.higher_since[pool] = adapted_.now;
  }
}

ShapeId Engine::Intern(const Shape& shape) {
  const auto [it, added] = shape_ids_.try_emplace(shape, static_cast<ShapeId>(shapes_.size()));
  if (added) {
    shapes_.push_back(shape);
    where_.emplace_back();
  }
  return it->second;
}

Scores& Engine::ScoresOf(ShapeId id) {
  Where& where = where_[id];
  ++asked_;
  if (where.version != 0 && cached_[where.at].version == where.version) {
    cached_[where.at].used = asked_;
    return cached_[where.at].scores;
  }
  Shape key = shapes_[id];
  if (!where.own) key.models = policy_->ScoredAs(key).models;
  const auto [it, added] = cached_ids_.try_emplace(key);
  if (added) {
    size_t at = cached_.size();
    if (at < kMaxCached) {
      cached_.emplace_back();
    } else {
      const auto oldest =
          std::min_element(cached_.begin(), cached_.end(),
                           [](const Cached& a, const Cached& b) { return a.used < b.used; });
      cached_ids_.erase(oldest->scores.shape());
      at = static_cast<size_t>(oldest - cached_.begin());
    }
    cached_[at] = {Scores(key, *policy_, epoch_), asked_, ++versions_};
    it->second = static_cast<uint32_t>(at);
  }
  cached_[it->second].used = asked_;
  where.at = it->second;
  where.version = cached_[it->second].version;
  return cached_[it->second].scores;
}

void Engine::Prepare() {
  lanes_.Update(cluster_);
  memo_.Fit(cluster_.size());
  if (heads_.size() < cluster_.size()) heads_.resize(cluster_.size(), kNoTenant);
}

NodeId Engine::Best(ShapeId id) {
  const Shape& shape = shapes_[id];
  Prepare();
  Scores* scores = &ScoresOf(id);
  scores->Prefetch();
  std::array<int32_t, kMaxPools> bias;
  uint32_t& kind = where_[id].bias_kind;
  if (kind == kUnasked) kind = policy_->Draws() ? Policy::kNoBias : policy_->BiasKind(shape);
  if (kind == Policy::kNoBias) {
    bias.fill(0);
  } else {
    policy_->PoolBias(kind, shape, cluster_.pools().size(), &bias);
  }
  for (;;) {
    const Sources from{cluster_, lanes_, *policy_, adapted_, memo_};
    scores->Refresh(from);
    if (policy_->Draws()) {
      const uint32_t fitting = scores->CountFitting();
      if (fitting == 0) return kNoNode;
      return scores->NthFitting(lanes_, policy_->Draw(changes_ + journal_.size(), fitting));
    }
    const NodeId node = scores->Best(from, bias, cluster_.PoolsOf(shape));
    if (node != kNoNode) {  // it will probably change
      cluster_.PrefetchChange(node);
      __builtin_prefetch(&heads_[node]);
    }
    if (node == kNoNode || where_[id].own || Fits(cluster_.View(node), shape)) return node;
    where_[id].own = true;
    where_[id].version = 0;
    scores = &ScoresOf(id);
  }
}

std::optional<Decision> Engine::Decide(ShapeId id) {
  const NodeId node = Best(id);
  if (node == kNoNode) return std::nullopt;
  const Choice choice = policy_->Evaluate(cluster_.View(node), shapes_[id]);
  return Decision{node, choice.devices, choice.score};
}

TenantId Engine::Place(const Request& request) { return Place(Intern(request.shape), request); }

TenantId Engine::Place(ShapeId shape, const Request& request) {
  const std::optional<Decision> d = Decide(shape);
  return d ? PlaceAt(shape, request, d->node, d->devices) : kNoTenant;
}

TenantId Engine::PlaceAt(ShapeId shape, const Request& request, NodeId node, DeviceMask devices) {
  return PlaceAt(shape, request, node, devices, shapes_[shape].compute_milli);
}

TenantId Engine::PlaceAt(ShapeId shape, const Request& request, NodeId node, DeviceMask devices,
                         int32_t granted_milli) {
  TenantId id = free_;
  if (id != kNoTenant) {
    free_ = At(id).next;
  } else {
    id = static_cast<TenantId>(tenant_slots_++);
    if (id % kTenantBlock == 0) tenant_blocks_.push_back(std::make_unique<Tenant[]>(kTenantBlock));
  }
  Tenant t;
  t.shape = shape;
  t.node = node;
  t.devices = devices;
  t.space = request.space;
  t.gang = request.gang;
  t.granted_milli = static_cast<int16_t>(granted_milli);
  t.min_milli = static_cast<int16_t>(request.min_compute_milli);
  t.priority = request.priority;
  t.service = request.service;
  Attach(id, t);
  if (!marks_.empty()) journal_.push_back({Undo::Op::kPlace, id, {}});
  Changed();
  return id;
}

void Engine::Release(TenantId id) {
  if (!marks_.empty()) journal_.push_back({Undo::Op::kRelease, id, At(id)});
  Detach(id);
  // Inside a transaction the record stays reserved, so that undoing restores the same id.
  if (marks_.empty()) {
    At(id).next = free_;
    free_ = id;
  }
  Changed();
}

void Engine::Relocate(TenantId id, NodeId node, DeviceMask devices) {
  Tenant moved = At(id);
  if (!marks_.empty()) journal_.push_back({Undo::Op::kRelocate, id, moved});
  Detach(id);
  moved.node = node;
  moved.devices = devices;
  Attach(id, moved);
  Changed();
}

void Engine::Resize(TenantId id, int32_t granted_milli) {
  Tenant& t = At(id);
  if (!marks_.empty()) journal_.push_back({Undo::Op::kResize, id, t});
  Shape shape = shapes_[t.shape];
  cluster_.Give(t.node, shape, t.devices, t.granted_milli);
  t.granted_milli = static_cast<int16_t>(granted_milli);
  cluster_.Take(t.node, shape, t.devices, t.granted_milli);
  Changed();
}

void Engine::Begin() { marks_.push_back(journal_.size()); }

void Engine::Commit() {
  marks_.pop_back();
  if (!marks_.empty()) return;  // an outer transaction may still undo this one
  for (const Undo& u : journal_) {
    if (u.op != Undo::Op::kRelease) continue;
    At(u.id).next = free_;
    free_ = u.id;
  }
  const size_t times = journal_.size();
  journal_.clear();
  Changed(times);
}

void Engine::Rollback() {
  const size_t mark = marks_.back();
  marks_.pop_back();
  while (journal_.size() > mark) {
    const Undo u = journal_.back();
    journal_.pop_back();
    switch (u.op) {
      case Undo::Op::kPlace:
        Detach(u.id);
        At(u.id).next = free_;
        free_ = u.id;
        break;
      case Undo::Op::kRelease:
        Attach(u.id, u.before);
        break;
      case Undo::Op::kRelocate:
        Detach(u.id);
        Attach(u.id, u.before);
        break;
      case Undo::Op::kResize: {
        Tenant& t = At(u.id);
        const Shape& shape = shapes_[t.shape];
        cluster_.Give(t.node, shape, t.devices, t.granted_milli);
        t.granted_milli = u.before.granted_milli;
        cluster_.Take(t.node, shape, t.devices, t.granted_milli);
        break;
      }
    }
  }
}

void Engine::Attach(TenantId id, const Tenant& tenant) {
  if (heads_.size() < cluster_.size()) heads_.resize(cluster_.size(), kNoTenant);
  Tenant& t = At(id);
  t = tenant;
  t.next = heads_[t.node];
  heads_[t.node] = id;
  cluster_.Take(t.node, shapes_[t.shape], t.devices, t.granted_milli);
  ++live_;
}

void Engine::Detach(TenantId id) {
  Tenant& t = At(id);
  TenantId* link = &heads_[t.node];
  while (*link != id) link = &At(*link).next;
  *link = t.next;
  cluster_.Give(t.node, shapes_[t.shape], t.devices, t.granted_milli);
  t.node = kNoNode;
  --live_;
}

size_t Engine::BytesUsed() const {
  size_t n = tenant_blocks_.size() * kTenantBlock * sizeof(Tenant) +
             heads_.capacity() * sizeof(TenantId) +
             cluster_.size() * (sizeof(Node) + kKinds * sizeof(uint16_t)) +
             static_cast<size_t>(cluster_.total_milli() / kWholeMilli) * sizeof(Device);
  n += memo_.BytesUsed();
  for (const Cached& c : cached_) n += c.scores.BytesUsed();
  return n;
}

}  // namespace divvy::placement
