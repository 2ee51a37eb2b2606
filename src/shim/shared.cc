// This process's parts in shared memory; see shared.h.
#include "src/shim/shared.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "src/shim/charge.h"

namespace divvy::shim {
namespace {

using region::kNoHold;
using region::kUnitBytes;

// Another process between a charge and its part: for how long it is waited for.
constexpr uint64_t kUnsettledNs = 50000000;
constexpr timespec kUnsettledNap{0, 20000};

uint64_t HashOf(const void* handle) noexcept {
  uint64_t words[kHandleBytes / sizeof(uint64_t)];
  memcpy(words, handle, kHandleBytes);
  uint64_t hash = 0x9e3779b97f4a7c15u;
  for (const uint64_t word : words) {
    hash = (hash ^ word) * 0xd6e8feb86659fd93u;
    hash ^= hash >> 32;
  }
  return hash != 0 ? hash : 1;
}

// Never used before, by no process of the tenant, under no daemon.
uint64_t NewObject() noexcept {
  uint64_t object = 0;
  if (syscall(SYS_getrandom, &object, sizeof(object), 1 /* GRND_NONBLOCK */) != sizeof(object))
    object = (MonotonicNs() << 16 ^ static_cast<uint64_t>(getpid())) * 0x9e3779b97f4a7c15u;
  return object != 0 ? object : 1;
}

// Under the books' lock: `change(session, device, hold)` with the part of the memory at `local`.
template <typename Change>
void WithHold(unsigned device, uint64_t local, uint64_t object, const Change& change) noexcept {
  if (CurrentSession() == nullptr) return;
  if (!g_process.books.Lock()) return Degrade(8);
  Session* s = CurrentSession();
  if (const int d = s->policy_index[device]; d >= 0) {
    const auto index = static_cast<unsigned>(d);
    const uint32_t hold = region::FindHold(*s->usage, s->slot, index, local, object);
    if (hold != kNoHold) change(*s, index, hold);
  }
  g_process.books.Unlock();
}

void Forget(Session& s, unsigned d, uint32_t hold) noexcept {
  region::EndHold(*s.usage, s.slot, d, hold, 0, Kind::kImport, s.sequence, 0, g_process.doubled);
}

void Open(Session& s, unsigned, uint32_t hold) noexcept {
  region::SharedHold& part = s.usage->hold[hold];
  if (part.handle.load(std::memory_order_relaxed) != 0)
    region::SetHold(*s.usage, hold, region::kHoldOpen);
}

// A part that counts and that nobody may join yet.
bool AddExport(const LiveEntry& entry, uint64_t object, uint64_t handle) noexcept {
  if (CurrentSession() == nullptr || !g_process.books.Lock()) return false;
  const Session* s = CurrentSession();
  uint32_t hold = kNoHold;
  if (const int d = s->policy_index[entry.device]; d >= 0)
    hold = region::TakeHold(*s->usage, s->slot, static_cast<unsigned>(d), object, handle,
                            entry.units, entry.key);
  if (hold != kNoHold) region::SetHold(*s->usage, hold, region::kHoldCounted);
  g_process.books.Unlock();
  return hold != kNoHold;
}

// Under the books' lock, until other processes' changes have settled: `charge(session, device)`.
template <typename Charge>
Verdict UntilSettled(unsigned device, const Charge& charge) noexcept {
  const uint64_t start = MonotonicNs();
  for (;;) {
    if (!g_process.books.Lock()) {
      Degrade(0);
      return Verdict::kNotReady;
    }
    Session* s = CurrentSession();
    const int d = s->policy_index[device];
    Verdict verdict = Verdict::kNoShare;
    bool unsettled = false;
    if (d >= 0) verdict = charge(*s, static_cast<unsigned>(d), &unsettled);
    g_process.books.Unlock();
    if (!unsettled || MonotonicNs() - start > kUnsettledNs) return verdict;
    syscall(SYS_nanosleep, &kUnsettledNap, nullptr);
  }
}

// The end of the entry's part and of its charge. False: nothing was booked.
bool CreditShared(const LiveEntry& entry, int begun) noexcept {
  if (CurrentSession() == nullptr) return false;
  if (!g_process.books.Lock()) {
    Degrade(1);  // stays booked, and counted as before
    return false;
  }
  const auto kind = static_cast<Kind>(entry.kind);
  Session* s = CurrentSession();
  const int d = s->policy_index[entry.device];
  if (d >= 0) {
    const auto index = static_cast<unsigned>(d);
    const uint32_t hold = region::FindHold(*s->usage, s->slot, index, entry.key);
    if (hold != kNoHold)
      region::EndHold(*s->usage, s->slot, index, hold, entry.units, kind, s->sequence, begun,
                      g_process.doubled);
    else
      region::ChangeSlow(*s->usage, s->slot, index, -static_cast<int64_t>(entry.units), 0, kind,
                         s->sequence, begun);
  }
  region::Usage& usage = *s->usage;
  g_process.books.Unlock();
  WakeForRoom(usage);
  return d >= 0;
}

}  // namespace

Verdict TryBeyond(unsigned device, uint64_t units, Kind kind, int begun) noexcept {
  const Session* now = CurrentSession();
  if (region::HoldsTop(*now->usage) == 0) return Verdict::kOutOfShare;
  return UntilSettled(device, [&](Session& s, unsigned d, bool* unsettled) noexcept {
    const auto beyond =
        region::ChangeBeyond(*s.usage, s.slot, d, units, 0, ChargeableBytes(s, d) / kUnitBytes,
                             kind, s.sequence, begun, g_process.doubled);
    *unsettled = beyond == region::Beyond::kUnsettled;
    if (beyond != region::Beyond::kGranted) return Verdict::kOutOfShare;
    const uint64_t rest = s.policy->device[d].rest_bytes.load(std::memory_order_relaxed);
    if (units <= rest / kUnitBytes) return Verdict::kGranted;
    region::ChangeSlow(*s.usage, s.slot, d, -static_cast<int64_t>(units), 0, kind, s.sequence,
                       -begun);
    return Verdict::kDeviceFull;
  });
}

Verdict ChargeOpened(const Offer& offer, unsigned device, uint64_t* units, uint64_t pointer,
                     DriverSymbol symbol, bool* shared) noexcept {
  *shared = offer.open.object != 0;
  if (!*shared) return Charge(device, *units, Kind::kImport, symbol);
  // What its exporter is charged, in whole blocks: so much stays when the exporter goes.
  const uint64_t own = *units;
  if (*units < offer.open.units) *units = offer.open.units;
  const auto join = [&]() noexcept {
    if (FreshSession() == nullptr) return Verdict::kNotReady;
    if (*shared) {
      const Verdict v = UntilSettled(device, [&](Session& s, unsigned d, bool* unsettled) noexcept {
        const auto joined =
            region::JoinHold(*s.usage, s.slot, d, *units, offer.open, offer.handle, pointer,
                             ChargeableBytes(s, d) / kUnitBytes, s.sequence, g_process.doubled);
        *unsettled = joined == region::Joined::kUnsettled;
        *shared = joined != region::Joined::kNotShared;
        return joined == region::Joined::kGranted ? Verdict::kGranted : Verdict::kOutOfShare;
      });
      if (*shared) return v;
      *units = own;
    }
    return TryCharge(device, own, Kind::kImport);
  };
  const Verdict v = join();
  return v == Verdict::kGranted ? v : ChargePatiently(v, device, *units, symbol, Attempt(join));
}

void CreditEntry(const LiveEntry& entry) noexcept {
  if ((entry.flags & kSharedMemory) != 0)
    CreditShared(entry, 0);
  else
    Credit(entry.device, entry.units, static_cast<Kind>(entry.kind));
}

void CreditSharedAndEnd(const LiveEntry& entry) noexcept {
  if (!CreditShared(entry, -1)) End();
}

uint64_t HeldBytes(const Session& s, unsigned d) noexcept {
  const uint64_t booked = region::BookBytes(*s.usage, d);
  if (region::HoldsTop(*s.usage) == 0 || !g_process.books.Lock()) return booked;
  const uint64_t doubled =
      region::LookDoubled(*s.usage, d, 0, g_process.doubled).units * kUnitBytes;
  g_process.books.Unlock();
  return booked > doubled ? booked - doubled : 0;
}

Offer LookUpOffer(const void* handle) noexcept {
  Offer offer;
  const Session* s = CurrentSession();
  if (handle == nullptr || s == nullptr || region::HoldsTop(*s->usage) == 0) return offer;
  offer.handle = HashOf(handle);
  offer.open = region::FindOpen(*s->usage, offer.handle);
  return offer;
}

void NoteExported(Family family, uint64_t pointer, const void* handle) noexcept {
  LiveEntry entry;
  const auto kind = static_cast<uint8_t>(family == Family::kPooled ? Kind::kPool : Kind::kLinear);
  if (!g_process.live.Find(family, pointer, &entry)) return;
  if (entry.kind != kind || entry.flags != 0 || entry.device >= kLocalDevices) return;
  const uint64_t object = NewObject();
  if (!AddExport(entry, object, HashOf(handle))) return;
  // From here on its free finds the part; before, it was freed or is another's.
  bool its = false;
  g_process.live.Update(family, pointer, [&](LiveEntry& now) {
    its = now.flags == 0 && now.units == entry.units && now.device == entry.device;
    if (its) now.flags |= kSharedMemory;
  });
  WithHold(entry.device, pointer, object, its ? &Open : &Forget);
}

void CloseExport(const LiveEntry& entry) noexcept {
  WithHold(entry.device, entry.key, 0, [](Session& s, unsigned, uint32_t hold) {
    region::SetHold(*s.usage, hold, region::kHoldCounted);
  });
}

void ReopenExport(const LiveEntry& entry) noexcept { WithHold(entry.device, entry.key, 0, &Open); }

void ForgetShared(const LiveEntry& entry) noexcept {
  WithHold(entry.device, entry.key, 0, &Forget);
}

void CarryHolds(const Session& from, Session& next) noexcept {
  const uint32_t top = region::HoldsTop(*from.usage);
  for (uint32_t i = 0; i < top; ++i) {
    const region::SharedHold& hold = from.usage->hold[i];
    const auto word = region::UnpackHold(hold.word.load(std::memory_order_acquire));
    if (word.slot != from.slot || word.state < region::kHoldCounted ||
        word.device >= region::kMaxDevices)
      continue;
    const int local = from.local_index[word.device];
    const int to = local >= 0 ? next.policy_index[local] : -1;
    if (to >= 0) {
      const uint32_t carried = region::TakeHold(
          *next.usage, next.slot, static_cast<unsigned>(to),
          hold.object.load(std::memory_order_relaxed), hold.handle.load(std::memory_order_relaxed),
          hold.units.load(std::memory_order_relaxed), hold.local.load(std::memory_order_relaxed));
      if (carried != kNoHold) region::SetHold(*next.usage, carried, word.state);
    }
    // Who is still in the old segment must not take it for what this process says now.
    region::SetHold(*from.usage, i, region::kHoldFree);
    region::EndsOf(*from.usage, word.device).fetch_add(1, std::memory_order_acq_rel);
  }
  for (uint32_t d = 0; top != 0 && d < next.policy->device_count; ++d)
    region::NoteDoubled(*next.usage, d, g_process.doubled);
}

}  // namespace divvy::shim
