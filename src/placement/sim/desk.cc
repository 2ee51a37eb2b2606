// Desk: see desk.h.
#include "src/placement/sim/desk.h"

#include <algorithm>
#include <map>

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
    next_gang_ = std::max(next_gang_, engine_.tenant(id).gang + 1);
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
  if (seated_.size() <= id) {
    seated_.resize(id + size_t{1}, {kNobody, 0});
    gangs_.resize(id + size_t{1});
  }
  seated_[id] = member;
  gangs_[id] = engine_.tenant(id).gang;
  const Request& r = inventory_.pods[member.pod].request;
  quotas_.Charge(r.space, r.shape.TotalMilli());
  changed_.push_back(engine_.tenant(id).node);
}

void Desk::Unseat(TenantId id) {
  const Request& r = inventory_.pods[seated_[id].pod].request;
  quotas_.Credit(r.space, r.shape.TotalMilli());
  freed_ += r.shape.TotalMilli();
  seated_[id].instance = kNobody;
}

int64_t Desk::MilliOf(const Arrival& arrival) const {
  int64_t milli = 0;
  for (const Member& m : arrival) milli += inventory_.pods[m.pod].request.shape.TotalMilli();
  return milli;
}

bool Desk::Allowed(const Arrival& arrival) const {
  std::map<uint32_t, int64_t> asked;  // by each namespace that has members
  for (const Member& m : arrival) {
    const Request& r = inventory_.pods[m.pod].request;
    asked[r.space] += r.shape.TotalMilli();
  }
  return std::all_of(asked.begin(), asked.end(), [&](const auto& a) {
    return a.second == 0 || quotas_.Allows(a.first, a.second);
  });
}

PlanOptions Desk::OptionsFor(const Arrival& arrival, bool may_plan) const {
  PlanOptions options = handling_.plan;
  if (!may_plan) {
    options.squeeze = options.migrate = options.preempt = false;
  } else if (handling_.reclaim) {
    // Members of several namespaces have no one fair share to reclaim up to.
    const uint32_t space = inventory_.pods[arrival.front().pod].request.space;
    const bool one = std::all_of(arrival.begin(), arrival.end(), [&](const Member& m) {
      return inventory_.pods[m.pod].request.space == space;
    });
    if (one) {
      options.surplus_milli =
          quotas_.Surplus(space, MilliOf(arrival), engine_.cluster().total_milli());
    }
  }
  return options;
}

bool Desk::TryOne(const Arrival& arrival, bool may_plan, std::vector<TenantId>* tenants) {
  const Member& member = arrival.front();
  Request request = inventory_.pods[member.pod].request;
  request.gang = 0;  // it came alone
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
  for (const Member& m : arrival) {
    requests.push_back(inventory_.pods[m.pod].request);
    requests.back().gang = next_gang_;
  }
  ++next_gang_;
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
  std::vector<std::pair<uint32_t, Arrival>> ended;  // by gang; those without one by themselves
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
        Unseat(s.tenant);
        const uint32_t gang = gangs_[s.tenant];
        const auto same = std::find_if(ended.begin(), ended.end(), [gang](const auto& e) {
          return gang != 0 && e.first == gang;
        });
        if (same == ended.end()) {
          ended.push_back({gang, {m}});
        } else {
          same->second.push_back(m);
        }
        break;
      }
    }
  }
  if (!handling_.queue) return;
  for (const auto& [gang, arrival] : ended) Wait(arrival);  // a gang waits as one
}

Desk::Outcome Desk::Try(const Arrival& arrival, bool may_plan, std::vector<TenantId>* tenants) {
  if (!Allowed(arrival)) return Outcome::kOverQuota;
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
  // For the order of the room a gang is one request for all that its members ask for.
  Request whole = inventory_.pods[arrival.front().pod].request;
  if (arrival.size() > 1) {
    whole.shape.devices = static_cast<int32_t>(std::min<int64_t>(MilliOf(arrival), INT32_MAX));
    whole.shape.compute_milli = 1;
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
  const NodeId node = engine_.tenant(id).node;
  Tell(Event::What::kLeave, instance, seated_[id].pod, kNoNode, 0, 0);
  engine_.Release(id);
  Unseat(id);
  ++freed_;  // also when it held CPUs only
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
