// What every hook file needs. A hook is entered by the program's thread, any thread; it finds out
// what the process is, does its books, and calls the driver's own function through g_driver.
// No hook holds a lock across that call.
#pragma once

#include "src/shim/books.h"
#include "src/shim/capture.h"
#include "src/shim/contexts.h"
#include "src/shim/devices.h"
#include "src/shim/driver.h"
#include "src/shim/gate.h"
#include "src/shim/generated/hooks.h"
#include "src/shim/process.h"
#include "src/shim/shared.h"

// First line of a driver hook: a process that is no tenant gets the driver's answer; a tenant
// without its region is refused. After it the process is a tenant with a session.
#define DIVVY_ENTER(symbol, arguments)                                       \
  EnsureDriver();                                                            \
  if (const Standing standing = Now(); standing != Standing::kActive) {      \
    if (standing == Standing::kNotReady) return CUDA_ERROR_SYSTEM_NOT_READY; \
    return g_driver.symbol arguments;                                        \
  }                                                                          \
  static_assert(true, "")

// A hook that adds nothing but a look: what is not the common case is a function of its own with
// the same parameters, so that both ways are jumps and no register has to be saved.
#define DIVVY_FORWARDED(symbol, parameters, arguments)                         \
  namespace {                                                                  \
  __attribute__((noinline, cold)) CUresult Slow_##symbol parameters noexcept { \
    EnsureDriver();                                                            \
    return g_driver.symbol arguments;                                          \
  }                                                                            \
  }                                                                            \
  CUresult hook_##symbol parameters noexcept {                                 \
    if (!DriverBound()) return Slow_##symbol arguments;                        \
    return g_driver.symbol arguments;                                          \
  }

namespace divvy::shim {

// A device that the tenant has no share of was met as the current context: refused.
inline bool ForeignContext(const Here& here) noexcept {
  return here.device < 0 && here.context != 0;
}

// Charge, take, remember: the shape of every plain allocation. `take` calls the driver and returns
// its answer; `key` then yields the new object's key. Out-parameters are written by the driver
// alone.
template <typename Take, typename Key>
CUresult TakeCharged(const Here& here, Family family, Kind kind, uint64_t units,
                     DriverSymbol symbol, const Take& take, const Key& key) noexcept {
  const auto device = static_cast<unsigned>(here.device);
  if (const Verdict v = ChargeAndBegin(device, units, kind, symbol); v != Verdict::kGranted)
    return CodeOf(v);
  const CUresult r = take();
  if (r != CUDA_SUCCESS) {
    CreditAndEnd(device, units, kind);
    if (r == CUDA_ERROR_OUT_OF_MEMORY)
      Report(region::EventCause::kDriverRefused, device, units * region::kUnitBytes, symbol);
    return r;
  }
  End();
  LiveEntry replaced;
  const LiveEntry entry{
      key(), family, static_cast<uint8_t>(device), static_cast<uint8_t>(kind), 0, here.context,
      units, 0};
  if (!g_process.live.Insert(entry, &replaced))
    Degrade(2);  // stays booked until the process ends
  else if (__builtin_expect(replaced.family != Family::kNone, 0))
    CreditEntry(replaced);
  return r;
}

// Give back: forgotten before the driver is called, because it may hand the same key to another
// thread at once; put back if the driver refuses. `found` tells the caller whether it was ours.
template <typename Give>
CUresult GiveBack(Family family, uint64_t key, const Give& give, bool* found = nullptr) noexcept {
  LiveEntry entry;
  const bool ours = g_process.live.Take(family, key, &entry);
  if (found != nullptr) *found = ours;
  if (!ours) return give();
  Begin();
  const bool shared = family == Family::kPointer && (entry.flags & kSharedMemory) != 0;
  if (shared) CloseExport(entry);
  const CUresult r = give();
  if (r == CUDA_SUCCESS && shared) {
    CreditSharedAndEnd(entry);
  } else if (r == CUDA_SUCCESS) {
    CreditAndEnd(entry.device, entry.units, static_cast<Kind>(entry.kind));
  } else {
    if (shared) ReopenExport(entry);
    g_process.live.Insert(entry);
    End();
  }
  return r;
}

}  // namespace divvy::shim
