// What this process holds of the device: one entry for each live allocation, handle or mapping that
// was charged, found again when it is freed. Constant cost whatever the number of entries: hashed
// into shards, each a small open-addressing table with its own lock, grown by doubling. Memory
// comes from whole pages, never from the host's allocator. All-zero is a valid empty table, so it
// can live in memory that fork wipes. Any thread.
#pragma once

#include <cstdint>

#include "src/shim/lock.h"

namespace divvy::shim {

// What an entry's key is. Keys of different families never meet.
enum class Family : uint8_t {
  kNone = 0,      // an empty entry
  kPointer,       // device pointers: linear, pitch, managed, imports
  kArray,         // CUarray
  kMipmap,        // CUmipmappedArray
  kVmmHandle,     // CUmemGenericAllocationHandle; aux: references by handle
  kVmmMapping,    // start of a mapped range; aux: its bytes
  kExternal,      // CUexternalMemory
  kPooled,        // device pointers from a stream-ordered pool
  kPool,          // CUmemoryPool
  kArrayBinding,  // a record mapped into a sparse array; aux: the array
  kGraphExec,     // CUgraphExec with memory nodes; units: what they may need
  kModule,        // CUmodule and CUlibrary with a known size
};

struct LiveEntry {
  uint64_t key;
  Family family;
  uint8_t device;  // local index, see devices.h
  uint8_t kind;    // region::Kind
  uint8_t flags;
  uint32_t owner;  // context slot, or record index for VMM and pools
  uint64_t units;
  uint64_t aux;
};
static_assert(sizeof(LiveEntry) == 32);

class LiveTable {
 public:
  static constexpr unsigned kShards = 64;  // as many as six bits of the hash tell apart

  // Replaces an entry with the same key (the driver gave the same address out again, so the old
  // entry's end was missed); `replaced`, if given, receives it, family kNone if there was none.
  // False: no memory, the entry is not kept.
  bool Insert(const LiveEntry& entry, LiveEntry* replaced = nullptr) noexcept;
  // Removes the entry; false if there is none. `out` may be nullptr.
  bool Take(Family family, uint64_t key, LiveEntry* out) noexcept;
  bool Find(Family family, uint64_t key, LiveEntry* out) noexcept;
  // Runs `change(LiveEntry&)` under the shard's lock; it must not change key or family.
  template <typename Change>
  bool Update(Family family, uint64_t key, const Change& change) noexcept {
    const uint64_t hash = Hash(family, key);
    Shard& shard = ShardOf(hash);
    if (!shard.lock.Lock()) return false;
    LiveEntry* at = Slot(shard, hash, family, key);
    const bool found = at != nullptr && at->family != Family::kNone;
    if (found) change(*at);
    shard.lock.Unlock();
    return found;
  }
  // Removes every entry for which `gone(entry)` is true. Walks the whole table: for the end of a
  // context, not for a single free. `gone` runs under a shard's lock.
  template <typename Gone>
  void Sweep(const Gone& gone) noexcept {
    for (Shard& shard : shard_) {
      if (shard.capacity == 0 || !shard.lock.Lock()) continue;
      for (uint32_t i = 0; i < shard.capacity;) {
        LiveEntry& entry = shard.entries[i];
        if (entry.family != Family::kNone && gone(entry))
          Erase(shard, i);  // another entry may have moved here: look again
        else
          ++i;
      }
      shard.lock.Unlock();
    }
  }
  uint64_t Count() noexcept;
  // Gives all memory back; for tests, no other thread may be using the table.
  void Reset() noexcept;

 private:
  struct alignas(64) Shard {
    BoundedLock lock;
    uint32_t capacity = 0;  // power of two, or 0
    uint32_t count = 0;
    uint32_t shift = 0;   // 64 - log2(capacity)
    uint32_t mapped = 0;  // 1: entries are this shard's own pages
    LiveEntry* entries = nullptr;
  };
  // Multiplication spreads what allocators give out (equal steps) almost evenly over the top bits:
  // the first six choose the shard, the next its place.
  static uint64_t Hash(Family family, uint64_t key) noexcept {
    return (key ^ (static_cast<uint64_t>(family) << 56)) * 0x9e3779b97f4a7c15u;
  }
  Shard& ShardOf(uint64_t hash) noexcept { return shard_[hash >> 58]; }
  static uint32_t Home(const Shard& shard, uint64_t hash) noexcept {
    return static_cast<uint32_t>((hash << 6) >> shard.shift);
  }
  // The entry, or the empty place where it would stand; nullptr if the shard has no memory yet.
  static LiveEntry* Slot(Shard& shard, uint64_t hash, Family family, uint64_t key) noexcept {
    if (shard.capacity == 0) return nullptr;
    const uint32_t mask = shard.capacity - 1;
    // Ends: there is always an empty place.
    for (uint32_t i = Home(shard, hash);; i = (i + 1) & mask) {
      LiveEntry& entry = shard.entries[i];
      if (entry.family == Family::kNone || (entry.key == key && entry.family == family))
        return &entry;
    }
  }
  static void Erase(Shard& shard, uint32_t at) noexcept;
  bool Grow(Shard& shard) noexcept;

  BoundedLock arena_lock_;
  LiveEntry* arena_ = nullptr;  // the first, small piece of every shard: one mapping for all
  Shard shard_[kShards];
};

}  // namespace divvy::shim
