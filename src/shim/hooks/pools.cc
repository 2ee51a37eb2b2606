// Stream-ordered allocation: cuMemAllocAsync and its kin, pools made, shared, swapped and trimmed.
// On a stream that is being captured an allocation becomes a node of a graph and takes nothing now.
#include "src/shim/pools.h"
#include "src/shim/hooks/hook.h"
#include "src/shim/hooks/import.h"

namespace divvy::shim {
namespace {

// Where work on a stream runs. A stream knows its device without a current context.
Here PlaceOfStream(CUstream stream) noexcept {
  const Here current = CurrentPlace();
  const bool named =
      stream != nullptr && stream != CU_STREAM_LEGACY && stream != CU_STREAM_PER_THREAD;
  if (!named || (VisibleCount() == 1 && current.device >= 0)) return current;
  CUcontext context = nullptr;
  if (g_driver.cuStreamGetCtx(stream, &context) == CUDA_SUCCESS)
    if (const Here here = PlaceOf(context); here.device >= 0) return here;
  CUdevice ordinal;
  if (g_driver.cuStreamGetDevice(stream, &ordinal) == CUDA_SUCCESS && LocalOf(ordinal) >= 0)
    return {LocalOf(ordinal), 0};
  if (current.device < 0 && VisibleCount() == 1) return {LocalOf(VisibleAt(0)), 0};
  return current;
}

template <typename Take, typename Free>
CUresult TakePooled(DriverSymbol symbol, uint32_t pool, uint64_t bytes, CUdeviceptr_v2* out,
                    const Take& take, const Free& free_async) noexcept {
  if (pool == kNoPool) return take(out);
  const uint64_t units = region::UnitsOf(bytes);
  if (const Verdict v = PoolAsk(pool, units, symbol); v != Verdict::kGranted) return CodeOf(v);
  CUdeviceptr_v2 pointer = 0;
  const CUresult r = take(&pointer);
  if (r != CUDA_SUCCESS) {
    PoolNotTaken(pool, units);
    return r;
  }
  if (const Verdict v = PoolTaken(pool, units); v != Verdict::kGranted) {
    // The pool took more of the device than the share has: undone, the program never sees it.
    {
      const RelaxedCapture relaxed;
      free_async(pointer);
    }
    PoolFreed(pool, units);
    if (auto* reclaim = g_process.reclaim.load(std::memory_order_acquire))
      reclaim(PoolDevice(pool));
    Report(region::EventCause::kOutOfShare, PoolDevice(pool), bytes, symbol);
    return CodeOf(v);
  }
  LiveEntry replaced;
  if (!g_process.live.Insert({pointer, Family::kPooled, static_cast<uint8_t>(PoolDevice(pool)),
                              static_cast<uint8_t>(Kind::kPool), 0, pool, units, 0},
                             &replaced))
    Degrade(2);
  else if (replaced.family != Family::kNone)
    PoolFreed(replaced.owner, replaced.units);
  *out = pointer;
  return r;
}

template <typename Take, typename Free>
CUresult TakeAsync(DriverSymbol symbol, uint64_t bytes, CUdeviceptr_v2* out, CUstream stream,
                   bool per_thread, const Take& take, const Free& free_async) noexcept {
  if (out == nullptr || bytes == 0) return take(out);
  if (IsCapturing(stream, per_thread)) {
    g_process.graph_memory_seen.store(1, std::memory_order_relaxed);
    return take(out);
  }
  const Here here = PlaceOfStream(stream);
  if (here.device < 0) return ForeignContext(here) ? CUDA_ERROR_INVALID_CONTEXT : take(out);
  return TakePooled(symbol, CurrentPool(static_cast<unsigned>(here.device)), bytes, out, take,
                    free_async);
}

template <typename Take, typename Free>
CUresult TakeFrom(DriverSymbol symbol, CUmemoryPool handle, uint64_t bytes, CUdeviceptr_v2* out,
                  CUstream stream, bool per_thread, const Take& take,
                  const Free& free_async) noexcept {
  if (out == nullptr || bytes == 0 || handle == nullptr) return take(out);
  if (IsCapturing(stream, per_thread)) {
    g_process.graph_memory_seen.store(1, std::memory_order_relaxed);
    return take(out);
  }
  const Here here = PlaceOfStream(stream);
  const uint32_t pool =
      PoolOf(handle, here.device >= 0 ? static_cast<unsigned>(here.device) : kNoDevice);
  return TakePooled(symbol, pool, bytes, out, take, free_async);
}

}  // namespace

CUresult hook_cuMemAllocAsync(CUdeviceptr_v2* dptr, size_t bytesize, CUstream hStream) noexcept {
  DIVVY_ENTER(cuMemAllocAsync, (dptr, bytesize, hStream));
  return TakeAsync(
      DriverSymbol::cuMemAllocAsync, bytesize, dptr, hStream, false,
      [&](CUdeviceptr_v2* p) { return g_driver.cuMemAllocAsync(p, bytesize, hStream); },
      [&](CUdeviceptr_v2 p) { return g_driver.cuMemFreeAsync(p, hStream); });
}

CUresult hook_cuMemAllocAsync_ptsz(CUdeviceptr_v2* dptr, size_t bytesize,
                                   CUstream hStream) noexcept {
  DIVVY_ENTER(cuMemAllocAsync_ptsz, (dptr, bytesize, hStream));
  return TakeAsync(
      DriverSymbol::cuMemAllocAsync_ptsz, bytesize, dptr, hStream, true,
      [&](CUdeviceptr_v2* p) { return g_driver.cuMemAllocAsync_ptsz(p, bytesize, hStream); },
      [&](CUdeviceptr_v2 p) { return g_driver.cuMemFreeAsync_ptsz(p, hStream); });
}

CUresult hook_cuMemAllocFromPoolAsync(CUdeviceptr_v2* dptr, size_t bytesize, CUmemoryPool pool,
                                      CUstream hStream) noexcept {
  DIVVY_ENTER(cuMemAllocFromPoolAsync, (dptr, bytesize, pool, hStream));
  return TakeFrom(
      DriverSymbol::cuMemAllocFromPoolAsync, pool, bytesize, dptr, hStream, false,
      [&](CUdeviceptr_v2* p) {
        return g_driver.cuMemAllocFromPoolAsync(p, bytesize, pool, hStream);
      },
      [&](CUdeviceptr_v2 p) { return g_driver.cuMemFreeAsync(p, hStream); });
}

CUresult hook_cuMemAllocFromPoolAsync_ptsz(CUdeviceptr_v2* dptr, size_t bytesize, CUmemoryPool pool,
                                           CUstream hStream) noexcept {
  DIVVY_ENTER(cuMemAllocFromPoolAsync_ptsz, (dptr, bytesize, pool, hStream));
  return TakeFrom(
      DriverSymbol::cuMemAllocFromPoolAsync_ptsz, pool, bytesize, dptr, hStream, true,
      [&](CUdeviceptr_v2* p) {
        return g_driver.cuMemAllocFromPoolAsync_ptsz(p, bytesize, pool, hStream);
      },
      [&](CUdeviceptr_v2 p) { return g_driver.cuMemFreeAsync_ptsz(p, hStream); });
}

namespace {
// Linear memory may be freed by the same call; the driver waits for the stream then.
template <typename Give>
CUresult FreeInOrder(uint64_t pointer, const Give& give) noexcept {
  bool linear = false;
  LiveEntry entry;
  if (g_process.live.Find(Family::kPointer, pointer, &entry)) {
    const CUresult r = GiveBack(Family::kPointer, pointer, give, &linear);
    return r;
  }
  return FreePooled(pointer, give);
}
}  // namespace

CUresult hook_cuMemFreeAsync(CUdeviceptr_v2 dptr, CUstream hStream) noexcept {
  DIVVY_ENTER(cuMemFreeAsync, (dptr, hStream));
  return FreeInOrder(dptr, [&] { return g_driver.cuMemFreeAsync(dptr, hStream); });
}

CUresult hook_cuMemFreeAsync_ptsz(CUdeviceptr_v2 dptr, CUstream hStream) noexcept {
  DIVVY_ENTER(cuMemFreeAsync_ptsz, (dptr, hStream));
  return FreeInOrder(dptr, [&] { return g_driver.cuMemFreeAsync_ptsz(dptr, hStream); });
}

CUresult hook_cuMemPoolCreate(CUmemoryPool* pool, const CUmemPoolProps_v1* poolProps) noexcept {
  DIVVY_ENTER(cuMemPoolCreate, (pool, poolProps));
  const bool on_device =
      poolProps != nullptr && poolProps->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
  if (on_device && !DeviceAllowed(poolProps->location.id, DriverSymbol::cuMemPoolCreate))
    return CUDA_ERROR_INVALID_DEVICE;
  const CUresult r = g_driver.cuMemPoolCreate(pool, poolProps);
  if (r != CUDA_SUCCESS) return r;
  // Managed memory without a place of its own comes to the device that uses it.
  const bool managed = poolProps->allocType == CU_MEM_ALLOCATION_TYPE_MANAGED &&
                       poolProps->location.type == CU_MEM_LOCATION_TYPE_NONE;
  const int device = on_device ? LocalOf(poolProps->location.id)
                     : managed ? CurrentPlace().device
                               : -1;
  AddPool(*pool, device >= 0 ? static_cast<unsigned>(device) : kNoDevice);
  return r;
}

CUresult hook_cuMemPoolDestroy(CUmemoryPool pool) noexcept {
  DIVVY_ENTER(cuMemPoolDestroy, (pool));
  const CUresult r = g_driver.cuMemPoolDestroy(pool);
  if (r == CUDA_SUCCESS) PoolDestroyed(pool);
  return r;
}

CUresult hook_cuMemPoolTrimTo(CUmemoryPool pool, size_t minBytesToKeep) noexcept {
  DIVVY_ENTER(cuMemPoolTrimTo, (pool, minBytesToKeep));
  const CUresult r = g_driver.cuMemPoolTrimTo(pool, minBytesToKeep);
  LiveEntry entry;
  if (r == CUDA_SUCCESS &&
      g_process.live.Find(Family::kPool, reinterpret_cast<uint64_t>(pool), &entry))
    PollPool(entry.owner);
  return r;
}

CUresult hook_cuDeviceSetMemPool(CUdevice_v1 dev, CUmemoryPool pool) noexcept {
  DIVVY_ENTER(cuDeviceSetMemPool, (dev, pool));
  if (!DeviceAllowed(dev, DriverSymbol::cuDeviceSetMemPool)) return CUDA_ERROR_INVALID_DEVICE;
  const CUresult r = g_driver.cuDeviceSetMemPool(dev, pool);
  if (const int device = LocalOf(dev); device >= 0)
    g_process.device[device].current_pool.store(0, std::memory_order_release);
  return r;
}

CUresult hook_cuMemSetMemPool(CUmemLocation* location, CUmemAllocationType type,
                              CUmemoryPool pool) noexcept {
  DIVVY_ENTER(cuMemSetMemPool, (location, type, pool));
  const bool on_device = location != nullptr && location->type == CU_MEM_LOCATION_TYPE_DEVICE;
  if (on_device && !DeviceAllowed(location->id, DriverSymbol::cuMemSetMemPool))
    return CUDA_ERROR_INVALID_DEVICE;
  const CUresult r = g_driver.cuMemSetMemPool(location, type, pool);
  if (const int device = on_device ? LocalOf(location->id) : -1; device >= 0)
    g_process.device[device].current_pool.store(0, std::memory_order_release);
  return r;
}

// An imported pool allocates nothing; its pointers are another process's memory.
CUresult hook_cuMemPoolImportFromShareableHandle(CUmemoryPool* pool_out, void* handle,
                                                 CUmemAllocationHandleType handleType,
                                                 unsigned long long flags) noexcept {
  DIVVY_ENTER(cuMemPoolImportFromShareableHandle, (pool_out, handle, handleType, flags));
  return g_driver.cuMemPoolImportFromShareableHandle(pool_out, handle, handleType, flags);
}

CUresult hook_cuMemPoolExportPointer(CUmemPoolPtrExportData_v1* shareData_out,
                                     CUdeviceptr_v2 ptr) noexcept {
  DIVVY_ENTER(cuMemPoolExportPointer, (shareData_out, ptr));
  const CUresult r = g_driver.cuMemPoolExportPointer(shareData_out, ptr);
  static_assert(sizeof(*shareData_out) == kHandleBytes);
  if (r == CUDA_SUCCESS && shareData_out != nullptr)
    NoteExported(Family::kPooled, ptr, shareData_out);
  return r;
}

CUresult hook_cuMemPoolImportPointer(CUdeviceptr_v2* ptr_out, CUmemoryPool pool,
                                     CUmemPoolPtrExportData_v1* shareData) noexcept {
  DIVVY_ENTER(cuMemPoolImportPointer, (ptr_out, pool, shareData));
  const Offer offer = LookUpOffer(shareData);
  CUdeviceptr_v2 pointer = 0;
  const CUresult r =
      g_driver.cuMemPoolImportPointer(ptr_out != nullptr ? &pointer : nullptr, pool, shareData);
  if (r != CUDA_SUCCESS) return r;
  const CUresult kept = KeepImported(DriverSymbol::cuMemPoolImportPointer, pointer, offer, [&] {
    // Freed in stream order, as imported pool memory has to be.
    return g_driver.cuMemFreeAsync(pointer, CU_STREAM_PER_THREAD);
  });
  if (kept == CUDA_SUCCESS) *ptr_out = pointer;
  return kept;
}

}  // namespace divvy::shim
