// The way out of a refusal: when a request fits nowhere, what would have to happen so that it does.
// In this order, each switchable: squeeze elastic tenants, migrate a few, preempt lower priorities,
// reclaim from namespaces that hold more than their fair share, else it has to wait. A plan changes
// nothing; Carry out does. Called by whoever asks the engine for placements; costs a look at every
// node, so only for requests that were refused.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "src/placement/engine.h"

namespace divvy::placement {

struct PlanOptions {
  bool squeeze = true;
  bool migrate = true;
  bool preempt = true;
  int max_moves = 4;    // tenants migrated for one request
  int candidates = 16;  // nodes tried in full, cheapest first
  // Reclaiming: by how much each namespace exceeds its fair share (Quotas::Surplus), for a request
  // whose own namespace is below its share. Empty: nothing is reclaimed.
  std::vector<int64_t> surplus_milli = {};
};

struct Step {
  enum class What : uint8_t { kSqueeze, kMigrate, kPreempt } what;
  TenantId tenant;
  NodeId from = kNoNode;      // where it is until then
  int32_t granted_milli = 0;  // kSqueeze: what it keeps on each device
  NodeId node = kNoNode;      // kMigrate: where to
  DeviceMask devices = 0;
};

enum class Way : uint8_t { kFits, kSqueeze, kMigrate, kPreempt, kReclaim, kQueue };

struct Plan {
  Way way = Way::kQueue;
  NodeId node = kNoNode;  // the request's own place; not set for kQueue
  DeviceMask devices = 0;
  int32_t granted_milli = 0;  // below what was asked for if the request itself is squeezed
  std::vector<Step> steps;    // to be done first, in this order
  // Milli devices that others give up (squeeze), that are moved, or that are lost (preempt,
  // reclaim).
  int64_t cost = 0;
};

// The cheapest plan of the first way that works. Leaves the engine as it was.
Plan MakePlan(Engine& engine, const Request& request, const PlanOptions& options);
// Does what the plan says; the engine must not have changed since. kNoTenant for kQueue.
TenantId CarryOut(Engine& engine, const Request& request, const Plan& plan);

// All of them or none: a plan for each request of a gang (each made on top of those before it), or
// no value and nothing changed. Largest requests are planned first; the result is in their order.
std::optional<std::vector<Plan>> PlanGang(Engine& engine, const std::vector<Request>& requests,
                                          const PlanOptions& options);
// `done` gets the plans in the order in which they were carried out.
std::optional<std::vector<TenantId>> PlaceGang(Engine& engine, const std::vector<Request>& requests,
                                               const PlanOptions& options,
                                               std::vector<Plan>* done = nullptr);

// Gives squeezed tenants on a node back what has become free, most squeezed first. To be called
// after a release. Returns the milli devices given back.
int64_t Regrow(Engine& engine, NodeId node);

}  // namespace divvy::placement
