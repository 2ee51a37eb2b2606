// Offsets of device memory: free lists. See heap.h.
#include "src/sim/client/heap.h"

namespace divvy::sim {

void FreeRanges::Insert(uint64_t offset, uint64_t bytes) {
  by_offset_[offset] = bytes;
  by_size_.insert({bytes, offset});
}

void FreeRanges::Erase(std::map<uint64_t, uint64_t>::iterator it) {
  by_size_.erase({it->second, it->first});
  by_offset_.erase(it);
}

void FreeRanges::Add(uint64_t offset, uint64_t bytes, bool merge_down, bool merge_up) {
  auto after = by_offset_.lower_bound(offset);
  if (merge_up && after != by_offset_.end() && after->first == offset + bytes) {
    bytes += after->second;
    auto gone = after++;
    Erase(gone);
  }
  if (merge_down && after != by_offset_.begin()) {
    auto before = std::prev(after);
    if (before->first + before->second == offset) {
      offset = before->first;
      bytes += before->second;
      Erase(before);
    }
  }
  Insert(offset, bytes);
}

std::optional<uint64_t> FreeRanges::Take(uint64_t bytes, uint64_t align) {
  for (auto it = by_size_.lower_bound({bytes, 0}); it != by_size_.end(); ++it) {
    uint64_t start = (it->second + align - 1) & ~(align - 1);
    uint64_t skipped = start - it->second;
    if (it->first < bytes + skipped) continue;
    TakeAt(start, bytes);
    return start;
  }
  return std::nullopt;
}

bool FreeRanges::IsFree(uint64_t offset, uint64_t bytes) const {
  auto it = by_offset_.upper_bound(offset);
  if (it == by_offset_.begin()) return false;
  --it;
  return offset + bytes <= it->first + it->second;
}

bool FreeRanges::TakeAt(uint64_t offset, uint64_t bytes) {
  if (!IsFree(offset, bytes)) return false;
  auto it = std::prev(by_offset_.upper_bound(offset));
  uint64_t start = it->first, end = it->first + it->second;
  Erase(it);
  if (start < offset) Insert(start, offset - start);
  if (offset + bytes < end) Insert(offset + bytes, end - offset - bytes);
  return true;
}

void Suballocator::AddChunk(uint64_t offset, uint64_t bytes) {
  chunks_[offset] = {offset, bytes};
  used_in_chunk_[offset] = 0;
  empty_.insert(offset);
  free_.Add(offset, bytes, false, false);  // ranges never span chunks
  reserved_ += bytes;
}

std::map<uint64_t, Suballocator::Chunk>::iterator Suballocator::ChunkOf(uint64_t offset) {
  return std::prev(chunks_.upper_bound(offset));
}

std::optional<uint64_t> Suballocator::Take(uint64_t bytes) {
  bytes = (bytes + 511) & ~511ull;
  auto at = free_.Take(bytes, 512);
  if (!at) return std::nullopt;
  live_[*at] = bytes;
  used_ += bytes;
  uint64_t chunk = ChunkOf(*at)->first;
  used_in_chunk_[chunk] += bytes;
  empty_.erase(chunk);
  return at;
}

uint64_t Suballocator::Free(uint64_t offset) {
  auto it = live_.find(offset);
  if (it == live_.end()) return 0;
  uint64_t bytes = it->second;
  live_.erase(it);
  auto chunk = ChunkOf(offset);
  uint64_t end = chunk->second.offset + chunk->second.bytes;
  free_.Add(offset, bytes, offset != chunk->second.offset, offset + bytes != end);
  used_ -= bytes;
  if ((used_in_chunk_[chunk->first] -= bytes) == 0) empty_.insert(chunk->first);
  return bytes;
}

std::optional<Suballocator::Chunk> Suballocator::PopEmptyChunk() {
  if (empty_.empty()) return std::nullopt;
  auto it = chunks_.find(*empty_.begin());
  Chunk chunk = it->second;
  free_.TakeAt(chunk.offset, chunk.bytes);
  used_in_chunk_.erase(chunk.offset);
  empty_.erase(chunk.offset);
  chunks_.erase(it);
  reserved_ -= chunk.bytes;
  return chunk;
}

}  // namespace divvy::sim
