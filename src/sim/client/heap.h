// Heap pieces for device memory: FreeRanges hands out ranges, best fit;
// Suballocator cuts chunks into smaller ranges. Pure bookkeeping of offsets: no memory is touched
// and nothing is booked here. Not thread-safe: the owner's lock is held.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>

namespace divvy::sim {

// Free ranges by place and by size, merged with their neighbours.
class FreeRanges {
 public:
  void Add(uint64_t offset, uint64_t bytes, bool merge_down = true, bool merge_up = true);
  // The smallest range that holds `bytes` at `align` (a power of two); cut off its front.
  std::optional<uint64_t> Take(uint64_t bytes, uint64_t align);
  // Exactly this range, which must lie inside one free range.
  bool TakeAt(uint64_t offset, uint64_t bytes);
  bool IsFree(uint64_t offset, uint64_t bytes) const;

 private:
  void Erase(std::map<uint64_t, uint64_t>::iterator it);
  void Insert(uint64_t offset, uint64_t bytes);

  std::map<uint64_t, uint64_t> by_offset_;
  std::set<std::pair<uint64_t, uint64_t>> by_size_;  // {bytes, offset}
};

class Suballocator {
 public:
  struct Chunk {
    uint64_t offset, bytes;
  };

  void AddChunk(uint64_t offset, uint64_t bytes);
  // A place for `bytes` (rounded to 512) in the chunks there are.
  std::optional<uint64_t> Take(uint64_t bytes);
  // Its rounded size; 0 when nothing lives at `offset`.
  uint64_t Free(uint64_t offset);
  // Removes one chunk that holds nothing; nullopt when there is none.
  std::optional<Chunk> PopEmptyChunk();
  // The chunk that holds `offset`.
  Chunk ChunkAt(uint64_t offset) { return ChunkOf(offset)->second; }
  uint64_t reserved_bytes() const { return reserved_; }
  uint64_t used_bytes() const { return used_; }

 private:
  std::map<uint64_t, Chunk>::iterator ChunkOf(uint64_t offset);

  FreeRanges free_;
  std::map<uint64_t, Chunk> chunks_;
  std::unordered_map<uint64_t, uint64_t> used_in_chunk_;
  std::set<uint64_t> empty_;
  std::unordered_map<uint64_t, uint64_t> live_;
  uint64_t reserved_ = 0, used_ = 0;
};

}  // namespace divvy::sim
