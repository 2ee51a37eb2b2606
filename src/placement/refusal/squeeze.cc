// Squeeze: elastic tenants (and the request, if it is elastic) give up compute down to their
// minimum. The place where the least has to be given up wins; what is given up is shared in
// proportion to what each could give.
#include <algorithm>
#include <bit>
#include <vector>

#include "src/placement/refusal/draft.h"
#include "src/placement/refusal/ways.h"

namespace divvy::placement {
namespace {

int32_t Slack(const Tenant& t) {
  return t.min_milli > 0 ? std::max(0, t.granted_milli - t.min_milli) : 0;
}

// What one tenant gives on all its devices, so that every chosen device has what it needs.
struct Offer {
  TenantId tenant;
  int32_t milli;
};

struct Bargain {
  int64_t cost = 0;
  int32_t granted = 0;  // to the request, on each device
  DeviceMask devices = 0;
  std::vector<Offer> offers;
};

// The request's own slack counts on each device; tenants on several of the chosen devices give the
// most that any of them needs.
std::optional<Bargain> Deal(const Engine& engine, const Draft& draft, const Request& request,
                            DeviceMask devices) {
  const Shape& shape = request.shape;
  const int32_t own = request.min_compute_milli > 0
                          ? std::max(0, shape.compute_milli - request.min_compute_milli)
                          : 0;
  // How far the request itself goes down: as far as the device that needs it most wants.
  int32_t own_gives = 0;
  std::vector<int32_t> need(kMaxDevices, 0);
  for (DeviceMask rest = devices; rest != 0; rest &= rest - 1) {
    const int d = std::countr_zero(rest);
    const int32_t missing = shape.compute_milli - draft.view().devices[d].compute_left;
    need[d] = std::max(0, missing);
    int64_t slack = own;
    for (const TenantId id : draft.tenants()) {
      if (engine.tenant(id).devices >> d & 1) slack += Slack(engine.tenant(id));
    }
    if (need[d] > slack) return std::nullopt;
    if (slack > 0) {
      own_gives = std::max<int32_t>(
          own_gives, static_cast<int32_t>((int64_t{need[d]} * own + slack - 1) / slack));
    }
  }
  Bargain bargain;
  bargain.devices = devices;
  bargain.granted = shape.compute_milli - own_gives;
  bargain.cost = int64_t{own_gives} * std::popcount(devices);
  for (const TenantId id : draft.tenants()) bargain.offers.push_back({id, 0});
  for (DeviceMask rest = devices; rest != 0; rest &= rest - 1) {
    const int d = std::countr_zero(rest);
    int32_t still = need[d] - own_gives;
    int64_t slack = 0;
    for (const Offer& o : bargain.offers) {
      const Tenant& t = engine.tenant(o.tenant);
      if ((t.devices >> d & 1) == 0) continue;
      still -= o.milli;
      slack += Slack(t) - o.milli;
    }
    if (still <= 0) continue;
    if (slack < still) return std::nullopt;
    for (Offer& o : bargain.offers) {
      const Tenant& t = engine.tenant(o.tenant);
      const int32_t could = Slack(t) - o.milli;
      if ((t.devices >> d & 1) == 0 || could == 0) continue;
      const auto gives = static_cast<int32_t>((int64_t{still} * could + slack - 1) / slack);
      o.milli += gives;  // rounded up: the last ones give a little less
      still -= gives;
      slack -= could;
      if (still <= 0) break;
    }
  }
  std::erase_if(bargain.offers, [](const Offer& o) { return o.milli == 0; });
  for (const Offer& o : bargain.offers) {
    bargain.cost += int64_t{o.milli} * std::popcount(engine.tenant(o.tenant).devices);
  }
  return bargain;
}

}  // namespace

std::optional<Plan> PlanSqueeze(const Engine& engine, const Request& request) {
  const Shape& shape = request.shape;
  if (shape.devices == 0) return std::nullopt;
  std::optional<Plan> best;
  for (NodeId id = 0; id < engine.cluster().size(); ++id) {
    const Node& n = engine.cluster().node(id);
    if (!CouldHold(n, shape) || n.cpu_left < shape.cpu_milli || n.memory_left < shape.memory_mib ||
        n.slots_left < 1 || shape.link == Link::kRequire) {
      continue;
    }
    const Draft draft(engine, id);
    // Devices with memory, those that miss least compute first.
    std::vector<int> devices;
    for (int d = 0; d < n.device_count; ++d) {
      const Device& device = draft.view().devices[static_cast<size_t>(d)];
      if (device.compute_left >= 0 && device.memory_left >= shape.device_memory_mib) {
        devices.push_back(d);
      }
    }
    if (static_cast<int32_t>(devices.size()) < shape.devices) continue;
    std::vector<std::optional<Bargain>> deals;
    if (shape.devices == 1) {
      for (const int d : devices) {
        deals.push_back(Deal(engine, draft, request, DeviceMask{1} << d));
      }
    } else {
      std::stable_sort(devices.begin(), devices.end(), [&](int a, int b) {
        return draft.view().devices[static_cast<size_t>(a)].compute_left >
               draft.view().devices[static_cast<size_t>(b)].compute_left;
      });
      DeviceMask mask = 0;
      for (int32_t i = 0; i < shape.devices; ++i) mask |= DeviceMask{1} << devices[i];
      deals.push_back(Deal(engine, draft, request, mask));
    }
    for (const std::optional<Bargain>& deal : deals) {
      if (!deal || (best && deal->cost >= best->cost)) continue;
      Plan plan;
      plan.way = Way::kSqueeze;
      plan.node = id;
      plan.devices = deal->devices;
      plan.granted_milli = deal->granted;
      plan.cost = deal->cost;
      for (const Offer& o : deal->offers) {
        plan.steps.push_back({Step::What::kSqueeze, o.tenant, kNoNode,
                              engine.tenant(o.tenant).granted_milli - o.milli, kNoNode, 0});
      }
      best = std::move(plan);
    }
  }
  return best;
}

int64_t Regrow(Engine& engine, NodeId node) {
  std::vector<TenantId> squeezed;
  const auto missing = [&](TenantId id) {
    const Tenant& t = engine.tenant(id);
    return engine.shape(t.shape).compute_milli - t.granted_milli;
  };
  for (TenantId id = engine.FirstOn(node); id != kNoTenant; id = engine.tenant(id).next) {
    if (missing(id) > 0) squeezed.push_back(id);
  }
  std::sort(squeezed.begin(), squeezed.end(), [&](TenantId a, TenantId b) {
    return missing(a) != missing(b) ? missing(a) > missing(b) : a < b;
  });
  int64_t given = 0;
  for (const TenantId id : squeezed) {
    const Tenant& t = engine.tenant(id);
    int32_t room = missing(id);
    for (DeviceMask rest = t.devices; rest != 0; rest &= rest - 1) {
      const Device& d = engine.cluster().View(node).devices[std::countr_zero(rest)];
      room = std::min<int32_t>(room, std::max<int32_t>(0, d.compute_left));
    }
    if (room == 0) continue;
    given += int64_t{room} * std::popcount(t.devices);
    engine.Resize(id, t.granted_milli + room);
  }
  return given;
}

}  // namespace divvy::placement
