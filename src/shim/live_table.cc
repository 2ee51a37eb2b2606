// The sharded hash table of live allocations; see live_table.h.
#include "src/shim/live_table.h"

#include "src/shim/pages.h"

namespace divvy::shim {
namespace {
constexpr uint32_t kFirstCapacity = 64;
constexpr size_t kArenaBytes = sizeof(LiveEntry) * kFirstCapacity * LiveTable::kShards;
}  // namespace

// Closes the gap by moving back every following entry that may stand there (no tombstones, so a
// long-lived process does not slow down).
void LiveTable::Erase(Shard& shard, uint32_t at) noexcept {
  const uint32_t mask = shard.capacity - 1;
  uint32_t hole = at;
  for (uint32_t i = (at + 1) & mask; shard.entries[i].family != Family::kNone; i = (i + 1) & mask) {
    const uint32_t home = Home(shard, Hash(shard.entries[i].family, shard.entries[i].key));
    if (((i - home) & mask) >= ((i - hole) & mask)) {
      shard.entries[hole] = shard.entries[i];
      hole = i;
    }
  }
  shard.entries[hole].family = Family::kNone;
  --shard.count;
}

bool LiveTable::Grow(Shard& shard) noexcept {
  if (shard.capacity == 0) {
    if (!arena_lock_.Lock()) return false;
    if (arena_ == nullptr) arena_ = static_cast<LiveEntry*>(MapPages(kArenaBytes));
    LiveEntry* arena = arena_;
    arena_lock_.Unlock();
    if (arena == nullptr) return false;
    shard.entries = arena + kFirstCapacity * static_cast<size_t>(&shard - shard_);
    shard.capacity = kFirstCapacity;
    shard.shift = 64 - __builtin_ctz(kFirstCapacity);
    return true;
  }
  Shard bigger{};
  bigger.capacity = shard.capacity * 2;
  bigger.shift = shard.shift - 1;
  bigger.entries = static_cast<LiveEntry*>(MapPages(sizeof(LiveEntry) * bigger.capacity));
  if (bigger.entries == nullptr) return false;
  for (uint32_t i = 0; i < shard.capacity; ++i) {
    const LiveEntry& entry = shard.entries[i];
    if (entry.family != Family::kNone)
      *Slot(bigger, Hash(entry.family, entry.key), entry.family, entry.key) = entry;
  }
  if (shard.mapped) UnmapPages(shard.entries, sizeof(LiveEntry) * shard.capacity);
  shard.entries = bigger.entries;
  shard.capacity = bigger.capacity;
  shard.shift = bigger.shift;
  shard.mapped = 1;
  return true;
}

bool LiveTable::Insert(const LiveEntry& entry, LiveEntry* replaced) noexcept {
  if (replaced != nullptr) replaced->family = Family::kNone;
  const uint64_t hash = Hash(entry.family, entry.key);
  Shard& shard = ShardOf(hash);
  if (!shard.lock.Lock()) return false;
  // Half stays free, so that walks are short; if the kernel has no memory left, go on until one
  // place is.
  bool room = shard.count * 2 < shard.capacity || Grow(shard);
  if (!room) room = shard.count + 1 < shard.capacity;
  if (room) {
    LiveEntry* at = Slot(shard, hash, entry.family, entry.key);
    if (at->family == Family::kNone)
      ++shard.count;
    else if (replaced != nullptr)
      *replaced = *at;
    *at = entry;
  }
  shard.lock.Unlock();
  return room;
}

bool LiveTable::Take(Family family, uint64_t key, LiveEntry* out) noexcept {
  const uint64_t hash = Hash(family, key);
  Shard& shard = ShardOf(hash);
  if (!shard.lock.Lock()) return false;
  LiveEntry* at = Slot(shard, hash, family, key);
  const bool found = at != nullptr && at->family != Family::kNone;
  if (found) {
    if (out != nullptr) *out = *at;
    Erase(shard, static_cast<uint32_t>(at - shard.entries));
  }
  shard.lock.Unlock();
  return found;
}

bool LiveTable::Find(Family family, uint64_t key, LiveEntry* out) noexcept {
  return Update(family, key, [out](LiveEntry& entry) {
    if (out != nullptr) *out = entry;
  });
}

uint64_t LiveTable::Count() noexcept {
  uint64_t n = 0;
  for (Shard& shard : shard_) {
    if (!shard.lock.Lock()) continue;
    n += shard.count;
    shard.lock.Unlock();
  }
  return n;
}

void LiveTable::Reset() noexcept {
  for (Shard& shard : shard_) {
    if (shard.mapped) UnmapPages(shard.entries, sizeof(LiveEntry) * shard.capacity);
    shard.capacity = shard.count = shard.shift = shard.mapped = 0;
    shard.entries = nullptr;
  }
  if (arena_ != nullptr) UnmapPages(arena_, kArenaBytes);
  arena_ = nullptr;
}

}  // namespace divvy::shim
