// Desk: see desk.h.
#include "src/placement/sim/desk.h"

#include <algorithm>
#include <bit>

namespace divvy::placement {
namespace {
constexpr uint64_t kNobody = ~uint64_t{0};
constexpr int64_t kRetryPart = 2000;  // of the capacity has to become free before a retry
}  // namespace

Desk::Desk(const Inventory& inventory, Bench* bench, const Handling& handling, const Watch& watch)
    : inventory_(inventory),
      bench_(*bench),
      engine_(bench->engine()),
      handling_(handling),
      watch_(watch) {
  for (const auto& [name, quota] : handling.quotas) {
    const auto at = std::find(inventory.spaces.begin(), inventory.spaces.end(), name);
    if (at == inventory.spaces.end()) continue;
    quotas_.Set(static_cast<uint32_t>(at - inventory.spaces.begin()), quota);
  }
  for (const auto& [id, pod] : bench->running()) {
    const uint64_t instance = kFirstRunning + id;
    Seat(id, {instance, pod});
    const Tenant& t = engine_.tenant(id);
    Tell(Event::What::kRuns, instance, pod, t.node, t.devices, t.granted_milli);
  }
  for (const auto& [pod, node] : bench->lost()) {
    Tell(Event::What::kLost, kNobody, pod, node, 0, 0);
  }
}

void Desk::Tell(Event::What what, uint64_t instance, uint32_t pod, NodeId node, DeviceMask devices,
                int32_t milli) {
  if (!watch_.event) return;
  const uint32_t origin = node == kNoNode ? 0 : bench_.Origin(node);
  watch_.event({what, instance, pod, origin, devices, milli});
}

void Desk::Seat(TenantId id, const Member& member) {
  if (seated_.size() <= id) seated_.resize(id + size_t{1}, {kNobody, 0});
  seated_[id] = member;
  const Request& r = inventory_.pods[member.pod].request;
  quotas_.Charge(r.space, r.shape.TotalMilli());
  changed_.push_back(engine_.tenant(id).node);
}

int64_t Desk::MilliOf(const Arrival& arrival) const {
  int64_t milli = 0;
  for (const Member& m : arrival) milli += inventory_.pods[m.pod].request.shape.TotalMilli();
  return milli;
}

PlanOptions Desk::OptionsFor(const Arrival& arrival, bool may_plan) const {
  PlanOptions options = handling_.plan;
  if (!may_plan) {
    options.squeeze = options.migrate = options.preempt = false;
  } else if (handling_.reclaim) {
    options.surplus_milli = quotas_.Surplus(inventory_.pods[arrival.front().pod].request.space,
                                            MilliOf(arrival), engine_.cluster().total_milli());
  }
  return options;
}

bool Desk::TryOne(const Arrival& arrival, bool may_plan, std::vector<TenantId>* tenants) {
  const Member& member = arrival.front();
  const Request& request = inventory_.pods[member.pod].request;
  const ShapeId shape = bench_.ShapeOf(member.pod);
  TenantId id = engine_.Place(shape, request);
  if (id == kNoTenant && may_plan && handling_.Plans()) {
    const Plan plan = MakePlan(engine_, request, OptionsFor(arrival, true));
    if (plan.way != Way::kQueue) {
      Announce(plan);
      id = CarryOut(engine_, request, plan);
    }
  }
  if (id == kNoTenant) return false;
  tenants->assign(1, id);
  return true;
}

bool Desk::TryGang(const Arrival& arrival, bool may_plan, std::vector<TenantId>* tenants) {
  std::vector<Request> requests;
  for (const Member& m : arrival) requests.push_back(inventory_.pods[m.pod].request);
  std::vector<Plan> plans;
  const auto placed = PlaceGang(engine_, requests, OptionsFor(arrival, may_plan), &plans);
  if (!placed) return false;
  for (const Plan& plan : plans) Announce(plan);
  *tenants = *placed;
  return true;
}

void Desk::Announce(const Plan& plan) {
  using What = Event::What;
  totals_.squeezed += plan.way == Way::kSqueeze;
  totals_.migrated += plan.way == Way::kMigrate;
  totals_.preempting += plan.way == Way::kPreempt;
  totals_.reclaiming += plan.way == Way::kReclaim;
  if (plan.way == Way::kSqueeze) totals_.squeezed_milli += plan.cost;
  if (plan.way == Way::kMigrate) totals_.moved_milli += plan.cost;
  if (plan.way == Way::kPreempt) totals_.preempted_milli += plan.cost;
  if (plan.way == Way::kReclaim) totals_.reclaimed_milli += plan.cost;
  for (const Step& s : plan.steps) {
    const Member m = s.tenant < seated_.size() ? seated_[s.tenant] : Member{kNobody, 0};
    if (m.instance == kNobody) continue;  // of the same gang: its own event says where it ends up
    changed_.push_back(s.from);
    switch (s.what) {
      case Step::What::kSqueeze:
        Tell(What::kSqueeze, m.instance, m.pod, kNoNode, 0, s.granted_milli);
        break;
      case Step::What::kMigrate:
        ++totals_.moves;
        changed_.push_back(s.node);
        Tell(What::kMigrate, m.instance, m.pod, s.node, s.devices, 0);
        break;
      case Step::What::kPreempt: {
        ++totals_.victims;
        Tell(What::kPreempt, m.instance, m.pod, kNoNode, 0, 0);
        const Request& r = inventory_.pods[m.pod].request;
        quotas_.Credit(r.space, r.shape.TotalMilli());
        freed_ += r.shape.TotalMilli();
        seated_[s.tenant].instance = kNobody;
        if (handling_.queue) Wait({m});
        break;
      }
    }
  }
}

Desk::Outcome Desk::Try(const Arrival& arrival, bool may_plan, std::vector<TenantId>* tenants) {
  const int64_t milli = MilliOf(arrival);
  const Request& first = inventory_.pods[arrival.front().pod].request;
  if (milli > 0 && !quotas_.Allows(first.space, milli)) return Outcome::kOverQuota;
  const bool placed = arrival.size() == 1 ? TryOne(arrival, may_plan, tenants)
                                          : TryGang(arrival, may_plan, tenants);
  if (!placed) return Outcome::kRefused;
  for (size_t i = 0; i < arrival.size(); ++i) {
    const Tenant& t = engine_.tenant((*tenants)[i]);
    Seat((*tenants)[i], arrival[i]);
    Tell(Event::What::kPlace, arrival[i].instance, arrival[i].pod, t.node, t.devices,
         t.granted_milli);
  }
  return Outcome::kPlaced;
}

std::vector<TenantId> Desk::Arrive(const Arrival& arrival) {
  std::vector<TenantId> tenants;
  const Outcome outcome = Try(arrival, true, &tenants);
  if (arrival.size() > 1) {
    ++(outcome == Outcome::kPlaced ? totals_.gangs_placed : totals_.gangs_refused);
  }
  if (outcome == Outcome::kPlaced) return tenants;
  const bool checkable = outcome == Outcome::kRefused && arrival.size() == 1;
  totals_.over_quota += outcome == Outcome::kOverQuota;
  for (const Member& m : arrival) {
    Tell(checkable ? Event::What::kRefuse : Event::What::kDeny, m.instance, m.pod, kNoNode, 0, 0);
  }
  if (handling_.queue) Wait(arrival);
  return {};
}

void Desk::Wait(const Arrival& arrival) {
  // For the order of the room a gang is one request for all its devices.
  Request whole = inventory_.pods[arrival.front().pod].request;
  for (size_t i = 1; i < arrival.size(); ++i) {
    whole.shape.devices += inventory_.pods[arrival[i].pod].request.shape.devices;
  }
  ++totals_.waited;
  room_.Add(waiting_.size(), whole, &quotas_);
  waiting_.push_back(arrival);
}

void Desk::RegrowOn(NodeId node) {
  if (!handling_.plan.squeeze) return;
  std::vector<std::pair<TenantId, int32_t>> before;
  for (TenantId t = engine_.FirstOn(node); t != kNoTenant; t = engine_.tenant(t).next) {
    before.emplace_back(t, engine_.tenant(t).granted_milli);
  }
  if (Regrow(engine_, node) == 0) return;
  std::sort(before.begin(), before.end());
  for (const auto& [t, milli] : before) {
    if (engine_.tenant(t).granted_milli == milli) continue;
    Tell(Event::What::kSqueeze, seated_[t].instance, seated_[t].pod, kNoNode, 0,
         engine_.tenant(t).granted_milli);
  }
}

bool Desk::Leave(TenantId id, uint64_t instance) {
  if (seated_[id].instance != instance) return false;
  const Request& r = inventory_.pods[seated_[id].pod].request;
  const NodeId node = engine_.tenant(id).node;
  Tell(Event::What::kLeave, instance, seated_[id].pod, kNoNode, 0, 0);
  engine_.Release(id);
  seated_[id].instance = kNobody;
  quotas_.Credit(r.space, r.shape.TotalMilli());
  freed_ += r.shape.TotalMilli() + 1;
  changed_.push_back(node);
  RegrowOn(node);
  return true;
}

void Desk::Retry(const std::function<void(const Arrival&, const std::vector<TenantId>&)>& placed) {
  const int64_t capacity = engine_.cluster().total_milli();
  if (room_.size() == 0 || freed_ <= capacity / kRetryPart) return;
  freed_ = 0;
  std::vector<uint64_t> missed;
  size_t passed = 0;  // of them, by one that was placed
  for (const uint64_t id : room_.Order(quotas_, capacity)) {
    std::vector<TenantId> tenants;
    const Arrival arrival = waiting_[id];
    if (Try(arrival, false, &tenants) != Outcome::kPlaced) {
      missed.push_back(id);
      continue;
    }
    room_.Remove(id, &quotas_);
    waiting_[id].clear();
    ++totals_.placed_later;
    passed = missed.size();
    placed(arrival, tenants);
  }
  for (size_t i = 0; i < passed; ++i) room_.Passed(missed[i]);
}

}  // namespace divvy::placement
