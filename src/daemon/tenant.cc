#include "src/daemon/tenant.h"

#include <algorithm>

#include "src/region/books.h"

namespace divvy::daemon {

uint64_t ChargeSequence(const Tenant& tenant) {
  uint64_t sum = tenant.epoch;
  for (const auto& [slot, process] : tenant.processes)
    sum += tenant.segments->usage().slot[slot].charges.load(std::memory_order_acquire);
  return sum;
}

uint64_t ChargedBytes(const Tenant& tenant, unsigned share) {
  return region::BookBytes(tenant.segments->usage(), share);
}

uint64_t LeavingBytes(const Tenant& tenant, unsigned share) {
  uint64_t units = 0;
  for (const auto& [slot, process] : tenant.processes)
    if (process.state != Process::State::kLive) units += process.device[share].held_units;
  return std::min(units * region::kUnitBytes, ChargedBytes(tenant, share));
}

namespace {
uint64_t SlotKindBytes(const Tenant& tenant, uint32_t slot, unsigned share, region::Kind kind) {
  const uint64_t units = tenant.segments->usage()
                             .slot[slot]
                             .device[share]
                             .kind_units[static_cast<unsigned>(kind)]
                             .load(std::memory_order_relaxed);
  return std::min(units, region::kMaxUnits) * region::kUnitBytes;
}
}  // namespace

uint64_t KindBytes(const Tenant& tenant, unsigned share, region::Kind kind) {
  uint64_t sum = 0;
  for (const auto& [slot, process] : tenant.processes)
    sum += SlotKindBytes(tenant, slot, share, kind);
  return sum;
}

uint64_t SlotContextBytes(const Tenant& tenant, uint32_t slot, unsigned share) {
  return SlotKindBytes(tenant, slot, share, region::Kind::kContext);
}

bool BooksAgree(const Tenant& tenant, unsigned share) {
  uint64_t sum = 0;
  for (const auto& [slot, process] : tenant.processes) {
    if (tenant.segments->usage().slot[slot].op.word.load(std::memory_order_acquire) != 0)
      return true;  // stopped halfway through a charge: nothing can be said
    sum += process.state == Process::State::kLive
               ? SlotBytes(tenant, slot, share)
               : process.device[share].held_units * region::kUnitBytes;
  }
  return sum == ChargedBytes(tenant, share);
}

uint64_t SlotBytes(const Tenant& tenant, uint32_t slot, unsigned share) {
  const uint64_t units = tenant.segments->usage().slot[slot].device[share].charged_units.load(
      std::memory_order_acquire);
  return std::min(units, region::kMaxUnits) * region::kUnitBytes;
}

const char* StateOf(const Tenant& tenant) {
  if (tenant.ending) return "ending";
  if (!tenant.runner_gone) return "running";
  for (const auto& [slot, process] : tenant.processes)
    if (process.state != Process::State::kLeaving) return "orphaned";
  return tenant.processes.empty() || tenant.cgroup_watch != 0 ? "orphaned" : "leaving";
}

uint64_t UsedBytes(const Tenant& tenant, unsigned share) {
  const Share& s = tenant.shares[share];
  const int64_t booked = static_cast<int64_t>(ChargedBytes(tenant, share)) + s.overhead.bytes() +
                         static_cast<int64_t>(s.unattached_bytes);
  const uint64_t believed = std::min(booked > 0 ? static_cast<uint64_t>(booked) : 0,
                                     s.highest_limit + s.unattached_bytes);
  return std::max(believed, s.nvml_bytes);
}

}  // namespace divvy::daemon
