// Contexts: refused on devices without a share, their cost charged before the first one is made on
// a device, all that lived in one credited when it is destroyed.
#include "src/shim/hooks/hook.h"
#include "src/shim/pools.h"

namespace divvy::shim {
namespace {

// Shape of every creation: `make` calls the driver, `adopt` gets the new context's charge.
template <typename Make, typename Adopt>
CUresult MakeContext(DriverSymbol symbol, CUdevice ordinal, bool charged_already, const Make& make,
                     const Adopt& adopt) noexcept {
  const int device = LocalOf(ordinal);
  if (device < 0) return DeviceAllowed(ordinal, symbol) ? make() : CUDA_ERROR_INVALID_DEVICE;
  const auto local = static_cast<unsigned>(device);
  uint64_t units = 0;
  if (!charged_already)
    if (const Verdict v = ChargeContext(local, symbol, &units); v != Verdict::kGranted)
      return CodeOf(v);
  const Moving moving(!charged_already);
  const CUresult r = make();
  if (r == CUDA_SUCCESS)
    adopt(local, units);
  else
    Credit(local, units, Kind::kContext);
  return r;
}

template <typename Make>
CUresult MakeOwn(DriverSymbol symbol, CUcontext* out, CUdevice ordinal, const Make& make) noexcept {
  return MakeContext(symbol, ordinal, false, make, [out](unsigned device, uint64_t units) {
    AddContext(*out, static_cast<int>(device), units);
  });
}

bool PrimaryCharged(CUdevice ordinal) noexcept {
  const int device = LocalOf(ordinal);
  return device >= 0 && PrimaryKnown(static_cast<unsigned>(device));
}

template <typename Destroy>
CUresult DestroyContext(CUcontext context, const Destroy& destroy) noexcept {
  const uint32_t slot = ForgetContext(context);
  const ContextEnding ending(slot);
  const Moving moving;
  const CUresult r = destroy();
  if (slot == 0) return r;
  if (r == CUDA_SUCCESS)
    ContextGone(slot);
  else
    RestoreContext(slot, context);
  return r;
}

template <typename Release>
CUresult ReleasePrimary(CUdevice ordinal, const Release& release) noexcept {
  const Moving moving;
  const int device = LocalOf(ordinal);
  CUresult r;
  if (device >= 0) {
    const auto local = static_cast<unsigned>(device);
    const ContextEnding ending(PrimarySlot(local));
    r = release(ordinal);
    PrimaryMaybeGone(local, ordinal);
  } else {
    r = release(ordinal);
  }
  if (r == CUDA_SUCCESS && device >= 0) {
    g_process.pools_dirty.store(1, std::memory_order_relaxed);
    PollDirtySlow();
  }
  return r;
}

// What a limit of the current context holds of the device, in units: a heap and a print buffer as
// large as they are, a stack of its size for every thread that the device can have at once. In
// blocks of the driver; 0 for limits that are no memory.
uint64_t HeldByLimit(CUlimit limit, uint64_t value) noexcept {
  constexpr uint64_t kBlock = uint64_t{2} << 20;
  uint64_t bytes = value;
  if (limit == CU_LIMIT_STACK_SIZE) {
    CUdevice ordinal = -1;
    int processors = 0, threads = 0;
    if (g_driver.cuCtxGetDevice(&ordinal) != CUDA_SUCCESS ||
        g_driver.cuDeviceGetAttribute(&processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                                      ordinal) != CUDA_SUCCESS ||
        g_driver.cuDeviceGetAttribute(&threads, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR,
                                      ordinal) != CUDA_SUCCESS)
      return 0;
    const auto all = static_cast<uint64_t>(processors) * static_cast<uint64_t>(threads);
    if (__builtin_mul_overflow(value, all, &bytes)) bytes = UINT64_MAX;
  }
  constexpr uint64_t kMost = region::kMaxUnits * region::kUnitBytes;
  return region::UnitsOf(bytes < kMost ? (bytes + kBlock - 1) & ~(kBlock - 1) : kMost);
}

bool IsMemory(CUlimit limit) noexcept {
  return limit == CU_LIMIT_MALLOC_HEAP_SIZE || limit == CU_LIMIT_PRINTF_FIFO_SIZE ||
         limit == CU_LIMIT_STACK_SIZE;
}

}  // namespace

CUresult hook_cuCtxCreate(CUcontext* pctx, unsigned int flags, CUdevice_v1 dev) noexcept {
  DIVVY_ENTER(cuCtxCreate, (pctx, flags, dev));
  return MakeOwn(DriverSymbol::cuCtxCreate, pctx, dev,
                 [&] { return g_driver.cuCtxCreate(pctx, flags, dev); });
}

CUresult hook_cuCtxCreate_v2(CUcontext* pctx, unsigned int flags, CUdevice_v1 dev) noexcept {
  DIVVY_ENTER(cuCtxCreate_v2, (pctx, flags, dev));
  return MakeOwn(DriverSymbol::cuCtxCreate_v2, pctx, dev,
                 [&] { return g_driver.cuCtxCreate_v2(pctx, flags, dev); });
}

CUresult hook_cuCtxCreate_v3(CUcontext* pctx, CUexecAffinityParam* paramsArray, int numParams,
                             unsigned int flags, CUdevice_v1 dev) noexcept {
  DIVVY_ENTER(cuCtxCreate_v3, (pctx, paramsArray, numParams, flags, dev));
  return MakeOwn(DriverSymbol::cuCtxCreate_v3, pctx, dev,
                 [&] { return g_driver.cuCtxCreate_v3(pctx, paramsArray, numParams, flags, dev); });
}

CUresult hook_cuCtxCreate_v4(CUcontext* pctx, CUctxCreateParams* ctxCreateParams,
                             unsigned int flags, CUdevice dev) noexcept {
  DIVVY_ENTER(cuCtxCreate_v4, (pctx, ctxCreateParams, flags, dev));
  return MakeOwn(DriverSymbol::cuCtxCreate_v4, pctx, dev,
                 [&] { return g_driver.cuCtxCreate_v4(pctx, ctxCreateParams, flags, dev); });
}

CUresult hook_cuDevicePrimaryCtxRetain(CUcontext* pctx, CUdevice_v1 dev) noexcept {
  DIVVY_ENTER(cuDevicePrimaryCtxRetain, (pctx, dev));
  return MakeContext(
      DriverSymbol::cuDevicePrimaryCtxRetain, dev, PrimaryCharged(dev),
      [&] { return g_driver.cuDevicePrimaryCtxRetain(pctx, dev); },
      [&](unsigned device, uint64_t units) { PrimaryRetained(device, *pctx, units); });
}

CUresult hook_cuDevicePrimaryCtxRelease(CUdevice_v1 dev) noexcept {
  DIVVY_ENTER(cuDevicePrimaryCtxRelease, (dev));
  if (!DeviceAllowed(dev, DriverSymbol::cuDevicePrimaryCtxRelease))
    return CUDA_ERROR_INVALID_DEVICE;
  return ReleasePrimary(dev, g_driver.cuDevicePrimaryCtxRelease);
}

CUresult hook_cuDevicePrimaryCtxRelease_v2(CUdevice_v1 dev) noexcept {
  DIVVY_ENTER(cuDevicePrimaryCtxRelease_v2, (dev));
  if (!DeviceAllowed(dev, DriverSymbol::cuDevicePrimaryCtxRelease_v2))
    return CUDA_ERROR_INVALID_DEVICE;
  return ReleasePrimary(dev, g_driver.cuDevicePrimaryCtxRelease_v2);
}

CUresult hook_cuDevicePrimaryCtxReset(CUdevice_v1 dev) noexcept {
  DIVVY_ENTER(cuDevicePrimaryCtxReset, (dev));
  if (!DeviceAllowed(dev, DriverSymbol::cuDevicePrimaryCtxReset)) return CUDA_ERROR_INVALID_DEVICE;
  return ReleasePrimary(dev, g_driver.cuDevicePrimaryCtxReset);
}

CUresult hook_cuDevicePrimaryCtxReset_v2(CUdevice_v1 dev) noexcept {
  DIVVY_ENTER(cuDevicePrimaryCtxReset_v2, (dev));
  if (!DeviceAllowed(dev, DriverSymbol::cuDevicePrimaryCtxReset_v2))
    return CUDA_ERROR_INVALID_DEVICE;
  return ReleasePrimary(dev, g_driver.cuDevicePrimaryCtxReset_v2);
}

CUresult hook_cuCtxDestroy(CUcontext ctx) noexcept {
  DIVVY_ENTER(cuCtxDestroy, (ctx));
  return DestroyContext(ctx, [ctx] { return g_driver.cuCtxDestroy(ctx); });
}

CUresult hook_cuCtxDestroy_v2(CUcontext ctx) noexcept {
  DIVVY_ENTER(cuCtxDestroy_v2, (ctx));
  return DestroyContext(ctx, [ctx] { return g_driver.cuCtxDestroy_v2(ctx); });
}

// The old pair counts uses on top of creation; the context goes with the last.
CUresult hook_cuCtxAttach(CUcontext* pctx, unsigned int flags) noexcept {
  DIVVY_ENTER(cuCtxAttach, (pctx, flags));
  const CUresult r = g_driver.cuCtxAttach(pctx, flags);
  if (r == CUDA_SUCCESS)
    if (const Here here = PlaceOf(*pctx); here.context != 0)
      __atomic_fetch_add(&g_process.context[here.context].attached, 1, __ATOMIC_RELAXED);
  return r;
}

CUresult hook_cuCtxDetach(CUcontext ctx) noexcept {
  DIVVY_ENTER(cuCtxDetach, (ctx));
  const Here here = PlaceOf(ctx);
  if (here.context != 0) {
    uint32_t& attached = g_process.context[here.context].attached;
    uint32_t uses = __atomic_load_n(&attached, __ATOMIC_RELAXED);
    while (uses > 0 && !__atomic_compare_exchange_n(&attached, &uses, uses - 1, false,
                                                    __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    if (uses > 0) return g_driver.cuCtxDetach(ctx);
  }
  return DestroyContext(ctx, [ctx] { return g_driver.cuCtxDetach(ctx); });
}

CUresult hook_cuGreenCtxCreate(CUgreenCtx* phCtx, CUdevResourceDesc desc, CUdevice dev,
                               unsigned int flags) noexcept {
  DIVVY_ENTER(cuGreenCtxCreate, (phCtx, desc, dev, flags));
  // It stands on the primary context and brings it up if nobody has.
  return MakeContext(
      DriverSymbol::cuGreenCtxCreate, dev, PrimaryCharged(dev),
      [&] { return g_driver.cuGreenCtxCreate(phCtx, desc, dev, flags); },
      [&](unsigned device, uint64_t units) {
        CUcontext context = nullptr;
        if (g_driver.cuCtxFromGreenCtx(&context, *phCtx) == CUDA_SUCCESS)
          AddContext(context, static_cast<int>(device), units);
        else
          Credit(device, units, Kind::kContext);
      });
}

CUresult hook_cuGreenCtxDestroy(CUgreenCtx hCtx) noexcept {
  DIVVY_ENTER(cuGreenCtxDestroy, (hCtx));
  CUcontext context = nullptr;
  if (g_driver.cuCtxFromGreenCtx(&context, hCtx) != CUDA_SUCCESS) context = nullptr;
  return DestroyContext(context, [hCtx] { return g_driver.cuGreenCtxDestroy(hCtx); });
}

// A context's heap for device-side malloc, its print buffer and its threads' stacks are device
// memory with a size: the part above the driver's default is charged like the context that it
// belongs to. (A launch that needs deeper stacks raises their limit by itself: that is measured.)
CUresult hook_cuCtxSetLimit(CUlimit limit, size_t value) noexcept {
  DIVVY_ENTER(cuCtxSetLimit, (limit, value));
  const Here here = IsMemory(limit) ? CurrentPlace() : Here{-1, 0};
  size_t before = 0;
  if (here.device < 0 || here.context == 0 ||
      g_driver.cuCtxGetLimit(&before, limit) != CUDA_SUCCESS)
    return g_driver.cuCtxSetLimit(limit, value);
  const auto device = static_cast<unsigned>(here.device);
  const uint64_t held = HeldByLimit(limit, before), wanted = HeldByLimit(limit, value);
  const uint64_t more = wanted > held ? wanted - held : 0;
  if (more != 0)
    if (const Verdict v = ChargeAndBegin(device, more, Kind::kContext, DriverSymbol::cuCtxSetLimit);
        v != Verdict::kGranted)
      return CodeOf(v);
  const Moving moving(more != 0 || Begin());
  const CUresult r = g_driver.cuCtxSetLimit(limit, value);
  size_t after = before;
  g_driver.cuCtxGetLimit(&after, limit);
  const uint64_t holds = after != before ? HeldByLimit(limit, after) : held;
  uint64_t really = r == CUDA_SUCCESS && holds > held ? holds - held : 0;
  if (really < more) Credit(device, more - really, Kind::kContext);
  // The driver rounds up: what no longer fits is there already and shows as overhead.
  if (really > more && TryCharge(device, really - more, Kind::kContext) != Verdict::kGranted)
    really = more;
  const uint64_t less = holds < held ? held - holds : 0;
  // One entry per context: what its limits hold above the defaults.
  const uint64_t key = uint64_t{here.context} << 8 | static_cast<unsigned>(limit);
  uint64_t credit = 0;
  const bool known = g_process.live.Update(Family::kModule, key, [&](LiveEntry& entry) {
    entry.units += really;
    credit = less < entry.units ? less : entry.units;
    entry.units -= credit;
  });
  if (!known && really != 0)
    g_process.live.Insert({key, Family::kModule, static_cast<uint8_t>(device),
                           static_cast<uint8_t>(Kind::kContext), 0, here.context, really, 0});
  Credit(device, credit, Kind::kContext);
  return r;
}

// Which context is current is asked of the driver when it matters; nothing is kept here.
DIVVY_FORWARDED(cuCtxSetCurrent, (CUcontext ctx), (ctx))
DIVVY_FORWARDED(cuCtxPushCurrent, (CUcontext ctx), (ctx))
DIVVY_FORWARDED(cuCtxPushCurrent_v2, (CUcontext ctx), (ctx))
DIVVY_FORWARDED(cuCtxPopCurrent, (CUcontext * pctx), (pctx))
DIVVY_FORWARDED(cuCtxPopCurrent_v2, (CUcontext * pctx), (pctx))
DIVVY_FORWARDED(cuCtxFromGreenCtx, (CUcontext * pContext, CUgreenCtx hCtx), (pContext, hCtx))

}  // namespace divvy::shim
