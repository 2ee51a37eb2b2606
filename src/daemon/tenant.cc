#include "src/daemon/tenant.h"

#include <algorithm>

#include "src/region/shared_memory.h"

namespace divvy::daemon {

BooksLook LookAtBooks(const Tenant& tenant) {
  BooksLook look{.sequence = tenant.epoch};
  for (const auto& [index, process] : tenant.processes) {
    const region::ProcessSlot& slot = tenant.segments->usage().slot[index];
    // In this order, see UnderWay.
    const bool charging = slot.op.word.load(std::memory_order_acquire) != 0;
    const uint64_t answered = slot.answered.load(std::memory_order_acquire);
    const uint64_t charges = slot.charges.load(std::memory_order_acquire);
    look.sequence += charges;
    // What a dead process waited for ends with it; its charges are leaving.
    if (process.state == Process::State::kLive)
      look.still = look.still && !charging && region::UnderWay(answered, charges) == 0;
  }
  return look;
}

bool Dormant(const Tenant& tenant, unsigned share) {
  return tenant.processes.empty() && tenant.shares[share].empty;
}

uint64_t BookedBytes(const Tenant& tenant, unsigned share) {
  return region::BookBytes(tenant.segments->usage(), share);
}

uint64_t DoubledBytes(const Tenant& tenant, unsigned share) {
  region::DoubledScratch scratch;
  return std::min(
      region::LookDoubled(tenant.segments->usage(), share, 0, scratch).units * region::kUnitBytes,
      BookedBytes(tenant, share));
}

uint64_t ChargedBytes(const Tenant& tenant, unsigned share) {
  const uint64_t doubled = DoubledBytes(tenant, share);
  const uint64_t booked = BookedBytes(tenant, share);
  return booked > doubled ? booked - doubled : 0;
}

uint64_t ChargedPeakBytes(const Tenant& tenant, unsigned share) {
  // The tenant's word, as the book is: bounded so that it can be shown.
  const uint64_t units =
      region::PeakOf(tenant.segments->usage(), share).load(std::memory_order_relaxed);
  return std::max(std::min(units, region::kMaxUnits) * region::kUnitBytes,
                  ChargedBytes(tenant, share));
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

uint64_t ImportedBytes(const Tenant& tenant, unsigned share) {
  const uint64_t imported = KindBytes(tenant, share, region::Kind::kImport);
  return imported - std::min(imported, DoubledBytes(tenant, share));
}

bool SlotImports(const Tenant& tenant, uint32_t slot, unsigned share) {
  return SlotKindBytes(tenant, slot, share, region::Kind::kImport) != 0;
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
  return sum == BookedBytes(tenant, share);
}

uint64_t SlotBytes(const Tenant& tenant, uint32_t slot, unsigned share) {
  const uint64_t units = tenant.segments->usage().slot[slot].device[share].charged_units.load(
      std::memory_order_acquire);
  return std::min(units, region::kMaxUnits) * region::kUnitBytes;
}

uint64_t RoomWaiters(const Tenant& tenant, const Process& process) {
  if (process.state != Process::State::kLive) return 0;
  constexpr uint32_t kMostThreads = 1 << 16;  // what a process says is its own affair
  return std::min(
      tenant.segments->usage().slot[process.slot].room_waiters.load(std::memory_order_relaxed),
      kMostThreads);
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
