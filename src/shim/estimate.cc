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

void EstimateTable::Learn(uint64_t key, uint64_t ns) noexcept {
  Entry* e = Find(key, false);
  if (e == nullptr) return;  // forgotten meanwhile
  if (ns == 0) ns = 1;
  if (ns > kLongestNs) ns = kLongestNs;
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
}

}  // namespace divvy::shim
