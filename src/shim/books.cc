// The tenant's side of the books; see books.h.
#include "src/shim/books.h"

#include "src/region/books.h"
#include "src/shim/charge.h"
#include "src/shim/shared.h"

namespace divvy::shim {
namespace {

using region::EventCause;
using region::kUnitBytes;

constexpr uint64_t kWaitSliceNs = 100000000;  // a waiter looks again at least this often

// By the limit alone.
Verdict TryOn(Session* fresh, unsigned device, uint64_t units, Kind kind, int begun) noexcept {
  if (fresh == nullptr) return Verdict::kNotReady;
  if (__builtin_expect(!g_process.books.Lock(), 0)) {
    Degrade(0);
    return Verdict::kNotReady;
  }
  // Again: a swap happens under this lock.
  Session* s = CurrentSession();
  Verdict verdict = Verdict::kNoShare;
  const int d = s->policy_index[device];
  if (__builtin_expect(d >= 0, 1)) {
    const uint64_t chargeable = ChargeableBytes(*s, static_cast<unsigned>(d));
    const uint64_t rest = s->policy->device[d].rest_bytes.load(std::memory_order_relaxed);
    if (!region::Change(*s->usage, s->slot, static_cast<unsigned>(d), static_cast<int64_t>(units),
                        chargeable / kUnitBytes, kind, s->sequence, begun)) {
      verdict = Verdict::kOutOfShare;
    } else if (__builtin_expect(units > rest / kUnitBytes, 0)) {
      region::ChangeSlow(*s->usage, s->slot, static_cast<unsigned>(d), -static_cast<int64_t>(units),
                         0, kind, s->sequence, -begun);
      verdict = Verdict::kDeviceFull;
    } else {
      verdict = Verdict::kGranted;
    }
  }
  g_process.books.Unlock();
  return verdict;
}

bool ForRoom(Verdict v) noexcept { return v == Verdict::kOutOfShare || v == Verdict::kDeviceFull; }

// Waits until somebody of the tenant gave something back, at most `left_ns`.
void AwaitFreed(Session* s, uint32_t seen, uint64_t left_ns) noexcept {
  if (left_ns > kWaitSliceNs) left_ns = kWaitSliceNs;
  const timespec slice{0, static_cast<long>(left_ns)};
  Futex(&s->usage->freed_futex, FUTEX_WAIT, seen, &slice);
}

}  // namespace

Verdict ChargePatiently(Verdict first, unsigned device, uint64_t units, DriverSymbol symbol,
                        const Attempt& again) noexcept {
  Verdict v = first;
  if (ForRoom(v)) {
    if (auto* reclaim = g_process.reclaim.load(std::memory_order_acquire))
      if (reclaim(device)) v = again();
  }
  Session* s = CurrentSession();
  const uint64_t wait_ns =
      s != nullptr ? uint64_t{s->policy->on_full_wait_ms.load(std::memory_order_relaxed)} * 1000000
                   : 0;
  if (ForRoom(v) && wait_ns > 0) {
    const uint64_t start = MonotonicNs();
    for (uint64_t now = start; ForRoom(v) && now - start < wait_ns; now = MonotonicNs()) {
      // More than the whole share: no wait makes room, unless the limit is raised meanwhile.
      s = CurrentSession();
      // Before the try, so that a credit after it is not missed; seq_cst with Credit's look.
      s->usage->freed_waiters.fetch_add(1);
      s->Slot().room_waiters.fetch_add(1, std::memory_order_relaxed);
      const uint32_t seen = s->usage->freed_futex.load();
      v = again();
      if (ForRoom(v)) {
        if (auto* reclaim = g_process.reclaim.load(std::memory_order_acquire)) reclaim(device);
        AwaitFreed(s, seen, wait_ns - (now - start));
      }
      s->Slot().room_waiters.fetch_sub(1, std::memory_order_relaxed);
      s->usage->freed_waiters.fetch_sub(1);
    }
    if (ForRoom(v)) v = again();
  }
  if (v != Verdict::kGranted) {
    const EventCause cause = v == Verdict::kOutOfShare   ? EventCause::kOutOfShare
                             : v == Verdict::kDeviceFull ? EventCause::kDeviceFull
                             : v == Verdict::kNoShare    ? EventCause::kForeignDevice
                                                         : EventCause::kDegraded;
    Report(cause, device, units * kUnitBytes, symbol);
  }
  return v;
}

namespace {

__attribute__((noinline, cold)) Verdict ChargeSlow(Verdict first, unsigned device, uint64_t units,
                                                   Kind kind, int begun,
                                                   DriverSymbol symbol) noexcept {
  if (first == Verdict::kOutOfShare) first = TryBeyond(device, units, kind, begun);
  if (first == Verdict::kGranted) return first;
  const auto again = [=]() noexcept {
    const Verdict v = TryOn(FreshSession(), device, units, kind, begun);
    return v == Verdict::kOutOfShare ? TryBeyond(device, units, kind, begun) : v;
  };
  return ChargePatiently(first, device, units, symbol, Attempt(again));
}

inline Verdict ChargeWith(int begun, unsigned device, uint64_t units, Kind kind,
                          DriverSymbol symbol) noexcept {
  const Verdict v = TryOn(FreshSession(), device, units, kind, begun);
  if (__builtin_expect(v == Verdict::kGranted, 1)) return v;
  return ChargeSlow(v, device, units, kind, begun, symbol);
}

// False: nothing was booked, so nothing has ended by it.
inline bool CreditWith(int begun, unsigned device, uint64_t units, Kind kind) noexcept {
  if (units == 0 || CurrentSession() == nullptr) return false;
  if (__builtin_expect(!g_process.books.Lock(), 0)) {
    Degrade(1);  // stays booked: the safe side
    return false;
  }
  Session* s = CurrentSession();
  const int d = s->policy_index[device];
  if (d >= 0)
    region::Change(*s->usage, s->slot, static_cast<unsigned>(d), -static_cast<int64_t>(units), 0,
                   kind, s->sequence, begun);
  region::Usage& usage = *s->usage;
  g_process.books.Unlock();
  WakeForRoom(usage);
  return d >= 0;
}

}  // namespace

void WakeWaiters(region::Usage& usage) noexcept {
  usage.freed_word.fetch_add(1, std::memory_order_relaxed);
  usage.freed_futex.fetch_add(1);
  Futex(&usage.freed_futex, FUTEX_WAKE, INT32_MAX, nullptr);
}

Verdict Charge(unsigned device, uint64_t units, Kind kind, DriverSymbol symbol) noexcept {
  return ChargeWith(0, device, units, kind, symbol);
}

Verdict ChargeAndBegin(unsigned device, uint64_t units, Kind kind, DriverSymbol symbol) noexcept {
  return ChargeWith(1, device, units, kind, symbol);
}

Verdict TryCharge(unsigned device, uint64_t units, Kind kind) noexcept {
  const Verdict v = TryOn(CurrentSession(), device, units, kind, 0);
  return v == Verdict::kOutOfShare ? TryBeyond(device, units, kind, 0) : v;
}

void Credit(unsigned device, uint64_t units, Kind kind) noexcept {
  CreditWith(0, device, units, kind);
}

void CreditAndEnd(unsigned device, uint64_t units, Kind kind) noexcept {
  if (!CreditWith(-1, device, units, kind)) End();
}

bool Look(unsigned device, Figures* out) noexcept {
  const Session* s = CurrentSession();
  if (s == nullptr || s->policy_index[device] < 0) return false;
  const auto d = static_cast<unsigned>(s->policy_index[device]);
  const region::PolicyDevice& p = s->policy->device[d];
  out->limit_bytes = p.limit_bytes.load(std::memory_order_relaxed);
  const auto charged = static_cast<int64_t>(HeldBytes(*s, d));
  const int64_t used = charged + p.overhead_bytes.load(std::memory_order_relaxed);
  out->used_bytes = used > 0 ? static_cast<uint64_t>(used) : 0;
  out->free_bytes = out->used_bytes < out->limit_bytes ? out->limit_bytes - out->used_bytes : 0;
  const uint64_t rest = p.rest_bytes.load(std::memory_order_relaxed);
  if (rest < out->free_bytes) out->free_bytes = rest;
  return true;
}

void Report(EventCause cause, unsigned device, uint64_t bytes, DriverSymbol symbol) noexcept {
  Session* s = CurrentSession();
  if (s == nullptr) return;
  region::Usage& usage = *s->usage;
  s->Slot().refusals.fetch_add(1, std::memory_order_relaxed);
  const uint64_t n = usage.event_head.fetch_add(1, std::memory_order_relaxed);
  region::UsageEvent& e = usage.event[n % region::kMaxEvents];
  // Odd while it is written (the exchange keeps the fields behind it), even when whole; release:
  // whoever sees 2n + 2 sees the fields.
  e.sequence.exchange(2 * n + 1, std::memory_order_acq_rel);
  const int d = device < kLocalDevices ? s->policy_index[device] : -1;
  e.time_ns = MonotonicNs();
  e.bytes = bytes;
  e.in_use = d >= 0 ? HeldBytes(*s, static_cast<unsigned>(d)) : 0;
  e.limit = d >= 0 ? s->policy->device[d].limit_bytes.load(std::memory_order_relaxed) : 0;
  e.slot = s->slot;
  e.device = static_cast<uint16_t>(d >= 0 ? d : static_cast<int>(kNoDevice));
  e.cause = static_cast<uint16_t>(cause);
  e.symbol = static_cast<uint32_t>(symbol);
  e.sequence.store(2 * n + 2, std::memory_order_release);
}

}  // namespace divvy::shim
