// Migration: a few tenants move elsewhere so that the request fits. Per node the cheapest set that
// makes room is guessed greedily; the cheapest nodes are then tried for real, in a transaction.
#include <algorithm>
#include <vector>

#include "src/placement/refusal/draft.h"
#include "src/placement/refusal/ways.h"

namespace divvy::placement {
namespace {

struct Candidate {
  NodeId node;
  int64_t cost = 0;
  std::vector<TenantId> out;
};

// What moving a tenant costs: the device memory or compute that has to be copied.
int64_t MoveCost(const Engine& engine, TenantId id) {
  const Tenant& t = engine.tenant(id);
  return 1 + HeldMilli(t) + engine.shape(t.shape).device_memory_mib / 64;
}

// Takes tenants out, cheapest first, until the request fits; then puts back, dearest first, who
// need not have gone. None if more than `most` would have to go.
std::optional<Candidate> MakeRoom(const Engine& engine, NodeId node, const Shape& shape, int most) {
  Draft draft(engine, node);
  std::vector<TenantId> order = draft.tenants();
  // Tenants that hold nothing the request lacks stay: CPU-only ones if the CPU suffices.
  const Node& n = engine.cluster().node(node);
  const bool cpu_short =
      n.cpu_left < shape.cpu_milli || n.memory_left < shape.memory_mib || n.slots_left < 1;
  std::erase_if(order, [&](TenantId t) { return !cpu_short && engine.tenant(t).devices == 0; });
  std::stable_sort(order.begin(), order.end(), [&](TenantId a, TenantId b) {
    return MoveCost(engine, a) < MoveCost(engine, b);
  });
  std::vector<TenantId> out;
  for (const TenantId t : order) {
    if (Fits(draft.view(), shape)) break;
    draft.Remove(engine.tenant(t));
    out.push_back(t);
  }
  if (!Fits(draft.view(), shape)) return std::nullopt;
  Candidate candidate{node, 0, {}};
  for (auto it = out.rbegin(); it != out.rend(); ++it) {
    draft.PutBack(engine.tenant(*it));
    if (Fits(draft.view(), shape)) continue;
    draft.Remove(engine.tenant(*it));
    candidate.out.push_back(*it);
    candidate.cost += MoveCost(engine, *it);
    if (static_cast<int>(candidate.out.size()) > most) return std::nullopt;
  }
  return candidate;
}

// Finds new places for those who leave; empty if one of them finds none.
std::vector<Step> FindPlaces(Engine& engine, const Request& request, const Candidate& c,
                             Plan* plan) {
  const ShapeId shape = engine.Intern(request.shape);
  std::vector<Step> steps;
  engine.Begin();
  std::vector<Tenant> before;
  for (const TenantId t : c.out) before.push_back(engine.tenant(t));
  for (const TenantId t : c.out) engine.Release(t);
  const Choice choice = engine.policy().Evaluate(engine.cluster().View(c.node), request.shape);
  plan->node = c.node;
  plan->devices = choice.devices;
  engine.PlaceAt(shape, request, c.node, choice.devices);
  for (size_t i = 0; i < c.out.size(); ++i) {
    // A squeezed tenant moves with what it asked for, if that fits: it is placed as its shape.
    const std::optional<Decision> d = engine.Decide(before[i].shape);
    if (!d) break;
    Request as_before;
    as_before.shape = engine.shape(before[i].shape);
    engine.PlaceAt(before[i].shape, as_before, d->node, d->devices, before[i].granted_milli);
    steps.push_back({Step::What::kMigrate, c.out[i], kNoNode, 0, d->node, d->devices});
  }
  engine.Rollback();
  if (steps.size() != c.out.size()) steps.clear();
  return steps;
}

// The steps can be done one after the other, each into room that is there at that moment.
bool CanBeDoneInOrder(Engine& engine, const Request& request, const Plan& plan) {
  engine.Begin();
  bool fine = true;
  const auto fits_there = [&](const Shape& shape, NodeId node, DeviceMask devices) {
    const NodeView view = engine.cluster().View(node);
    return Fits(view, shape) && (devices & ~FittingDevices(view, shape)) == 0;
  };
  for (const Step& s : plan.steps) {
    fine = fine && fits_there(engine.shape(engine.tenant(s.tenant).shape), s.node, s.devices);
    if (fine) engine.Relocate(s.tenant, s.node, s.devices);
  }
  fine = fine && fits_there(request.shape, plan.node, plan.devices);
  engine.Rollback();
  return fine;
}

}  // namespace

std::optional<Plan> PlanMigration(Engine& engine, const Request& request,
                                  const PlanOptions& options) {
  std::vector<Candidate> candidates;
  for (NodeId id = 0; id < engine.cluster().size(); ++id) {
    if (!CouldHold(engine.cluster().node(id), request.shape)) continue;
    std::optional<Candidate> c = MakeRoom(engine, id, request.shape, options.max_moves);
    if (c) candidates.push_back(std::move(*c));
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.cost < b.cost; });
  if (static_cast<int>(candidates.size()) > options.candidates) {
    candidates.resize(static_cast<size_t>(options.candidates));
  }
  for (const Candidate& c : candidates) {
    Plan plan;
    plan.way = Way::kMigrate;
    plan.granted_milli = request.shape.compute_milli;
    plan.steps = FindPlaces(engine, request, c, &plan);
    if (plan.steps.empty() || !CanBeDoneInOrder(engine, request, plan)) continue;
    for (const TenantId t : c.out) plan.cost += HeldMilli(engine.tenant(t));
    return plan;
  }
  return std::nullopt;
}

}  // namespace divvy::placement
