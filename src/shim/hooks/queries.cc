// What the program sees of its memory: the share's limit as total, the share's rest as free. The
// driver is asked first, so that errors and missing out-parameters are its own.
#include "src/shim/hooks/hook.h"
#include "src/shim/pools.h"

namespace divvy::shim {
namespace {

template <typename Size>
Size Fit(uint64_t bytes) noexcept {
  constexpr auto kMost = static_cast<uint64_t>(static_cast<Size>(~Size{0}));
  return static_cast<Size>(bytes < kMost ? bytes : kMost);
}

template <typename Size, typename Ask>
CUresult MemInfo(Size* free, Size* total, const Ask& ask) noexcept {
  Size real_free = 0, real_total = 0;
  const CUresult r =
      ask(free != nullptr ? &real_free : nullptr, total != nullptr ? &real_total : nullptr);
  if (r != CUDA_SUCCESS) return r;
  if (PoolsDirty()) PollDirtySlow();
  const Here here = CurrentPlace();
  Figures figures;
  if (here.device >= 0 && Look(static_cast<unsigned>(here.device), &figures)) {
    // Never more than the device really has at this moment.
    if (free != nullptr) {
      const Size share = Fit<Size>(figures.free_bytes);
      real_free = share < real_free ? share : real_free;
    }
    real_total = Fit<Size>(figures.limit_bytes);
  }
  if (free != nullptr) *free = real_free;
  if (total != nullptr) *total = real_total;
  return r;
}

template <typename Size, typename Ask>
CUresult TotalMem(Size* bytes, CUdevice dev, DriverSymbol symbol, const Ask& ask) noexcept {
  if (!DeviceAllowed(dev, symbol)) return CUDA_ERROR_INVALID_DEVICE;
  Size real = 0;
  const CUresult r = ask(bytes != nullptr ? &real : nullptr);
  if (r != CUDA_SUCCESS || bytes == nullptr) return r;
  Figures figures;
  const int device = LocalOf(dev);
  *bytes = device >= 0 && Look(static_cast<unsigned>(device), &figures)
               ? Fit<Size>(figures.limit_bytes)
               : real;
  return r;
}

}  // namespace

CUresult hook_cuMemGetInfo_v2(size_t* free, size_t* total) noexcept {
  DIVVY_ENTER(cuMemGetInfo_v2, (free, total));
  return MemInfo(free, total, [](size_t* f, size_t* t) { return g_driver.cuMemGetInfo_v2(f, t); });
}

CUresult hook_cuMemGetInfo(unsigned int* free, unsigned int* total) noexcept {
  DIVVY_ENTER(cuMemGetInfo, (free, total));
  return MemInfo(free, total, [](unsigned* f, unsigned* t) { return g_driver.cuMemGetInfo(f, t); });
}

CUresult hook_cuDeviceTotalMem_v2(size_t* bytes, CUdevice_v1 dev) noexcept {
  DIVVY_ENTER(cuDeviceTotalMem_v2, (bytes, dev));
  return TotalMem(bytes, dev, DriverSymbol::cuDeviceTotalMem_v2,
                  [dev](size_t* b) { return g_driver.cuDeviceTotalMem_v2(b, dev); });
}

CUresult hook_cuDeviceTotalMem(unsigned int* bytes, CUdevice_v1 dev) noexcept {
  DIVVY_ENTER(cuDeviceTotalMem, (bytes, dev));
  return TotalMem(bytes, dev, DriverSymbol::cuDeviceTotalMem,
                  [dev](unsigned* b) { return g_driver.cuDeviceTotalMem(b, dev); });
}

}  // namespace divvy::shim
