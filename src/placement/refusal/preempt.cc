// Preemption: tenants end so that the request fits. Either those of lower priority, or (reclaiming)
// those of namespaces that hold more than their fair share, down to that share. The victims'
// highest priority decides, then how much they hold; whoever need not go is spared. A gang goes as
// a whole.
#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "src/placement/refusal/draft.h"
#include "src/placement/refusal/ways.h"

namespace divvy::placement {
namespace {

// Who may be ended for the request. By priority, or within what each namespace has too much.
class Prey {
 public:
  Prey(const Engine& engine, const Request& request, const std::vector<int64_t>* surplus_milli)
      : engine_(engine), request_(request), surplus_(surplus_milli) {
    // Gangs with a member that may not go are left alone; 0 means no gang.
    for (NodeId id = 0; id < engine.cluster().size(); ++id) {
      for (TenantId t = engine.FirstOn(id); t != kNoTenant; t = engine.tenant(t).next) {
        const uint32_t gang = engine.tenant(t).gang;
        if (gang == 0) continue;
        gangs_[gang].push_back(t);
        if (!MayAlone(t)) untouchable_.insert(gang);
      }
    }
  }
  bool May(TenantId t) const {
    return !untouchable_.contains(engine_.tenant(t).gang) && MayAlone(t);
  }
  // No namespace is left with less than its fair share.
  bool Together(const std::vector<TenantId>& tenants) const {
    if (surplus_ == nullptr) return true;
    std::map<uint16_t, int64_t> taken;
    for (const TenantId t : tenants) taken[engine_.tenant(t).space] += Charged(t);
    return std::all_of(taken.begin(), taken.end(),
                       [&](const auto& s) { return s.second <= Surplus(s.first); });
  }
  const std::vector<TenantId>& Gang(uint32_t gang) const { return gangs_.at(gang); }

 private:
  bool MayAlone(TenantId t) const {
    const Tenant& tenant = engine_.tenant(t);
    if (surplus_ == nullptr) return tenant.priority < request_.priority;
    return tenant.space != request_.space && Charged(t) > 0 && Charged(t) <= Surplus(tenant.space);
  }
  // As quotas count it: what was asked for, also where it is squeezed.
  int64_t Charged(TenantId t) const { return engine_.shape(engine_.tenant(t).shape).TotalMilli(); }
  int64_t Surplus(uint16_t space) const {
    return space < surplus_->size() ? (*surplus_)[space] : 0;
  }

  const Engine& engine_;
  const Request& request_;
  const std::vector<int64_t>* surplus_;  // null: by priority
  std::map<uint32_t, std::vector<TenantId>> gangs_;
  std::set<uint32_t> untouchable_;
};

struct Victims {
  std::vector<TenantId> tenants;
  int32_t highest = 0;
  int64_t held = 0;
};

std::optional<Victims> OnNode(const Engine& engine, NodeId node, const Request& request,
                              const Prey& prey) {
  Draft draft(engine, node);
  std::vector<TenantId> order;
  for (const TenantId t : draft.tenants()) {
    if (prey.May(t)) order.push_back(t);
  }
  if (order.empty()) return std::nullopt;
  // The highest priorities are spared first, then the largest.
  std::stable_sort(order.begin(), order.end(), [&](TenantId a, TenantId b) {
    const Tenant& x = engine.tenant(a);
    const Tenant& y = engine.tenant(b);
    return std::tuple(-x.priority, -HeldMilli(x)) < std::tuple(-y.priority, -HeldMilli(y));
  });
  std::vector<TenantId> leaving;
  for (auto t = order.rbegin(); t != order.rend(); ++t) {
    leaving.push_back(*t);
    if (prey.Together(leaving)) {
      draft.Remove(engine.tenant(*t));
    } else {
      leaving.pop_back();
    }
  }
  if (!Fits(draft.view(), request.shape)) return std::nullopt;
  Victims victims;
  for (auto t = leaving.rbegin(); t != leaving.rend(); ++t) {
    draft.PutBack(engine.tenant(*t));
    if (Fits(draft.view(), request.shape)) continue;
    draft.Remove(engine.tenant(*t));
    victims.tenants.push_back(*t);
  }
  return victims;
}

}  // namespace

std::optional<Plan> PlanPreemption(const Engine& engine, const Request& request,
                                   const std::vector<int64_t>* surplus_milli) {
  const Prey prey(engine, request, surplus_milli);
  std::optional<Victims> best;
  NodeId where = kNoNode;
  for (NodeId id = 0; id < engine.cluster().size(); ++id) {
    if (!CouldHold(engine.cluster().node(id), request.shape)) continue;
    std::optional<Victims> v = OnNode(engine, id, request, prey);
    if (!v || v->tenants.empty()) continue;  // nobody stands there: nothing to preempt
    std::set<uint32_t> gangs;                // the rest of each victim's gang, wherever it is
    for (const TenantId t : v->tenants) gangs.insert(engine.tenant(t).gang);
    gangs.erase(0);
    for (const uint32_t gang : gangs) {
      for (const TenantId t : prey.Gang(gang)) {
        if (std::find(v->tenants.begin(), v->tenants.end(), t) == v->tenants.end()) {
          v->tenants.push_back(t);
        }
      }
    }
    if (!prey.Together(v->tenants)) continue;
    v->highest = engine.tenant(v->tenants.front()).priority;
    for (const TenantId t : v->tenants) {
      v->highest = std::max<int32_t>(v->highest, engine.tenant(t).priority);
      v->held += HeldMilli(engine.tenant(t));
    }
    const auto key = [](const Victims& x) {
      return std::tuple(x.highest, x.held, x.tenants.size());
    };
    if (!best || key(*v) < key(*best)) {
      best = std::move(v);
      where = id;
    }
  }
  if (!best) return std::nullopt;
  Plan plan;
  plan.way = surplus_milli == nullptr ? Way::kPreempt : Way::kReclaim;
  plan.node = where;
  plan.granted_milli = request.shape.compute_milli;
  plan.cost = best->held;
  Draft draft(engine, where);
  for (const TenantId t : best->tenants) {
    plan.steps.push_back({Step::What::kPreempt, t, kNoNode, 0, kNoNode, 0});
    if (engine.tenant(t).node == where) draft.Remove(engine.tenant(t));
  }
  plan.devices = UsualDevices(draft.view(), request.shape);
  return plan;
}

}  // namespace divvy::placement
