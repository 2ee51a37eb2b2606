// Memory that one process of a tenant exports and others of the same tenant open: each of them is
// charged for it (who holds it last pays for it alone, whoever goes first), and here is counted
// what is thereby charged more than once. A tenant holds its book less that.
//
// A process's part in such memory is a SharedHold, beside the books. It counts only while its
// charge stands: it is set after the charge was made and taken back before the credit. So whoever
// is killed between the two leaves too much counted, never too little, until the daemon buries it.
// Of all parts in one object the largest counts, the others are doubled.
//
// The common charge never looks here. Only one that would be refused, and whoever shows figures.
// Who counts while others come and go must not believe in a part whose charge has been credited
// meanwhile: each end is told in EndsOf, between the part's end and its credit, and a charge that
// was granted by a count is taken back if there was an end since the count began.
//
// Callers: in the tenant, the shim, with one thread at a time per slot (as for books.h); in the
// daemon, for slots of the dead and for figures. noexcept, no allocation, no library calls.
#pragma once

#include <cstring>

#include "src/region/books.h"

namespace divvy::region {

constexpr uint32_t kNoHold = UINT32_MAX;

struct HoldWord {
  HoldState state;
  unsigned device;
  uint32_t slot;
};
constexpr uint64_t PackHold(HoldWord w) {
  return uint64_t{w.state} | uint64_t{w.device & 0xff} << 8 | uint64_t{w.slot} << 16;
}
constexpr HoldWord UnpackHold(uint64_t v) {
  return {static_cast<HoldState>(v & 3), static_cast<unsigned>(v >> 8) & 0xff,
          static_cast<uint32_t>(v >> 16)};
}

inline uint32_t HoldsTop(const Usage& usage) noexcept {
  const uint32_t top = usage.holds_top.load(std::memory_order_acquire);
  return top < kMaxHolds ? top : kMaxHolds;
}

// The points at which tests kill.
enum class HoldStep { kTaken, kCharged, kSet, kCleared, kTold, kCredited };
struct NoHoldSteps {
  void operator()(HoldStep) const noexcept {}
};

// --- parts ------------------------------------------------------------------------------------

// A free place, taken and filled, that does not count yet. kNoHold: there is none.
inline uint32_t TakeHold(Usage& usage, uint32_t slot, unsigned device, uint64_t object,
                         uint64_t handle, uint64_t units, uint64_t local) noexcept {
  for (uint32_t i = 0; i < kMaxHolds; ++i) {
    SharedHold& hold = usage.hold[i];
    uint64_t free = 0;
    if (hold.word.load(std::memory_order_relaxed) != 0) continue;
    // Before it is taken: whoever looks for what a dead process has left finds it.
    uint32_t top = usage.holds_top.load(std::memory_order_relaxed);
    while (top <= i && !usage.holds_top.compare_exchange_weak(top, i + 1)) {
    }
    if (!hold.word.compare_exchange_strong(free, PackHold({kHoldChanging, device, slot}))) continue;
    // Partner of LookDoubled's fence: who reads a field of this use knows that the last one ended.
    std::atomic_thread_fence(std::memory_order_release);
    hold.object.store(object, std::memory_order_relaxed);
    hold.handle.store(handle, std::memory_order_relaxed);
    hold.units.store(units, std::memory_order_relaxed);
    hold.local.store(local, std::memory_order_relaxed);
    return i;
  }
  return kNoHold;
}

inline void SetHold(Usage& usage, uint32_t index, HoldState state) noexcept {
  U64& word = usage.hold[index].word;
  HoldWord w = UnpackHold(word.load(std::memory_order_relaxed));
  w.state = state;
  word.store(state == kHoldFree ? 0 : PackHold(w), std::memory_order_release);
}

// The slot's part for memory at `local`; of several the one in `object`, if that is not 0.
inline uint32_t FindHold(const Usage& usage, uint32_t slot, unsigned device, uint64_t local,
                         uint64_t object = 0) noexcept {
  const uint32_t top = HoldsTop(usage);
  for (uint32_t i = 0; i < top; ++i) {
    const SharedHold& hold = usage.hold[i];
    const uint64_t word = hold.word.load(std::memory_order_acquire);
    if (word == 0 || UnpackHold(word).slot != slot || UnpackHold(word).device != device) continue;
    if (hold.local.load(std::memory_order_relaxed) != local) continue;
    if (object == 0 || hold.object.load(std::memory_order_relaxed) == object) return i;
  }
  return kNoHold;
}

// Memory that a process of the tenant exports now by `handle`.
struct OpenHold {
  uint64_t object = 0;  // 0: none
  unsigned device = 0;
  uint64_t units = 0;
};
inline OpenHold FindOpen(const Usage& usage, uint64_t handle, uint64_t object = 0) noexcept {
  const uint32_t top = HoldsTop(usage);
  for (uint32_t i = 0; i < top; ++i) {
    const SharedHold& hold = usage.hold[i];
    const uint64_t word = hold.word.load(std::memory_order_acquire);
    if (UnpackHold(word).state != kHoldOpen) continue;
    if (hold.handle.load(std::memory_order_relaxed) != handle) continue;
    const OpenHold found{hold.object.load(std::memory_order_relaxed), UnpackHold(word).device,
                         hold.units.load(std::memory_order_relaxed)};
    std::atomic_thread_fence(std::memory_order_acquire);
    // The same use of the place still, or its fields may be of two.
    if (hold.word.load(std::memory_order_relaxed) != word) continue;
    if (found.object != 0 && (object == 0 || object == found.object) && found.device < kMaxDevices)
      return found;
  }
  return {};
}

// --- what is charged more than once -----------------------------------------------------------

// Memory for one count; what is in it does not matter.
struct DoubledScratch {
  uint16_t largest[2 * kMaxHolds];
};
struct Doubled {
  uint64_t units = 0;
  bool changing = false;  // another process is between a charge and its part, or back
};

__attribute__((noinline)) inline Doubled LookDoubled(const Usage& usage, unsigned device,
                                                     uint32_t but_slot,
                                                     DoubledScratch& scratch) noexcept {
  Doubled sum;
  const uint32_t top = HoldsTop(usage);
  if (top == 0) return sum;
  // The objects seen so far, each by its largest part: an open table that is at most half full.
  uint32_t places = 4;
  while (places < 2 * top) places *= 2;
  memset(scratch.largest, 0, places * sizeof(scratch.largest[0]));
  const auto units_of = [](const SharedHold& hold) {
    const uint64_t units = hold.units.load(std::memory_order_relaxed);
    return units < kMaxUnits ? units : kMaxUnits;
  };
  for (uint32_t i = 0; i < top; ++i) {
    const SharedHold& hold = usage.hold[i];
    const HoldWord word = UnpackHold(hold.word.load(std::memory_order_acquire));
    if (word.state == kHoldFree || word.device != device) continue;
    if (word.state == kHoldChanging) {
      // Of an attached process: what is no slot's (noise, what was left behind) does not change.
      sum.changing =
          sum.changing || (word.slot != but_slot && word.slot < kMaxSlots &&
                           usage.slot[word.slot].owner_tag.load(std::memory_order_relaxed) ==
                               usage.slot[but_slot].owner_tag.load(std::memory_order_relaxed));
      continue;
    }
    const uint64_t object = hold.object.load(std::memory_order_relaxed);
    for (uint32_t at = static_cast<uint32_t>((object * 0x9e3779b97f4a7c15u) >> 40) & (places - 1);;
         at = (at + 1) & (places - 1)) {
      uint16_t& largest = scratch.largest[at];
      if (largest == 0) {
        largest = static_cast<uint16_t>(i + 1);
        break;
      }
      const SharedHold& other = usage.hold[largest - 1];
      if (other.object.load(std::memory_order_relaxed) != object) continue;
      const uint64_t its = units_of(other), mine = units_of(hold);
      sum.units += its < mine ? its : mine;
      if (mine > its) largest = static_cast<uint16_t>(i + 1);
      break;
    }
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  return sum;
}

// For people: what the peak of the book leaves out.
inline void NoteDoubled(Usage& usage, unsigned device, DoubledScratch& scratch) noexcept {
  DoubledOf(usage, device)
      .store(LookDoubled(usage, device, 0, scratch).units, std::memory_order_relaxed);
}

// --- charges ----------------------------------------------------------------------------------

enum class Beyond {
  kGranted,
  kRefused,
  kUnsettled,  // others are between a charge and its part: look again in a moment
};

// A charge that the limit alone would refuse: what is charged more than once is room.
// `soon_units`: of this charge, what will be doubled as soon as its part is set.
__attribute__((noinline)) inline Beyond ChangeBeyond(Usage& usage, uint32_t slot, unsigned device,
                                                     uint64_t units, uint64_t soon_units,
                                                     uint64_t limit_units, Kind kind,
                                                     uint32_t& sequence, int begun,
                                                     DoubledScratch& scratch) noexcept {
  constexpr unsigned kAttempts = 64;
  for (unsigned attempt = 0; attempt < kAttempts; ++attempt) {
    // Acquire: before the count.
    const uint64_t ends = EndsOf(usage, device).load(std::memory_order_acquire);
    const Doubled doubled = LookDoubled(usage, device, slot, scratch);
    const bool granted = Change(usage, slot, device, static_cast<int64_t>(units),
                                limit_units + doubled.units + soon_units, kind, sequence, begun);
    // A credit that the charge came after, in the book's order, was told here before it was made.
    const bool same = EndsOf(usage, device).load(std::memory_order_acquire) == ends;
    if (granted && same) return Beyond::kGranted;
    if (granted)
      ChangeSlow(usage, slot, device, -static_cast<int64_t>(units), 0, kind, sequence, -begun);
    else if (same)
      return doubled.changing ? Beyond::kUnsettled : Beyond::kRefused;
  }
  return Beyond::kUnsettled;
}

// Memory of `open` that this process has just opened at `local`: charged, and a part in it.
// `handle`: as it was looked up by before the driver was asked to open it. If the exporter has
// given it up since, the driver may have opened other memory: nothing is charged then.
enum class Joined {
  kGranted,
  kRefused,
  kUnsettled,
  kNotShared,  // to be charged like a stranger's
};
template <typename Steps = NoHoldSteps>
inline Joined JoinHold(Usage& usage, uint32_t slot, unsigned device, uint64_t units,
                       const OpenHold& open, uint64_t handle, uint64_t local, uint64_t limit_units,
                       uint32_t& sequence, DoubledScratch& scratch, const Steps& at = {}) {
  const uint32_t index = TakeHold(usage, slot, device, open.object, 0, units, local);
  if (index == kNoHold) return Joined::kNotShared;
  at(HoldStep::kTaken);
  const uint64_t soon = units < open.units ? units : open.units;
  DoubledOf(usage, device).fetch_add(soon, std::memory_order_relaxed);  // not for the peak
  const Beyond charged = ChangeBeyond(usage, slot, device, units, soon, limit_units, Kind::kImport,
                                      sequence, 0, scratch);
  at(HoldStep::kCharged);
  Joined joined = charged == Beyond::kGranted   ? Joined::kGranted
                  : charged == Beyond::kRefused ? Joined::kRefused
                                                : Joined::kUnsettled;
  if (joined == Joined::kGranted) {
    SetHold(usage, index, kHoldCounted);
    at(HoldStep::kSet);
    if (FindOpen(usage, handle, open.object).object == 0) {
      SetHold(usage, index, kHoldChanging);
      EndsOf(usage, device).fetch_add(1, std::memory_order_acq_rel);
      ChangeSlow(usage, slot, device, -static_cast<int64_t>(units), 0, Kind::kImport, sequence, 0);
      joined = Joined::kNotShared;
    }
  }
  if (joined != Joined::kGranted) SetHold(usage, index, kHoldFree);
  NoteDoubled(usage, device, scratch);
  return joined;
}

// The end of a part, and of the charge that it is for.
template <typename Steps = NoHoldSteps>
inline void EndHold(Usage& usage, uint32_t slot, unsigned device, uint32_t index,
                    uint64_t credit_units, Kind kind, uint32_t& sequence, int begun,
                    DoubledScratch& scratch, const Steps& at = {}) {
  SetHold(usage, index, kHoldChanging);
  at(HoldStep::kCleared);
  EndsOf(usage, device).fetch_add(1, std::memory_order_acq_rel);
  at(HoldStep::kTold);
  if (credit_units != 0)
    ChangeSlow(usage, slot, device, -static_cast<int64_t>(credit_units), 0, kind, sequence, begun);
  at(HoldStep::kCredited);
  SetHold(usage, index, kHoldFree);
  NoteDoubled(usage, device, scratch);
}

// --- the daemon -------------------------------------------------------------------------------

// The slot's process is gone: nobody may open its memory any more. What it is charged stands, and
// counts as before, until the driver has given it back.
inline void CloseHolds(Usage& usage, uint32_t slot) noexcept {
  const uint32_t top = HoldsTop(usage);
  for (uint32_t i = 0; i < top; ++i) {
    const HoldWord word = UnpackHold(usage.hold[i].word.load(std::memory_order_acquire));
    if (word.slot != slot) continue;
    if (word.state == kHoldOpen) SetHold(usage, i, kHoldCounted);
    if (word.state == kHoldChanging) SetHold(usage, i, kHoldFree);
  }
}

// Before the slot's charge on `device` is credited.
inline void DropHolds(Usage& usage, uint32_t slot, unsigned device) noexcept {
  const uint32_t top = HoldsTop(usage);
  bool any = false;
  for (uint32_t i = 0; i < top; ++i) {
    const uint64_t value = usage.hold[i].word.load(std::memory_order_acquire);
    if (value == 0 || UnpackHold(value).slot != slot || UnpackHold(value).device != device)
      continue;
    SetHold(usage, i, kHoldFree);
    any = true;
  }
  if (any) EndsOf(usage, device).fetch_add(1, std::memory_order_acq_rel);
}

}  // namespace divvy::region
