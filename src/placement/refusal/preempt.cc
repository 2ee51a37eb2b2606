// Preemption: tenants of lower priority end so that the request fits. The victims' highest priority
// decides, then how much they hold; whoever need not go is spared. A gang goes as a whole.
#include <algorithm>
#include <set>
#include <tuple>
#include <vector>

#include "src/placement/refusal/draft.h"
#include "src/placement/refusal/ways.h"

namespace divvy::placement {
namespace {

struct Victims {
  std::vector<TenantId> tenants;
  int32_t highest = 0;
  int64_t held = 0;
};

std::optional<Victims> OnNode(const Engine& engine, NodeId node, const Request& request,
                              const std::set<uint32_t>& untouchable) {
  Draft draft(engine, node);
  std::vector<TenantId> order;
  for (const TenantId t : draft.tenants()) {
    const Tenant& tenant = engine.tenant(t);
    if (tenant.priority < request.priority && !untouchable.contains(tenant.gang)) {
      order.push_back(t);
    }
  }
  for (const TenantId t : order) draft.Remove(engine.tenant(t));
  if (order.empty() || !Fits(draft.view(), request.shape)) return std::nullopt;
  // Spare the highest priorities first, then the largest.
  std::stable_sort(order.begin(), order.end(), [&](TenantId a, TenantId b) {
    const Tenant& x = engine.tenant(a);
    const Tenant& y = engine.tenant(b);
    return std::tuple(-x.priority, -HeldMilli(x)) < std::tuple(-y.priority, -HeldMilli(y));
  });
  Victims victims;
  for (const TenantId t : order) {
    draft.PutBack(engine.tenant(t));
    if (Fits(draft.view(), request.shape)) continue;
    draft.Remove(engine.tenant(t));
    victims.tenants.push_back(t);
  }
  return victims;
}

}  // namespace

std::optional<Plan> PlanPreemption(const Engine& engine, const Request& request) {
  // Gangs with a member that may not be preempted are left alone; 0 means no gang.
  std::set<uint32_t> untouchable;
  bool any_gang = false;
  for (NodeId id = 0; id < engine.cluster().size(); ++id) {
    for (TenantId t = engine.FirstOn(id); t != kNoTenant; t = engine.tenant(t).next) {
      const Tenant& tenant = engine.tenant(t);
      if (tenant.gang == 0) continue;
      any_gang = true;
      if (tenant.priority >= request.priority) untouchable.insert(tenant.gang);
    }
  }
  std::optional<Victims> best;
  NodeId where = kNoNode;
  for (NodeId id = 0; id < engine.cluster().size(); ++id) {
    if (!CouldHold(engine.cluster().node(id), request.shape)) continue;
    std::optional<Victims> v = OnNode(engine, id, request, untouchable);
    if (!v) continue;
    if (any_gang) {  // the rest of each victim's gang, wherever it is
      std::set<uint32_t> gangs;
      for (const TenantId t : v->tenants) gangs.insert(engine.tenant(t).gang);
      gangs.erase(0);
      for (NodeId n = 0; n < engine.cluster().size() && !gangs.empty(); ++n) {
        for (TenantId t = engine.FirstOn(n); t != kNoTenant; t = engine.tenant(t).next) {
          if (gangs.contains(engine.tenant(t).gang) &&
              std::find(v->tenants.begin(), v->tenants.end(), t) == v->tenants.end()) {
            v->tenants.push_back(t);
          }
        }
      }
    }
    if (v->tenants.empty()) continue;  // nobody stands there: nothing to preempt
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
  plan.way = Way::kPreempt;
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
