// The node's figures as plain values (figures.h), for what looks at all of it and often.
#include <algorithm>
#include <chrono>

#include "src/daemon/node.h"

namespace divvy::daemon {
namespace {

constexpr size_t kCommandShown = 120;
constexpr double kNanosPerSecond = 1e9;
constexpr std::chrono::seconds kSenselessShown{
    10};  // how long counters that made no sense are told

std::string Joined(const std::vector<std::string>& command) {
  std::string out;
  for (const std::string& word : command) {
    if (!out.empty()) out += ' ';
    out += word;
    if (out.size() > kCommandShown) return out.substr(0, kCommandShown);
  }
  return out;
}

void AddCompute(const ShareView& view, ShareFigures& out) {
  const arbiter::Nanos now(MonotonicNs());
  const auto percent = [&](const History& h, std::chrono::seconds span) {
    return h.Rate(now, span) / kNanosPerSecond * 100;
  };
  const auto used = [&](std::chrono::seconds span) { return UsedPercent(view, now, span); };
  out.part_percent = view.part_percent;
  out.metered = view.metered;
  out.known = view.known;
  out.shut_by_cap = view.stats.throttled;
  out.used_percent_1s = used(std::chrono::seconds(1));
  out.used_percent_60s = used(std::chrono::seconds(60));
  // At least what it got: used time is known at once, the rest at the ledger's next entry.
  out.wanted_percent_1s =
      std::max(out.used_percent_1s, percent(view.wanted_ns, std::chrono::seconds(1)));
  out.wanted_percent_60s =
      std::max(out.used_percent_60s, percent(view.wanted_ns, std::chrono::seconds(60)));
  out.gate_wait_percent = percent(view.gate_wait_ns, std::chrono::seconds(1));
  out.used_ns = static_cast<uint64_t>(view.used.count());
  out.billed_ns = static_cast<uint64_t>(view.stats.used.count());
  out.gate_wait_s = static_cast<double>(view.totals.gate_wait_ns) / kNanosPerSecond;
  out.bound_wait_s = static_cast<double>(view.totals.bound_wait_ns) / kNanosPerSecond;
  out.windows = view.stats.windows;
  out.overruns = view.stats.overruns;
  out.faults = view.stats.faults;
  out.waits = view.totals.waits;
  out.forced = view.totals.forced;
  out.operations = view.totals.operations;
  out.launches = view.totals.launches;
  out.wait_buckets = view.totals.wait_buckets;
  out.copied_bytes = view.totals.copied_bytes;
  out.distrusted = view.stats.distrusted || now - view.senseless_at < kSenselessShown;
  out.entangled = view.stats.entangled;
  out.stalled = view.stats.stalled;
  out.light = view.stats.light;
}

}  // namespace

DeviceFigures Node::FiguresOf(unsigned device) const {
  const device::Info& info = source_.devices()[device];
  const DeviceState& state = devices_[device];
  const DeviceBooks books = BooksOf(device);
  DeviceFigures out{.uuid = device::ToString(info.uuid),
                    .name = info.name,
                    .pci_bus_id = info.pci_bus_id,
                    .index = info.index,
                    .total_bytes = info.total.n,
                    .used_bytes = state.reading.used.n,
                    .free_bytes = state.reading.free.n,
                    .driver_bytes = state.driver.n,
                    .outside_bytes = OutsideSum(books).n,
                    .free_to_promise_bytes = FreeToPromise(books).n,
                    .readings = state.readings,
                    .outside_processes = static_cast<unsigned>(state.outside.size()),
                    .tenants = static_cast<unsigned>(state.shares.size()),
                    .fault = state.fault,
                    .cordon = state.cordon,
                    .xids = state.xids};
  for (const auto& [tenant, s] : state.shares) {
    out.promised_bytes += tenant->record.share.mem.n;
    out.leaving_bytes += LeavingBytes(*tenant, s);
    out.compute_promised_percent += tenant->record.share.compute.milli / 1000.0;
  }
  return out;
}

TenantFigures Node::FiguresOf(const Tenant& tenant) const {
  const TenantRecord& r = tenant.record;
  TenantFigures out{.id = tenant.id,
                    .name = r.name,
                    .command = Joined(r.command),
                    .share_class = ToString(r.share.share_class),
                    .state = StateOf(tenant),
                    .cooperative = r.cooperative,
                    .paused = r.share.paused,
                    .guaranteed_percent = r.share.compute.milli / 1000.0,
                    .cap_percent = r.share.compute_max.milli / 1000.0,
                    .weight = r.share.weight,
                    .refusals = tenant.refusals};
  for (const auto& [slot, process] : tenant.processes) {
    out.processes += process.state == Process::State::kLive;
    out.waiting_for_room += RoomWaiters(tenant, process);
  }
  for (const Finding& f : tenant.findings)
    if (f.active && (f.readings >= 2 || !f.action.empty()))
      out.findings.push_back({f.code, f.device});
  const TenantView view = compute_.ViewOf(tenant.id);
  for (unsigned s = 0; s < tenant.shares.size(); ++s) {
    const Share& share = tenant.shares[s];
    const region::PolicyDevice& policy = tenant.segments->policy().device[s];
    ShareFigures f{
        .device = share.device,
        .limit_bytes = policy.limit_bytes.load(std::memory_order_relaxed),
        .promised_bytes = r.share.mem.n,
        .used_bytes = UsedBytes(tenant, s),
        .charged_bytes = ChargedBytes(tenant, s),
        .charged_peak_bytes = ChargedPeakBytes(tenant, s),
        .contexts_bytes = KindBytes(tenant, s, region::Kind::kContext),
        .leaving_bytes = LeavingBytes(tenant, s),
        .nvml_bytes = share.nvml_bytes,
        .unattached_bytes = share.unattached_bytes,
        .overhead_bytes = share.overhead.bytes() + static_cast<int64_t>(share.unattached_bytes),
        .measured = share.measured,
        .shut_by_audit = share.gated,
        .guaranteed_s = tenant.guaranteed.SecondsAt(MonotonicNs())};
    f.over = f.used_bytes > f.limit_bytes;
    if (s < view.size()) AddCompute(view[s], f);
    out.shares.push_back(f);
  }
  return out;
}

Figures Node::CollectUse() const {
  Figures out;
  out.time = WallClock();
  const std::lock_guard lock(mutex_);
  for (unsigned d = 0; d < devices_.size(); ++d)
    out.devices.push_back({.uuid = device::ToString(source_.devices()[d].uuid),
                           .used_bytes = devices_[d].reading.used.n});
  out.tenants.reserve(tenants_.size());
  for (const auto& [id, tenant] : tenants_) {
    TenantFigures t{.id = id, .name = tenant.record.name};
    const std::vector<Compute::Use> uses = compute_.UsesOf(id);
    for (unsigned s = 0; s < tenant.shares.size(); ++s) {
      ShareFigures f{.device = tenant.shares[s].device,
                     .used_bytes = Dormant(tenant, s) ? 0 : UsedBytes(tenant, s)};
      if (s < uses.size()) {
        f.known = uses[s].known;
        f.used_percent_1s = uses[s].percent;
      }
      t.shares.push_back(f);
    }
    out.tenants.push_back(std::move(t));
  }
  return out;
}

Figures Node::CollectFigures() const {
  Figures out;
  out.time = WallClock();
  out.driver_version = source_.driver_version();
  const std::lock_guard lock(mutex_);
  for (unsigned d = 0; d < devices_.size(); ++d) out.devices.push_back(FiguresOf(d));
  out.tenants.reserve(tenants_.size());
  for (const auto& [id, tenant] : tenants_) out.tenants.push_back(FiguresOf(tenant));
  return out;
}

}  // namespace divvy::daemon
