// Charging and crediting memory so that the books are exact at any instruction.
//
// A tenant's use of a device is one word, the book: units(36) | slot(12) | sequence(16). It says
// how much is charged and which operation of which process was the last to change it. A process
// that wants to change it
//   1. writes into its slot what it is about to do (op.before, op.target, op.word),
//   2. tells the book's last writer that its operation stands (done_sequence), because
//   3. it now replaces the book by compare-and-swap with its own name in it,
//   4. moves charged_units to op.target and clears op.word.
// Killed anywhere, the operation stands if and only if the book still names it or done_sequence
// does; Bury() decides that and returns what the dead process held. No lock, no loop over
// processes, no system call; two cache lines.
//
// Callers: in the tenant, the shim, with one thread at a time per slot (its own process-private
// lock); in the daemon, Bury and Credit with slot 0. noexcept, no allocation, no library calls.
#pragma once

#include "src/region/layout.h"

namespace divvy::region {

struct BookWord {
  uint64_t units;
  uint32_t slot;
  uint32_t sequence;
};
constexpr uint64_t Pack(BookWord w) {
  return (w.units << 28) | (uint64_t{w.slot & 0xfff} << 16) | (w.sequence & 0xffff);
}
constexpr BookWord Unpack(uint64_t v) {
  return {v >> 28, static_cast<uint32_t>(v >> 16) & 0xfff, static_cast<uint32_t>(v) & 0xffff};
}

inline uint64_t BookBytes(Usage& usage, unsigned device) noexcept {
  return Unpack(BookOf(usage, device).load(std::memory_order_relaxed)).units * kUnitBytes;
}

// The four steps above are visible to tests as points at which a process can be killed.
enum class BookStep { kBegin, kOpWritten, kHelped, kSwapped, kMoved, kEnd };
struct NoSteps {
  void operator()(BookStep) const noexcept {}
};

// Changes `device`'s book and the slot's charge by `delta_units`. A positive delta that would take
// the book above `limit_units` is refused (false, nothing changed). A negative delta is clamped to
// what the slot holds. `sequence` is the slot's own counter, kept by the caller across calls.
// `begun`: allocations and frees that are under way from now on because of this change (-1, 0, 1;
// UnderWay in layout.h).
template <typename Steps = NoSteps>
__attribute__((always_inline)) inline bool Change(
    Usage& usage, uint32_t slot, unsigned device, int64_t delta_units, uint64_t limit_units,
    Kind kind, uint32_t& sequence, int begun = 0,
    const Steps& at = {}) noexcept(noexcept(at(BookStep::kBegin))) {
  at(BookStep::kBegin);
  ProcessSlot& mine = usage.slot[slot];
  SlotDevice& account = mine.device[device];
  const uint64_t before = account.charged_units.load(std::memory_order_relaxed);
  if (delta_units < 0 && static_cast<uint64_t>(-delta_units) > before)
    delta_units = -static_cast<int64_t>(before);
  const uint64_t target = before + static_cast<uint64_t>(delta_units);
  sequence = (sequence + 1) & 0xffff;
  if (sequence == 0) sequence = 1;
  mine.op.before.store(before, std::memory_order_relaxed);
  mine.op.target.store(target, std::memory_order_relaxed);
  // Release: Bury() reads word first and then before/target.
  mine.op.word.store((uint64_t{1} << 63) | (uint64_t{device} << 16) | sequence,
                     std::memory_order_release);
  at(BookStep::kOpWritten);
  U64& book = BookOf(usage, device);
  uint64_t seen = book.load(std::memory_order_acquire);
  uint64_t units;
  for (;;) {
    const BookWord w = Unpack(seen);
    units = w.units + static_cast<uint64_t>(delta_units);
    if (delta_units > 0 && (units > limit_units || units > kMaxUnits)) {
      mine.op.word.store(0, std::memory_order_release);
      return false;
    }
    // A scribbled book must not wrap: a credit never goes below zero.
    if (delta_units < 0 && w.units < static_cast<uint64_t>(-delta_units)) units = 0;
    // Step 2: only ever forward. `known` is read before the book is confirmed unchanged, so a slow
    // helper can never set back what the owner has since moved on.
    U64& their_done = usage.slot[w.slot].done_sequence;
    uint64_t known = their_done.load(std::memory_order_acquire);
    if (known != w.sequence) {
      const uint64_t again = book.load(std::memory_order_acquire);
      if (again != seen) {
        seen = again;
        continue;
      }
      their_done.compare_exchange_strong(known, w.sequence, std::memory_order_acq_rel);
    }
    at(BookStep::kHelped);
    // Release: whoever sees our name in the book also sees our op; acquire: partner of the same.
    if (book.compare_exchange_weak(seen, Pack({units, slot, sequence}), std::memory_order_acq_rel,
                                   std::memory_order_acquire))
      break;
  }
  at(BookStep::kSwapped);
  mine.done_sequence.store(sequence, std::memory_order_release);
  account.charged_units.store(target, std::memory_order_release);
  at(BookStep::kMoved);
  // Before op.word is cleared: whoever finds it clear finds the change counted.
  const uint64_t step = 1 + static_cast<uint64_t>(begun) * kUnderWayOne;
  mine.charges.store(mine.charges.load(std::memory_order_relaxed) + step,
                     std::memory_order_release);
  mine.op.word.store(0, std::memory_order_release);
  // For people only: killed before this, a process takes its last peak with it.
  U64& peak = PeakOf(usage, device);
  if (uint64_t most = peak.load(std::memory_order_relaxed); __builtin_expect(units > most, 0)) {
    const uint64_t doubled = DoubledOf(usage, device).load(std::memory_order_relaxed);
    const uint64_t once = units > doubled ? units - doubled : 0;
    while (once > most && !peak.compare_exchange_weak(most, once, std::memory_order_relaxed)) {
    }
  }
  U64& by_kind = account.kind_units[static_cast<unsigned>(kind)];
  const uint64_t k = by_kind.load(std::memory_order_relaxed);
  by_kind.store(delta_units < 0 && k < static_cast<uint64_t>(-delta_units)
                    ? 0
                    : k + static_cast<uint64_t>(delta_units),
                std::memory_order_relaxed);
  at(BookStep::kEnd);
  return true;
}

// The same where a call more does not matter.
__attribute__((noinline)) inline bool ChangeSlow(Usage& usage, uint32_t slot, unsigned device,
                                                 int64_t delta_units, uint64_t limit_units,
                                                 Kind kind, uint32_t& sequence,
                                                 int begun = 0) noexcept {
  return Change(usage, slot, device, delta_units, limit_units, kind, sequence, begun);
}

// What a process that is surely gone held, in units per device; settles its unfinished operation
// first. Only the daemon calls it, once per death, before the slot is used again. The units stay in
// the book until the daemon takes them out (AdjustBook).
inline void Bury(Usage& usage, uint32_t slot, uint64_t (&held_units)[kMaxDevices]) noexcept {
  ProcessSlot& dead = usage.slot[slot];
  const uint64_t word = dead.op.word.load(std::memory_order_acquire);
  if (word != 0) {
    const unsigned device = static_cast<unsigned>(word >> 16) & 0xff;
    const uint32_t sequence = static_cast<uint32_t>(word) & 0xffff;
    if (device < kMaxDevices) {
      // The book first, then done_sequence: a later writer sets the second before the first.
      const BookWord w = Unpack(BookOf(usage, device).load(std::memory_order_acquire));
      const bool stands = (w.slot == slot && w.sequence == sequence) ||
                          dead.done_sequence.load(std::memory_order_acquire) == sequence;
      dead.device[device].charged_units.store(stands
                                                  ? dead.op.target.load(std::memory_order_relaxed)
                                                  : dead.op.before.load(std::memory_order_relaxed),
                                              std::memory_order_relaxed);
    }
    dead.op.word.store(0, std::memory_order_release);
  }
  for (unsigned d = 0; d < kMaxDevices; ++d)
    held_units[d] = dead.device[d].charged_units.load(std::memory_order_relaxed);
}

// Adds `delta_units` to the book in the daemon's own name
// (slot 0, which holds no charge of its own): leaving memory, adopted charges.
// `sequence` is the daemon's counter for this usage segment.
inline void AdjustBook(Usage& usage, unsigned device, int64_t delta_units,
                       uint32_t& sequence) noexcept {
  sequence = (sequence + 1) & 0xffff;
  if (sequence == 0) sequence = 1;
  U64& book = BookOf(usage, device);
  uint64_t seen = book.load(std::memory_order_acquire);
  for (unsigned attempt = 0;; ++attempt) {
    const BookWord w = Unpack(seen);
    uint64_t units = w.units + static_cast<uint64_t>(delta_units);
    if (delta_units < 0 && w.units < static_cast<uint64_t>(-delta_units)) units = 0;
    if (units > kMaxUnits) units = kMaxUnits;
    // Only a tenant that writes over its book without pause gets here: the daemon has others to
    // serve, and what this one loses is its own.
    if (attempt == 100'000) {
      book.store(Pack({units, 0, sequence}), std::memory_order_release);
      return;
    }
    U64& their_done = usage.slot[w.slot].done_sequence;
    uint64_t known = their_done.load(std::memory_order_acquire);
    if (known != w.sequence) {
      const uint64_t again = book.load(std::memory_order_acquire);
      if (again != seen) {
        seen = again;
        continue;
      }
      their_done.compare_exchange_strong(known, w.sequence, std::memory_order_acq_rel);
    }
    if (book.compare_exchange_weak(seen, Pack({units, 0, sequence}), std::memory_order_acq_rel,
                                   std::memory_order_acquire))
      return;
  }
}

// Makes a buried slot fit for its next process: no book may still name one of its operations, or an
// unfinished one of the new owner's with the same sequence would be taken for done.
inline void ResetSlot(Usage& usage, uint32_t slot, uint32_t& daemon_sequence) noexcept {
  for (unsigned d = 0; d < kMaxDevices; ++d)
    if (Unpack(BookOf(usage, d).load(std::memory_order_acquire)).slot == slot)
      AdjustBook(usage, d, 0, daemon_sequence);
  ProcessSlot& s = usage.slot[slot];
  s.owner_tag = 0;
  s.ns_pid = 0;
  s.op.word = 0;
  s.op.target = 0;
  s.op.before = 0;
  s.done_sequence = 0;
  s.refusals = 0;
  s.launches = 0;
  s.charges = 0;
  s.answered = 0;
  s.state_flags = 0;
  s.room_waiters = 0;
  for (SlotDevice& d : s.device) {
    d.charged_units = 0;
    for (U64& k : d.kind_units) k = 0;
  }
}

}  // namespace divvy::region
