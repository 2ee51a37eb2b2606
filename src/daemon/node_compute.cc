// The node: the compute part of shares. What was promised, what the arbiter's thread is told, and
// what it saw, as JSON and as events.
#include <algorithm>
#include <cmath>

#include "src/daemon/node.h"
#include "src/daemon/use.h"

namespace divvy::daemon {
namespace {

ComputeTerms TermsOf(const ShareSpec& share) {
  ComputeTerms terms{.guaranteed = share.compute, .cap = share.compute_max, .weight = share.weight};
  switch (share.share_class) {
    case Class::kLatency:
      terms.cls = arbiter::TenantClass::kLatency;
      break;
    case Class::kStandard:
      terms.cls = arbiter::TenantClass::kStandard;
      break;
    case Class::kBatch:
      terms.cls = arbiter::TenantClass::kBatch;
      break;
  }
  return terms;
}

uint32_t PercentMilli(double fraction) {  // whole percents
  return static_cast<uint32_t>(std::lround(std::clamp(fraction, 0.0, 1.0) * 100)) * 1000;
}

}  // namespace

std::vector<ComputePromise> Node::ComputePromises(unsigned device, const std::string& but) const {
  std::vector<ComputePromise> out;
  for (const auto& [tenant, s] : devices_[device].shares)
    if (tenant->record.name != but)
      out.push_back({tenant->record.name, tenant->record.share.compute});
  return out;
}

void Node::JoinCompute(Tenant& tenant) {
  std::vector<unsigned> devices;
  for (const Share& share : tenant.shares) devices.push_back(share.device);
  compute_.Join(tenant.id, tenant.segments, std::move(devices), TermsOf(tenant.record.share));
  PublishTerms(tenant);
}

void Node::PublishTerms(Tenant& tenant) {
  tenant.guaranteed.Change(tenant.record.share.compute.milli / 100'000.0, MonotonicNs());
  compute_.SetTerms(tenant.id, TermsOf(tenant.record.share));
  for (unsigned s = 0; s < tenant.shares.size(); ++s)
    compute_.Pause(tenant.id, s, PausedBy::kOperator, tenant.record.share.paused);
}

// What the driver saw each process use. It is what people see of a tenant that is alone, and it is
// compared with what was billed: a tenant whose markers tell of less than the driver sees has found
// a way around the meter. The driver's figures are coarse and lag: only much, for seconds, counts.
// What was not billed is debited, so that it gains nothing.
void Node::AuditCompute(unsigned device, const std::vector<device::ProcessUse>& uses) {
  DeviceState& state = devices_[device];
  constexpr uint64_t kSilentNs = 1'000'000'000;
  const uint64_t now = MonotonicNs();
  // Without a new figure the newest one goes on; after a while there is none because of no use.
  if (uses.empty() && (!state.tells_uses || now - state.uses_ns < kSilentNs)) return;
  const uint64_t from = state.uses_ns != 0 ? std::max(state.uses_ns, now - kSilentNs) : now;
  state.uses_ns = now;
  state.tells_uses = true;
  for (const ShareOf& of : state.shares) {
    Tenant& tenant = *of.tenant;
    double percent = 0;
    for (const device::ProcessUse& use : uses)
      for (const auto& [slot, process] : tenant.processes)
        if (process.id.pid == use.pid && process.state == Process::State::kLive) {
          percent += use.percent;
          break;
        }
    const double seen_ns = std::min(percent, 100.0) / 100 * static_cast<double>(now - from);
    bool& used = tenant.shares[of.share].used_lately;
    if (Dormant(tenant, of.share) && !used && seen_ns == 0) {
      tenant.shares[of.share].unseen = {};
      continue;
    }
    // Also of the first stretch without any use; then there is no more to say.
    if (used || seen_ns > 0)
      compute_.Seen(tenant.id, of.share, arbiter::Nanos(static_cast<int64_t>(seen_ns)),
                    arbiter::Nanos(static_cast<int64_t>(from)));
    used = seen_ns > 0;
    AuditShare(tenant, of.share, seen_ns, now);
  }
}

void Node::AuditShare(Tenant& tenant, unsigned index, double seen_ns, uint64_t now) {
  constexpr uint64_t kCompareNs = 3'000'000'000;
  constexpr double kMuch = 0.15;  // of the device's time
  constexpr unsigned kRounds = 2;
  constexpr uint64_t kLongestQueueNs = 60'000'000'000;  // what a driver may hold
  Share& share = tenant.shares[index];
  Share::Unseen& u = share.unseen;
  const TenantView view = compute_.ViewOf(tenant.id);
  if (index >= view.size() || !view[index].metered) {
    u = {};
    return;
  }
  const ShareView& v = view[index];
  // Alone it had few markers and took nothing from anybody: whatever it used then is right.
  const int64_t explained = v.billed.count() + v.lone.count();
  const bool done = u.queue && (!v.rearming || now - u.began_ns > kLongestQueueNs);
  if (u.began_ns == 0 || done)
    u = {.began_ns = now,
         .queue = v.rearming && !done,
         .explained_then = explained,
         .shown_then = v.used.count()};
  else
    u.driver_ns += seen_ns;
  const double more =
      u.driver_ns - u.debited_ns - static_cast<double>(explained - u.explained_then);
  const auto debit = [&](uint64_t from) {
    const double unseen = u.driver_ns - static_cast<double>(v.used.count() - u.shown_then);
    compute_.Debit(tenant.id, index, arbiter::Nanos(static_cast<int64_t>(more)),
                   arbiter::Nanos(static_cast<int64_t>(std::max(unseen, 0.0))),
                   arbiter::Nanos(static_cast<int64_t>(from)));
    u.debited_ns += more;
  };
  if (u.queue) {
    if (more > 0) debit(now - static_cast<uint64_t>(seen_ns));
    return;
  }
  if (now - u.began_ns >= kCompareNs) {
    const auto elapsed = static_cast<double>(now - u.began_ns);
    u.rounds = more > kMuch * elapsed ? u.rounds + 1 : 0;
    if (u.rounds >= kRounds) {
      debit(u.began_ns);
      u.message = "the driver saw it use " +
                  ToString(Percent{PercentMilli(u.driver_ns / elapsed)}) +
                  " of the GPU's time, its own markers tell of " +
                  ToString(Percent{PercentMilli((u.driver_ns - more) / elapsed)});
    }
    u = {.began_ns = now,
         .explained_then = explained,
         .shown_then = v.used.count(),
         .rounds = u.rounds,
         .message = std::move(u.message)};
  }
  if (u.rounds >= kRounds) Report(tenant, share.device, "gpu_time_unseen", 0, 0, u.message);
}

void Node::PublishUse(unsigned device) {
  const uint64_t now = MonotonicNs();
  for (const auto& [tenant, s] : devices_[device].shares) {
    const std::optional<UseNow> use = compute_.UseOf(tenant->id, s);
    TellUse(tenant->segments->policy().device[s],
            WholeOf(tenant->record.share.compute, tenant->record.share.compute_max), use, now);
  }
}

void Node::TellCompute(Tenant& tenant) {
  const std::vector<arbiter::SeatStats> seen = compute_.StatsOf(tenant.id);
  for (unsigned s = 0; s < tenant.shares.size() && s < seen.size(); ++s) {
    Share& share = tenant.shares[s];
    const arbiter::SeatStats& stats = seen[s];
    if (stats.faults == share.faults_told && stats.overruns == share.overruns_told) continue;
    const std::string uuid = device::ToString(source_.devices()[share.device].uuid);
    if (stats.faults > share.faults_told)
      Tell({.cause = "garbage_markers",
            .tenant = tenant.record.name,
            .device = uuid,
            .message = "its work counters made no sense " +
                       std::to_string(stats.faults - share.faults_told) +
                       " times; it is billed for all the time it may run"});
    if (stats.overruns > share.overruns_told)
      Tell(
          {.cause = "overrun",
           .tenant = tenant.record.name,
           .device = uuid,
           .message = "its work outlived its window by more than the grace " +
                      std::to_string(stats.overruns - share.overruns_told) + " times" +
                      (stats.entangled ? "; it waits for another tenant, both run together" : "")});
    share.faults_told = stats.faults;
    share.overruns_told = stats.overruns;
  }
}

}  // namespace divvy::daemon
