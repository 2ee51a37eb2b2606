// The node: what tenants are told. Limits, overhead and what the device has left go to the
// policies.
#include <algorithm>

#include "src/daemon/node.h"

namespace divvy::daemon {

DeviceBooks Node::BooksOf(unsigned device) const {
  const DeviceState& state = devices_[device];
  const device::Info& info = source_.devices()[device];
  DeviceBooks books{.index = info.index,
                    .name = info.name,
                    .total = info.total,
                    .driver = state.driver,
                    .outside = state.outside,
                    .outside_unlisted = state.outside_unlisted};
  for (const auto& [tenant, s] : state.shares)
    books.promises.push_back(
        {tenant->record.name, tenant->record.share.mem, Bytes{UsedBytes(*tenant, s)}});
  return books;
}

void Node::PublishOverhead(Tenant& tenant, unsigned share) {
  region::PolicyDevice& d = tenant.segments->policy().device[share];
  d.overhead_bytes = tenant.shares[share].overhead.bytes() +
                     static_cast<int64_t>(tenant.shares[share].unattached_bytes);
  const uint32_t flags = tenant.segments->policy().flags.load(std::memory_order_relaxed);
  tenant.segments->policy().flags = tenant.shares[share].measured
                                        ? flags | region::kFlagMeasured
                                        : flags & ~uint32_t{region::kFlagMeasured};
}

// Memory above the promise (mem_max) is lent while nobody was promised it: what is free to promise
// is parted among those who may have more. A limit is raised only by what the others' old limits
// leave, so that no order of readings lends the same byte twice.
void Node::PublishLimits(unsigned device) {
  struct Lent {
    region::PolicyDevice* policy;
    Segments* segments;
    uint64_t promised, base, most, before;
  };
  std::vector<Lent> lent;
  for (const auto& [tenant, s] : devices_[device].shares) {
    const ShareSpec& spec = tenant->record.share;
    if (spec.mem_max <= spec.mem) continue;
    region::PolicyDevice& p = tenant->segments->policy().device[s];
    lent.push_back({.policy = &p,
                    .segments = tenant->segments.get(),
                    .promised = spec.mem.n,
                    .base = std::max(spec.mem.n, std::min(UsedBytes(*tenant, s), spec.mem_max.n)),
                    .most = spec.mem_max.n,
                    .before = p.limit_bytes.load(std::memory_order_relaxed)});
  }
  if (lent.empty()) return;
  const DeviceBooks books = BooksOf(device);
  const Bytes shareable = books.total.Less(books.driver).Less(OutsideSum(books));
  uint64_t firm = PromisedSum(books).n;  // what is not lent: other tenants' promises
  for (const Lent& l : lent) firm -= std::min(firm, l.base);
  const uint64_t part = (FreeToPromise(books).n / lent.size()) & ~((uint64_t{2} << 20) - 1);
  for (Lent& l : lent) {
    uint64_t others = firm;
    for (const Lent& o : lent)
      if (&o != &l) others += std::max(o.before, o.base);
    uint64_t limit = std::min(l.most, l.base + part);
    if (limit > l.before)
      limit = std::min(limit, std::max(l.before, shareable.n - std::min(shareable.n, others)));
    limit = std::max(limit, l.promised);
    if (limit == l.before) continue;
    l.policy->limit_bytes = limit;
    l.segments->WakePolicyWaiters();
  }
}

void Node::Publish(unsigned device) {
  PublishLimits(device);
  DeviceState& state = devices_[device];
  uint64_t wanted = 0;  // all promises, less what is used of them
  for (const auto& [tenant, s] : state.shares)
    wanted +=
        tenant->record.share.mem.Less(Dormant(*tenant, s) ? Bytes{} : Bytes{UsedBytes(*tenant, s)})
            .n;
  // Lenient with readings that lag: a tenant that has just freed memory must not be refused it.
  const uint64_t free = *std::max_element(state.free_history.begin(), state.free_history.end());
  state.short_of_memory = free + (uint64_t{2} << 20) < wanted;
  for (const auto& [tenant, s] : state.shares)
    if (!Dormant(*tenant, s)) PublishShare(*tenant, s);
}

void Node::PublishShare(Tenant& tenant, unsigned s) {
  Share& share = tenant.shares[s];
  const DeviceState& state = devices_[share.device];
  region::PolicyDevice& d = tenant.segments->policy().device[s];
  PublishOverhead(tenant, s);
  const uint64_t limit = d.limit_bytes.load(std::memory_order_relaxed);
  share.highest_limit =
      UsedBytes(tenant, s) <= limit ? limit : std::max(share.highest_limit, limit);
  const int64_t room =
      static_cast<int64_t>(limit) - d.overhead_bytes.load(std::memory_order_relaxed);
  share.highest_room = static_cast<int64_t>(ChargedBytes(tenant, s)) <= room
                           ? room
                           : std::max(share.highest_room, room);
  const uint64_t free = *std::max_element(state.free_history.begin(), state.free_history.end());
  d.rest_bytes = share.gated ? 0 : state.short_of_memory ? free : std::max(free, limit);
}

}  // namespace divvy::daemon
