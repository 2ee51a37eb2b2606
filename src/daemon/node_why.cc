// The node: why a tenant is as fast as it is, from the arbiter's ledgers (ledger.h) and the books.
#include <algorithm>

#include "src/daemon/node.h"
#include "src/daemon/why.h"

namespace divvy::daemon {
namespace {
constexpr std::chrono::seconds kSpan{60};
// What was refused is seen at a tick: it happened in the time before it.
constexpr int64_t kBeforeNs = 750'000'000, kAfterNs = 250'000'000;
}  // namespace

void Node::NoteRefusal(Tenant& tenant, uint64_t now_ns) {
  constexpr size_t kKept = 128;  // ticks: two in a second, a minute of them
  if (!tenant.refused.empty() && now_ns - tenant.refused.back().at_ns < 500'000'000) {
    ++tenant.refused.back().count;
    return;
  }
  tenant.refused.push_back({now_ns, 1});
  if (tenant.refused.size() > kKept) tenant.refused.pop_front();
}

Result<nlohmann::json> Node::Why(const std::string& name) const {
  using arbiter::Nanos;
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(tenants_.begin(), tenants_.end(),
                                  [&](const auto& t) { return t.second.record.name == name; });
  if (found == tenants_.end()) return NotFound("there is no tenant '" + name + "'");
  const Tenant& tenant = found->second;
  const Nanos now(MonotonicNs());
  const std::vector<Ledger> spent = compute_.SpentOf(tenant.id, now - kSpan, now);
  // The stretches in which it was refused memory: they may touch, but count once.
  uint64_t refusals = 0;
  std::vector<std::vector<Ledger>> refused;
  Nanos until{0};
  for (const Tenant::Refused& r : tenant.refused) {
    if (Nanos(r.at_ns) < now - kSpan) continue;
    refusals += r.count;
    const Nanos from = std::max(until, Nanos(r.at_ns) - Nanos(kBeforeNs));
    until = std::min(now, Nanos(r.at_ns) + Nanos(kAfterNs));
    if (from < until) refused.push_back(compute_.SpentOf(tenant.id, from, until));
  }
  const TenantFigures figures = FiguresOf(tenant);
  nlohmann::json shares = nlohmann::json::array();
  for (unsigned s = 0; s < tenant.shares.size() && s < spent.size(); ++s) {
    WhyInput in{.spent = spent[s],
                .guaranteed_percent = figures.guaranteed_percent,
                .cap_percent = figures.cap_percent,
                .part_percent = figures.shares[s].part_percent,
                .batch = tenant.record.share.share_class == Class::kBatch};
    in.refusals = refusals;
    in.waiting_for_room = figures.waiting_for_room;
    for (const std::vector<Ledger>& then : refused)
      if (s < then.size())
        in.refused_ns += then[s][Part::kHost] - std::min(then[s].copying_ns, then[s][Part::kHost]);
    for (const auto& [id, ns] : spent[s].waited_for) {
      const auto other = tenants_.find(id);
      if (id == Ledger::kNobody)
        in.others.push_back({"", 0, ns});
      else if (other == tenants_.end())
        in.others.push_back({"(ended)", 0, ns});
      else
        in.others.push_back(
            {other->second.record.name, other->second.record.share.compute.milli / 1000.0, ns});
    }
    for (const Finding& f : tenant.findings)
      if (f.active && !f.action.empty()) in.audit += (in.audit.empty() ? "" : ", ") + f.code;
    nlohmann::json one = Explain(in);
    const device::Info& info = source_.devices()[tenant.shares[s].device];
    one["device"] = device::ToString(info.uuid);
    one["index"] = info.index;
    one["span_s"] = static_cast<double>(spent[s].at.count()) / 1e9;
    shares.push_back(std::move(one));
  }
  return nlohmann::json{{"tenant", name}, {"shares", std::move(shares)}};
}

}  // namespace divvy::daemon
