// The table of estimates; see estimate.h.
#include "src/shim/estimate.h"

namespace divvy::shim {
namespace {
constexpr uint64_t kUses = 0xffff;
constexpr uint64_t kLongestNs = (uint64_t{1} << 48) - 1;
constexpr unsigned kAskAgain = 8;  // uses of an unknown key between two attempts to learn it

// Long operations can afford to be timed often, and a wrong figure does them the most harm: one
// that is thought longer than it is goes alone.
constexpr uint64_t RelearnAfter(uint64_t ns) {
  return ns == 0 ? kAskAgain : ns < 100000 ? EstimateTable::kRelearn : ns < 1000000 ? 8 : 1;
}
}  // namespace

// The shortest sample of late, how many there were, and how many of them were about as short: what
// takes the same time each time shows in many that are; what others' slices made longer is not.
// One that had company says only a quarter as much by being long.
struct Least {
  static constexpr uint32_t kSample = 4, kMost = 120;  // weights
  static constexpr uint32_t kSettled = 12 * kSample, kConfirmed = 3 * kSample;
  uint64_t ns;
  uint32_t near, samples;
  Timed::Start start;  // how well it is known

  static Least From(uint64_t word) noexcept {
    return {word >> 16, static_cast<uint32_t>(word >> 9 & 0x7f),
            static_cast<uint32_t>(word >> 2 & 0x7f), static_cast<Timed::Start>(word & 3)};
  }
  uint64_t Word() const noexcept { return ns << 16 | near << 9 | samples << 2 | start; }
  bool Holds() const noexcept { return near * 4 >= samples; }
  // Enough were seen to tell what it takes from what others' slices make of it.
  bool Settled() const noexcept { return samples >= kSettled; }

  // The sample without the switch that may be in it. Whether there was one the daemon saw, but its
  // looks come late: what is well known tells better.
  Timed Own(Timed t) const noexcept {
    if (t.start == Timed::kQueued || t.ns <= t.switch_ns || t.switch_ns == 0) return t;
    const uint64_t less = t.ns - t.switch_ns, small = t.switch_ns / 4;
    const bool none = start == Timed::kQueued ? less + small < ns  // shorter than it ever was
                                              : near >= kConfirmed && Distance(t.ns, ns) <= small;
    const bool one = t.start == Timed::kFromOthers || Distance(less, ns) <= small;
    if (start != Timed::kIdle && none) {
      t.start = Timed::kFromOthers;
    } else if (t.start == Timed::kFromOthers || (start != Timed::kIdle && one)) {
      t.start = Timed::kFromOthers;
      t.ns = less;
    }
    return t;
  }
  void Add(const Timed& own) noexcept {
    if (ns == 0 || own.ns < ns - ns / 16 || (Settled() && near * 8 < samples)) {
      *this = {own.ns, kSample, kSample, own.start};
      return;
    }
    // A better one says what it is; or a switch was taken off the one before where there was none.
    const bool instead =
        (own.start > start && own.ns <= ns + ns / 16) ||
        (own.start == Timed::kFromOthers && start == Timed::kFromOthers && near == kSample &&
         Distance(own.ns, ns + own.switch_ns) <= own.switch_ns / 4);
    const bool close = instead || own.ns <= ns + ns / 16;
    samples += close || !own.company ? kSample : kSample / 4;
    if (close) near += kSample;
    if (instead || (own.ns < ns && own.start == start)) {
      ns = own.ns;
      start = own.start;
    }
    if (samples >= kMost) {
      samples /= 2;
      near /= 2;
    }
  }

 private:
  static uint64_t Distance(uint64_t a, uint64_t b) noexcept { return a > b ? a - b : b - a; }
};

// What the first operations of a key were taken to have had, together: until enough were seen, a
// shorter one says that those before it held others' slices.
struct First {
  static constexpr uint64_t kOver = ~uint64_t{0};
  static constexpr uint64_t kMost = 0x7fff;  // operations
  uint64_t ns, count;

  static First From(uint64_t word) noexcept { return {word >> 16, word & 0xffff}; }
  uint64_t Word() const noexcept { return ns << 16 | count; }
};

// What an operation of the key has taken itself, now that one was seen to take timed.ns, a switch
// taken off if timed.switch_ns says so; `old`: the estimate till now. Where they differ by
// themselves, the shorter of the two.
Learnt EstimateTable::OwnLength(Entry& e, const Timed& own, uint64_t old, uint64_t times) noexcept {
  Least least = Least::From(e.least.load(std::memory_order_relaxed));
  const bool settled = least.Settled();
  const uint64_t ns = own.ns;
  least.Add(own);
  e.least.store(least.Word(), std::memory_order_relaxed);
  const uint64_t word = e.first.load(std::memory_order_relaxed);
  First first = First::From(word);
  if (word != First::kOver && !settled && first.count + times <= First::kMost) {
    const uint64_t shorter = first.count * least.ns;
    const uint64_t over = first.ns > shorter ? first.ns - shorter : 0;
    first = {first.ns - over + least.ns * times, first.count + times};
    e.first.store(first.ns < First::kOver >> 16 ? first.Word() : First::kOver,
                  std::memory_order_relaxed);
    return {least.ns, times, over};
  }
  e.first.store(First::kOver, std::memory_order_relaxed);
  if (least.Holds()) return {least.ns, times, 0};
  return {old == 0 || ns < old ? ns : old, times, 0};
}

EstimateTable::Entry* EstimateTable::Find(uint64_t key, bool add) noexcept {
  Row& row = row_[(key >> 20) % kRows];
  for (Entry& e : row.entry)
    if (e.key.load(std::memory_order_relaxed) == key) return &e;
  if (!add) return nullptr;
  for (Entry& e : row.entry) {
    uint64_t none = 0;
    if (e.key.load(std::memory_order_relaxed) == 0 &&
        e.key.compare_exchange_strong(none, key, std::memory_order_relaxed))
      return &e;
  }
  // Which one goes is a matter of the key: no counter to share, no pattern to fall into for long.
  Entry& e = row.entry[(key >> 40) % 4];
  e.value.store(0, std::memory_order_relaxed);
  e.least.store(0, std::memory_order_relaxed);
  e.first.store(0, std::memory_order_relaxed);
  e.key.store(key, std::memory_order_relaxed);
  return &e;
}

Estimate EstimateTable::Use(uint64_t key) noexcept {
  Entry& home = row_[(key >> 20) % kRows].entry[0];
  Entry& e = home.key.load(std::memory_order_relaxed) == key ? home : *Find(key, true);
  const uint64_t value = e.value.load(std::memory_order_relaxed);
  const uint64_t ns = value >> 16, uses = value & kUses;
  // Two threads that meet lose one use.
  e.value.store(ns << 16 | ((uses + 1) & kUses), std::memory_order_relaxed);
  return {ns, uses % RelearnAfter(ns) == 0};
}

uint64_t EstimateTable::Get(uint64_t key) noexcept {
  const Entry* e = Find(key, false);
  return e != nullptr ? e->value.load(std::memory_order_relaxed) >> 16 : 0;
}

Learnt EstimateTable::Learn(uint64_t key, Timed timed) noexcept {
  if (timed.ns == 0) timed.ns = 1;
  if (timed.ns > kLongestNs) timed.ns = kLongestNs;
  Entry* e = Find(key, false);
  if (e == nullptr) return {timed.ns, 1, 0};  // forgotten meanwhile
  timed = Least::From(e->least.load(std::memory_order_relaxed)).Own(timed);
  const uint64_t ns = timed.ns;
  const uint64_t value = e->value.load(std::memory_order_relaxed);
  const uint64_t old = value >> 16;
  // Other tenants' slices make a sample too long, nothing makes one too short: down fast, up by
  // half at most.
  uint64_t now = ns;
  if (old != 0) {
    const uint64_t up = ns > old ? (ns - old) / 4 : 0;
    now = ns < old / 2 ? ns : ns < old ? (old + ns + 1) / 2 : old + (up < old / 2 ? up : old / 2);
  }
  e->value.store(now << 16 | (value & kUses), std::memory_order_relaxed);
  const uint64_t unknown = (value & kUses) != 0 ? value & kUses : 1;
  return OwnLength(*e, timed, old, old != 0 ? RelearnAfter(old) : unknown);
}

}  // namespace divvy::shim
