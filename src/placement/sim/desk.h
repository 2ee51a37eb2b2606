// The desk of a simulated cluster: takes arrivals and departures, and does what may be done about a
// refusal (squeeze, migrate, preempt, reclaim, queue), with gangs and quotas per namespace. The
// protocols stand before it, the engine behind it. Every decision goes to Watch::event. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "src/placement/refusal/plan.h"
#include "src/placement/refusal/quotas.h"
#include "src/placement/refusal/waiting_room.h"
#include "src/placement/sim/bench.h"

namespace divvy::placement {

// What is done about refusals; by default nothing.
struct Handling {
  PlanOptions plan{false, false, false, 4, 16};
  bool reclaim = false;
  bool queue = false;
  std::vector<std::pair<std::string, SpaceQuota>> quotas;  // by namespace
  bool Plans() const { return plan.squeeze || plan.migrate || plan.preempt || reclaim; }
};

struct DeskTotals {
  // Requests placed that way.
  uint64_t squeezed = 0, migrated = 0, preempting = 0, reclaiming = 0;
  uint64_t moves = 0, victims = 0;  // tenants moved, ended
  int64_t squeezed_milli = 0, moved_milli = 0, preempted_milli = 0, reclaimed_milli = 0;
  uint64_t over_quota = 0;
  uint64_t gangs_placed = 0, gangs_refused = 0;
  uint64_t waited = 0, placed_later = 0;
};

// A pod on its way, or several that only come together.
struct Member {
  uint64_t instance;
  uint32_t pod;
};
using Arrival = std::vector<Member>;

class Desk {
 public:
  Desk(const Inventory& inventory, Bench* bench, const Handling& handling, const Watch& watch);

  // The members' tenants; empty: refused, and waiting if there is a queue.
  std::vector<TenantId> Arrive(const Arrival& arrival);
  // False: this instance is no longer there (it was preempted).
  bool Leave(TenantId id, uint64_t instance);
  // Tries those who wait, if enough has become free; tells of each that is placed.
  void Retry(const std::function<void(const Arrival&, const std::vector<TenantId>&)>& placed);

  // Nodes that changed since the last call.
  std::vector<NodeId> TakeChanged() { return std::exchange(changed_, {}); }
  const DeskTotals& totals() const { return totals_; }
  size_t waiting() const { return room_.size(); }
  const Quotas& quotas() const { return quotas_; }

 private:
  enum class Outcome : uint8_t { kPlaced, kRefused, kOverQuota };
  Outcome Try(const Arrival& arrival, bool may_plan, std::vector<TenantId>* tenants);
  bool TryOne(const Arrival& arrival, bool may_plan, std::vector<TenantId>* tenants);
  bool TryGang(const Arrival& arrival, bool may_plan, std::vector<TenantId>* tenants);
  // What may be planned for an arrival.
  PlanOptions OptionsFor(const Arrival& arrival, bool may_plan) const;
  int64_t MilliOf(const Arrival& arrival) const;
  bool Allowed(const Arrival& arrival) const;  // by the quota of each member's namespace
  void Announce(const Plan& plan);             // the events of its steps, before they are done
  void Seat(TenantId id, const Member& member);
  void Unseat(TenantId id);
  void Wait(const Arrival& arrival);
  void RegrowOn(NodeId node);
  void Tell(Event::What what, uint64_t instance, uint32_t pod, NodeId node, DeviceMask devices,
            int32_t milli);

  const Inventory& inventory_;
  Bench& bench_;
  Engine& engine_;
  const Handling& handling_;
  const Watch& watch_;
  Quotas quotas_;
  WaitingRoom room_;
  std::vector<Arrival> waiting_;  // by the room's id
  std::vector<Member> seated_;    // by tenant
  std::vector<uint32_t> gangs_;   // by tenant, also once it is gone
  uint32_t next_gang_ = 1;        // each time that a gang is placed it is another one
  std::vector<NodeId> changed_;
  int64_t freed_ = 0;  // since the last Retry
  DeskTotals totals_;
};

}  // namespace divvy::placement
