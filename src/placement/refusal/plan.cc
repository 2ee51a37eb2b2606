// Plans in order, gangs, and carrying plans out: see plan.h. Each way has a file of its own.
#include "src/placement/refusal/plan.h"

#include <algorithm>
#include <numeric>

#include "src/placement/refusal/ways.h"

namespace divvy::placement {

Plan MakePlan(Engine& engine, const Request& request, const PlanOptions& options) {
  const ShapeId shape = engine.Intern(request.shape);
  if (const std::optional<Decision> d = engine.Decide(shape)) {
    Plan plan;
    plan.way = Way::kFits;
    plan.node = d->node;
    plan.devices = d->devices;
    plan.granted_milli = request.shape.compute_milli;
    return plan;
  }
  std::optional<Plan> plan;
  if (options.squeeze) plan = PlanSqueeze(engine, request);
  if (!plan && options.migrate) plan = PlanMigration(engine, request, options);
  if (!plan && options.preempt) plan = PlanPreemption(engine, request, nullptr);
  if (!plan && !options.surplus_milli.empty()) {
    plan = PlanPreemption(engine, request, &options.surplus_milli);
  }
  if (!plan) return {};
  for (Step& s : plan->steps) s.from = engine.tenant(s.tenant).node;
  return *plan;
}

TenantId CarryOut(Engine& engine, const Request& request, const Plan& plan) {
  if (plan.way == Way::kQueue) return kNoTenant;
  for (const Step& s : plan.steps) {
    switch (s.what) {
      case Step::What::kSqueeze:
        engine.Resize(s.tenant, s.granted_milli);
        break;
      case Step::What::kMigrate:
        engine.Relocate(s.tenant, s.node, s.devices);
        break;
      case Step::What::kPreempt:
        engine.Release(s.tenant);
        break;
    }
  }
  return engine.PlaceAt(engine.Intern(request.shape), request, plan.node, plan.devices,
                        plan.granted_milli);
}

namespace {
// Plans and carries out; positions by size, largest first.
std::optional<std::vector<Plan>> RunGang(Engine& engine, const std::vector<Request>& requests,
                                         PlanOptions options, std::vector<TenantId>* placed,
                                         std::vector<Plan>* done) {
  std::vector<size_t> order(requests.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return requests[a].shape.TotalMilli() > requests[b].shape.TotalMilli();
  });
  std::vector<Plan> plans(requests.size());
  placed->assign(requests.size(), kNoTenant);
  for (const size_t i : order) {
    plans[i] = MakePlan(engine, requests[i], options);
    // A later member must not throw out an earlier one of its own gang.
    for (const Step& s : plans[i].steps) {
      if (s.what == Step::What::kPreempt &&
          std::find(placed->begin(), placed->end(), s.tenant) != placed->end()) {
        return std::nullopt;
      }
      // What one member takes from a namespace, the next cannot take again.
      const Tenant& t = engine.tenant(s.tenant);
      if (s.what == Step::What::kPreempt && t.space < options.surplus_milli.size()) {
        options.surplus_milli[t.space] -= engine.shape(t.shape).TotalMilli();
      }
    }
    (*placed)[i] = CarryOut(engine, requests[i], plans[i]);
    if ((*placed)[i] == kNoTenant) return std::nullopt;
    if (done != nullptr) done->push_back(plans[i]);
  }
  return plans;
}
}  // namespace

std::optional<std::vector<Plan>> PlanGang(Engine& engine, const std::vector<Request>& requests,
                                          const PlanOptions& options) {
  std::vector<TenantId> placed;
  engine.Begin();
  std::optional<std::vector<Plan>> plans = RunGang(engine, requests, options, &placed, nullptr);
  engine.Rollback();
  return plans;
}

std::optional<std::vector<TenantId>> PlaceGang(Engine& engine, const std::vector<Request>& requests,
                                               const PlanOptions& options,
                                               std::vector<Plan>* done) {
  std::vector<TenantId> placed;
  engine.Begin();
  if (!RunGang(engine, requests, options, &placed, done)) {
    engine.Rollback();
    if (done != nullptr) done->clear();
    return std::nullopt;
  }
  engine.Commit();
  return placed;
}

}  // namespace divvy::placement
