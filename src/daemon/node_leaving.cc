// The node: memory whose owner is gone, or has become another program, and when it is credited.
#include <sys/stat.h>

#include <algorithm>

#include "src/daemon/node.h"
#include "src/region/books.h"

namespace divvy::daemon {
namespace {

// Absence from NVML's list is believed only this long after a death: the list may lag.
constexpr uint64_t kListLagNs = 250'000'000;
// Where NVML lists no processes, or the pid lives again as somebody else: longer than any teardown
// on record (0.4 to 26 s).
constexpr uint64_t kLongestTeardownNs = 30'000'000'000;
constexpr uint64_t kBlock = uint64_t{2} << 20;
// A driver call that takes this long is looked at: an execve may have ended it. And again so often.
constexpr uint64_t kUnsettledNs = 1'000'000'000;

// The image that said hello mapped the usage segment; execve takes that away.
bool ImageGone(const Tenant& tenant, const Process& process) {
  struct stat segment;
  return ::fstat(tenant.segments->usage_fd(), &segment) == 0 &&
         MapsFile(process.id.pid, segment) == std::optional(false) && Alive(process.id);
}

}  // namespace

// Of a device that NVML does not answer for: what left it so long ago that it must be free, and
// tenants that are over, end all the same.
void Node::ReleaseUnread(unsigned device) {
  std::vector<uint64_t> ids;
  for (const auto& [tenant, s] : devices_[device].shares) {
    ReleaseLeaving(*tenant, s, device::Reading{}, MonotonicNs(), false);
    if (tenant->runner_gone) ids.push_back(tenant->id);
  }
  for (const uint64_t id : ids)
    if (Tenant* tenant = FindTenant(id)) EndIfOver(*tenant);
}

// What threads were doing when their process replaced its image: nobody will finish it. (When it
// says hello again, or ends, Bury does the same.)
void Node::SettleReplaced(Tenant& tenant) {
  const uint64_t now = MonotonicNs();
  for (auto& [slot, process] : tenant.processes) {
    if (process.state != Process::State::kLive) continue;
    region::ProcessSlot& books = tenant.segments->usage().slot[slot];
    const uint64_t op = books.op.word.load(std::memory_order_acquire);
    const uint64_t answered = books.answered.load(std::memory_order_acquire);
    const uint64_t charges = books.charges.load(std::memory_order_acquire);
    if (op == 0 && region::UnderWay(answered, charges) == 0) {
      process.unsettled.since_ns = 0;
      continue;
    }
    const Process::Unsettled seen{.op = op, .answered = answered, .charges = charges};
    if (process.unsettled.since_ns == 0 || !process.unsettled.SameAs(seen)) {
      process.unsettled = seen;
      process.unsettled.since_ns = now;
    }
    if (now - process.unsettled.since_ns < kUnsettledNs) continue;
    process.unsettled.since_ns = now;
    if (!ImageGone(tenant, process)) continue;
    uint64_t held[region::kMaxDevices];
    region::Bury(tenant.segments->usage(), slot, held);
    books.answered.store(charges >> region::kUnderWayShift, std::memory_order_release);
    ++tenant.epoch;
  }
}

void Node::ReleaseLeaving(Tenant& tenant, unsigned share, const device::Reading& reading,
                          uint64_t begin_ns, bool quiet) {
  std::vector<uint32_t> done;
  for (auto& [slot, process] : tenant.processes) {
    Process::OnDevice& on = process.device[share];
    const uint64_t since_ns = process.since_ns;
    const auto age = [&](uint64_t wait_ns) { return begin_ns >= since_ns + wait_ns; };
    if (process.state == Process::State::kLive) {
      // Its socket is closed and the driver does not know it: an exec into something else.
      region::ProcessSlot& left = tenant.segments->usage().slot[slot];
      if (process.connections.empty() && age(kListLagNs) && reading.lists_processes &&
          reading.Find(process.id.pid) == nullptr && SlotBytes(tenant, slot, share) != 0 && quiet &&
          left.op.word.load(std::memory_order_acquire) == 0) {
        Credit(tenant, process, share, SlotBytes(tenant, slot, share) / region::kUnitBytes);
        left.device[share].charged_units = 0;
        left.answered = left.charges.load() >> region::kUnderWayShift;
      }
      continue;
    }
    if (on.held_units == 0) continue;
    const bool listed = reading.Find(process.id.pid) != nullptr;
    if (!reading.lists_processes) {
      if (age(kLongestTeardownNs)) Credit(tenant, process, share, on.held_units);
    } else if (!listed) {
      if (age(kListLagNs)) Credit(tenant, process, share, on.held_units);
    } else if (process.state == Process::State::kReplaced) {
      // The pid lives on: what NVML shows above the new image's charges is still the old one's.
      uint64_t charged = 0;
      for (const auto& [other, p] : tenant.processes)
        if (p.id == process.id && p.state == Process::State::kLive)
          charged += SlotBytes(tenant, other, share);
      const uint64_t excess = on.nvml_bytes > charged + kBlock ? on.nvml_bytes - charged : 0;
      if (quiet && age(kListLagNs) && excess / region::kUnitBytes < on.held_units)
        Credit(tenant, process, share, on.held_units - excess / region::kUnitBytes);
    } else if (age(kLongestTeardownNs) && IdentityOf(process.id.pid).has_value()) {
      Credit(tenant, process, share, on.held_units);  // the pid is somebody else's by now
    }
  }
  for (auto& [slot, process] : tenant.processes) {
    if (process.state == Process::State::kLive) continue;
    const bool empty = std::all_of(process.device.begin(), process.device.end(),
                                   [](const auto& on) { return on.held_units == 0; });
    if (empty) done.push_back(slot);
  }
  for (const uint32_t slot : done) Release(tenant, slot);
}

}  // namespace divvy::daemon
