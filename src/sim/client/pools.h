// Pool: stream-ordered memory of one device (CUDA Driver API, "Stream Ordered Memory Allocator").
// Grows in steps of the profile's size, keeps what was freed up to its release threshold, reuses at
// once what the same stream has freed.
#pragma once

#include <atomic>
#include <list>

#include "src/sim/client/stream.h"

namespace divvy::sim {

class Pool {
 public:
  static constexpr uint64_t kLive = 0x504F4F4Cull;
  Pool(Device* device, const CUmemPoolProps& props, bool built_in)
      : device_(device), props_(props), built_in_(built_in) {}

  CUresult Take(uint64_t bytes, Stream* stream, uint64_t* offset);
  // Usable again once `freed` has ended; by its stream at once.
  void GiveAfter(uint64_t offset, Ticket freed);
  void GiveNow(uint64_t offset);

  // A name under which other processes can import the memory at `offset`, and where it lies in it.
  uint64_t ExportChunk(uint64_t offset, uint64_t* within, uint64_t* bytes);

  // Gives empty chunks back until at most `keep` bytes are reserved.
  void Trim(uint64_t keep);
  // What synchronising calls do: excess over the release threshold goes.
  void AtSync();
  void ReleaseAll();

  CUresult Get(CUmemPool_attribute attribute, void* value);
  CUresult Set(CUmemPool_attribute attribute, const void* value);
  Device* device() const { return device_; }
  const CUmemPoolProps& props() const { return props_; }
  bool built_in() const { return built_in_; }

  uint64_t magic = kLive;
  std::atomic<bool> destroyed{false};  // goes with its last allocation
  CUmemoryPool handle() { return reinterpret_cast<CUmemoryPool>(this); }
  static Pool* From(CUmemoryPool handle);

 private:
  struct Freed {
    uint64_t offset;
    Ticket ticket;
  };
  // Takes in what has been freed; of `stream` also what is still in flight. mu_ is held.
  void Reclaim(Stream* stream);
  CUresult Grow(uint64_t bytes);
  void TrimLocked(uint64_t keep);

  Device* device_;
  CUmemPoolProps props_;
  bool built_in_;
  std::mutex mu_;  // guards what follows
  Suballocator memory_;
  std::list<Freed> freed_;
  uint64_t threshold_ = 0;
  uint64_t reserved_high_ = 0, used_high_ = 0;
  int reuse_[3] = {1, 1, 1};
};

Pool* MakePool(Device* device, const CUmemPoolProps& props, bool built_in);
Pool* DefaultPool(Device* device);
Pool* CurrentPool(Device* device);
// All of a device's pools: at synchronisation, and when its last context goes.
void PoolsAtSync(Device* device);
void ReleasePools(Device* device);

// cuMemAllocAsync in the pool, outside capture.
CUresult AllocFromPool(Pool* pool, uint64_t bytes, Stream* stream, CUdeviceptr* out);
CUresult FreeAsync(CUdeviceptr ptr, Stream* stream);

}  // namespace divvy::sim
