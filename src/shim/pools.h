// Stream-ordered pools and graph memory. The driver reserves device memory for a pool in steps of
// its own and keeps it after a free, so what counts is max(reserved, used + what is being asked).
// For each pool: that much is booked before the driver is asked, and corrected by what the pool
// says afterwards. Memory that the driver gave back meanwhile is credited when the program next
// waits for the device, and before anything is refused: then pools are also trimmed.
// Any thread; the pool's figures are asked for with this thread's capture mode relaxed.
#pragma once

#include "src/abi/cuda.h"
#include "src/shim/books.h"
#include "src/shim/shared.h"

namespace divvy::shim {

constexpr uint32_t kNoPool = UINT32_MAX;

// The pool's place, known from its creation or taken in now. `device`: local index of where it
// lives if it turns out to be a device's own pool.
uint32_t PoolOf(CUmemoryPool handle, unsigned device) noexcept;
uint32_t AddPool(CUmemoryPool handle, unsigned device) noexcept;
// The pool that cuMemAllocAsync uses on that device now, the driver's choice.
uint32_t CurrentPool(unsigned device) noexcept;
// What graphs allocate on that device.
uint32_t GraphPool(unsigned device) noexcept;

// Before the driver takes `units` from the pool; if granted, it is under way until exactly one of
// the next two.
Verdict PoolAsk(uint32_t pool, uint64_t units, DriverSymbol symbol) noexcept;
// The driver took them. Verdict other than kGranted: the pool has grown beyond the share, what was
// taken has to go back (then PoolFreed).
Verdict PoolTaken(uint32_t pool, uint64_t units) noexcept;
void PoolNotTaken(uint32_t pool, uint64_t units) noexcept;
// An allocation of the pool was freed; its memory stays reserved for now.
void PoolFreed(uint32_t pool, uint64_t units) noexcept;

unsigned PoolDevice(uint32_t pool) noexcept;  // local index or kNoDevice

// Asks the pool what it holds and corrects the books.
void PollPool(uint32_t pool) noexcept;
// After the program waited for the device: those that had frees since.
void PollDirtySlow() noexcept;
inline bool PoolsDirty() noexcept {
  return __builtin_expect(g_process.pools_dirty.load(std::memory_order_relaxed) != 0, 0);
}

// A graph that is launched again right after itself runs in the memory it has.
bool GraphHolds(uint32_t pool, uint64_t graph) noexcept;
void GraphTook(uint32_t pool, uint64_t graph) noexcept;

// The handle is no more; allocations out of it may live on.
void PoolDestroyed(CUmemoryPool handle) noexcept;

// Frees a device pointer that may be out of a pool; `give` calls the driver. Credits what a
// synchronous free gives back at once.
template <typename Give>
CUresult FreePooled(uint64_t pointer, const Give& give) noexcept {
  LiveEntry entry;
  if (!g_process.live.Take(Family::kPooled, pointer, &entry)) return give();
  // Before the pool has it again: from then on any thread may credit it.
  if (__builtin_expect((entry.flags & kSharedMemory) != 0, 0)) {
    ForgetShared(entry);
    entry.flags &= static_cast<uint8_t>(~kSharedMemory);
  }
  const CUresult r = give();
  if (r == CUDA_SUCCESS)
    PoolFreed(entry.owner, entry.units);
  else
    g_process.live.Insert(entry);
  return r;
}

}  // namespace divvy::shim
