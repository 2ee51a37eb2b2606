// The hooks whose body follows from their row in the table (generated/bodies.inc): submissions,
// waits, orderings, calls that name a device, calls that take memory of unknown size, refusals.
#include "src/shim/hooks/measured.h"
#include "src/shim/hooks/submit.h"
#include "src/shim/pools.h"

namespace divvy::shim {
namespace {

bool Allowed(CUdevice device, DriverSymbol symbol) noexcept {
  return DeviceAllowed(device, symbol);
}
bool Allowed(const CUmemLocation& location, DriverSymbol symbol) noexcept {
  return location.type != CU_MEM_LOCATION_TYPE_DEVICE || DeviceAllowed(location.id, symbol);
}

}  // namespace

bool ShareUsedUp(DriverSymbol symbol) noexcept {
  const Here here = CurrentPlace();
  Figures figures;
  if (here.device < 0 || !Look(static_cast<unsigned>(here.device), &figures) ||
      figures.used_bytes < figures.limit_bytes || figures.used_bytes == 0)
    return false;
  Report(region::EventCause::kOutOfShare, static_cast<unsigned>(here.device), 0, symbol);
  return true;
}

// By class of the table. What puts work on the device's compute engines passes the gate. Copies
// between host and device run beside kernels on engines of their own and are not held, nor are
// those whose direction is known at run time only; while others contend they are counted and the
// stream's lane says that it waits for them.
#define DIVVY_COPY(symbol, parameters, arguments, stream, bytes)               \
  namespace {                                                                  \
  __attribute__((noinline, cold)) CUresult Slow_##symbol parameters noexcept { \
    EnterSlow();                                                               \
    if (!Metering()) return g_driver.symbol arguments;                         \
    CopyMark mark;                                                             \
    MeterBeforeCopy(stream, bytes, &mark);                                     \
    const CUresult r = g_driver.symbol arguments;                              \
    MeterAfterCopy(&mark);                                                     \
    return r;                                                                  \
  }                                                                            \
  }                                                                            \
  CUresult hook_##symbol parameters noexcept {                                 \
    if (!Plain()) return Slow_##symbol arguments;                              \
    return g_driver.symbol arguments;                                          \
  }
#define DIVVY_BLOCKING_COPY(symbol, parameters, arguments, stream, bytes)      \
  namespace {                                                                  \
  __attribute__((noinline, cold)) CUresult Slow_##symbol parameters noexcept { \
    EnterSlow();                                                               \
    if (!Metering()) return g_driver.symbol arguments;                         \
    const uint64_t began_ns = MeterBlockingCopy(stream, bytes);                \
    const CUresult r = g_driver.symbol arguments;                              \
    MeterAfterBlockingCopy(began_ns);                                          \
    return r;                                                                  \
  }                                                                            \
  }                                                                            \
  CUresult hook_##symbol parameters noexcept {                                 \
    if (!Plain()) return Slow_##symbol arguments;                              \
    return g_driver.symbol arguments;                                          \
  }
#define DIVVY_SUBMIT_MEMSET(symbol, parameters, arguments, stream, bytes) \
  DIVVY_SUBMITTED(symbol, parameters, arguments, BytesOperation(1, bytes, stream))
#define DIVVY_SUBMIT_COPY_DEVICE(symbol, parameters, arguments, stream, bytes) \
  DIVVY_SUBMITTED(symbol, parameters, arguments, BytesOperation(2, bytes, stream))
#define DIVVY_SUBMIT_COPY_HOST DIVVY_COPY
#define DIVVY_SUBMIT_COPY_ANY DIVVY_COPY
#define DIVVY_SUBMIT_MANAGED(symbol, parameters, arguments, stream, bytes) \
  DIVVY_FORWARDED(symbol, parameters, arguments)
#define DIVVY_HOOK_SUBMIT(symbol, CLASS, parameters, arguments, stream, bytes) \
  DIVVY_SUBMIT_##CLASS(symbol, parameters, arguments, stream, bytes)
#define DIVVY_HOOK_BLOCKING(symbol, CLASS, parameters, arguments, stream, bytes) \
  DIVVY_BLOCKING_COPY(symbol, parameters, arguments, stream, bytes)

// The program waits for the device, or has seen it get somewhere: pools with frees may have given
// memory back.
#define DIVVY_HOOK_SYNC(symbol, CLASS, parameters, arguments, stream)          \
  namespace {                                                                  \
  __attribute__((noinline, cold)) CUresult Slow_##symbol parameters noexcept { \
    EnterSlow();                                                               \
    if (Metering()) MeterBeforeWait(stream);                                   \
    const CUresult r = g_driver.symbol arguments;                              \
    if (Metering()) MeterAfterWait();                                          \
    if (r == CUDA_SUCCESS && PoolsDirty()) PollDirtySlow();                    \
    return r;                                                                  \
  }                                                                            \
  }                                                                            \
  CUresult hook_##symbol parameters noexcept {                                 \
    if (!Plain() || PoolsDirty()) return Slow_##symbol arguments;              \
    return g_driver.symbol arguments;                                          \
  }

// Waits, host functions and callbacks hold their stream back; writes and signals do not.
namespace {
constexpr bool HoldsBack(const char* symbol) {
  const auto has = [symbol](const char* word) {
    for (const char* at = symbol; *at != 0; ++at) {
      unsigned i = 0;
      while (word[i] != 0 && at[i] == word[i]) ++i;
      if (word[i] == 0) return true;
    }
    return false;
  };
  return !has("WriteValue") && !has("Signal");
}
static_assert(HoldsBack("cuStreamWaitValue32") && HoldsBack("cuLaunchHostFunc") &&
              !HoldsBack("cuStreamWriteValue64_v2"));
}  // namespace
#define DIVVY_HOOK_ORDER(symbol, CLASS, parameters, arguments, stream)         \
  namespace {                                                                  \
  __attribute__((noinline, cold)) CUresult Slow_##symbol parameters noexcept { \
    EnterSlow();                                                               \
    const bool holds = HoldsBack(#symbol) && Metering();                       \
    if (holds) MeterBeforeHold(stream);                                        \
    const CUresult r = g_driver.symbol arguments;                              \
    if (holds) MeterHeld(stream);                                              \
    return r;                                                                  \
  }                                                                            \
  }                                                                            \
  CUresult hook_##symbol parameters noexcept {                                 \
    if (!Plain()) return Slow_##symbol arguments;                              \
    return g_driver.symbol arguments;                                          \
  }

#define DIVVY_HOOK_GUARD(symbol, CLASS, parameters, arguments, allowed)                         \
  CUresult hook_##symbol parameters noexcept {                                                  \
    DIVVY_ENTER(symbol, arguments);                                                             \
    const auto device_allowed = [](const auto& d) { return Allowed(d, DriverSymbol::symbol); }; \
    if (!(allowed)) return CUDA_ERROR_INVALID_DEVICE;                                           \
    return g_driver.symbol arguments;                                                           \
  }

#define DIVVY_HOOK_MEASURE(symbol, CLASS, parameters, arguments)            \
  CUresult hook_##symbol parameters noexcept {                              \
    DIVVY_ENTER(symbol, arguments);                                         \
    if (ShareUsedUp(DriverSymbol::symbol)) return CUDA_ERROR_OUT_OF_MEMORY; \
    return g_driver.symbol arguments;                                       \
  }

#include "src/shim/generated/bodies.inc"

// Prefetches bring managed memory in that was charged when it was allocated; they may name a
// device.
#define DIVVY_PREFETCH(symbol, parameters, arguments, place)                     \
  CUresult hook_##symbol parameters noexcept {                                   \
    DIVVY_ENTER(symbol, arguments);                                              \
    if (!Allowed(place, DriverSymbol::symbol)) return CUDA_ERROR_INVALID_DEVICE; \
    return g_driver.symbol arguments;                                            \
  }
DIVVY_PREFETCH(cuMemPrefetchAsync,
               (CUdeviceptr_v2 devPtr, size_t count, CUdevice_v1 dstDevice, CUstream hStream),
               (devPtr, count, dstDevice, hStream), dstDevice)
DIVVY_PREFETCH(cuMemPrefetchAsync_ptsz,
               (CUdeviceptr_v2 devPtr, size_t count, CUdevice_v1 dstDevice, CUstream hStream),
               (devPtr, count, dstDevice, hStream), dstDevice)
DIVVY_PREFETCH(cuMemPrefetchAsync_v2,
               (CUdeviceptr_v2 devPtr, size_t count, CUmemLocation_v1 location, unsigned int flags,
                CUstream hStream),
               (devPtr, count, location, flags, hStream), location)
DIVVY_PREFETCH(cuMemPrefetchAsync_v2_ptsz,
               (CUdeviceptr_v2 devPtr, size_t count, CUmemLocation_v1 location, unsigned int flags,
                CUstream hStream),
               (devPtr, count, location, flags, hStream), location)
#undef DIVVY_PREFETCH

namespace {
bool AllAllowed(const CUmemLocation_v1* list, size_t count, DriverSymbol symbol) noexcept {
  for (size_t i = 0; list != nullptr && i < count; ++i)
    if (!Allowed(list[i], symbol)) return false;
  return true;
}
}  // namespace

#define DIVVY_PREFETCH_BATCH(symbol)                                                            \
  CUresult hook_##symbol(CUdeviceptr_v2* dptrs, size_t* sizes, size_t count,                    \
                         CUmemLocation_v1* prefetchLocs, size_t* prefetchLocIdxs,               \
                         size_t numPrefetchLocs, unsigned long long flags,                      \
                         CUstream hStream) noexcept {                                           \
    DIVVY_ENTER(symbol, (dptrs, sizes, count, prefetchLocs, prefetchLocIdxs, numPrefetchLocs,   \
                         flags, hStream));                                                      \
    if (!AllAllowed(prefetchLocs, numPrefetchLocs, DriverSymbol::symbol))                       \
      return CUDA_ERROR_INVALID_DEVICE;                                                         \
    return g_driver.symbol(dptrs, sizes, count, prefetchLocs, prefetchLocIdxs, numPrefetchLocs, \
                           flags, hStream);                                                     \
  }
DIVVY_PREFETCH_BATCH(cuMemPrefetchBatchAsync)
DIVVY_PREFETCH_BATCH(cuMemPrefetchBatchAsync_ptsz)
DIVVY_PREFETCH_BATCH(cuMemDiscardAndPrefetchBatchAsync)
DIVVY_PREFETCH_BATCH(cuMemDiscardAndPrefetchBatchAsync_ptsz)
#undef DIVVY_PREFETCH_BATCH

}  // namespace divvy::shim
