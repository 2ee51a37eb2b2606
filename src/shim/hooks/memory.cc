// Linear memory: cuMemAlloc, pitched, managed, and every way to free a device pointer. Charged
// before the driver is asked, remembered by pointer, credited when it is freed.
#include "src/shim/footprint.h"
#include "src/shim/hooks/hook.h"
#include "src/shim/physical.h"
#include "src/shim/pools.h"

namespace divvy::shim {
namespace {

constexpr uint64_t kPitchAlignment = 512;  // what devices since Volta round a row to, at least

template <typename Pointer, typename Take>
CUresult TakeLinear(DriverSymbol symbol, Kind kind, uint64_t bytes, Pointer* out,
                    const Take& take) noexcept {
  if (out == nullptr || bytes == 0) return take();  // the driver says what is wrong
  const Here here = CurrentPlace();
  if (here.device < 0) return ForeignContext(here) ? CUDA_ERROR_INVALID_CONTEXT : take();
  // Managed memory comes to the device by what is touched: at most its size, to whole blocks.
  return TakeCharged(here, Family::kPointer, kind, FootprintOf(bytes), symbol, take,
                     [out] { return static_cast<uint64_t>(*out); });
}

template <typename Pointer, typename Size, typename Take>
CUresult TakePitched(DriverSymbol symbol, Pointer* out, Size* pitch_out, uint64_t width,
                     uint64_t height, const Take& take) noexcept {
  if (out == nullptr || pitch_out == nullptr || width == 0 || height == 0)
    return take(out, pitch_out);
  const Here here = CurrentPlace();
  if (here.device < 0)
    return ForeignContext(here) ? CUDA_ERROR_INVALID_CONTEXT : take(out, pitch_out);
  const auto device = static_cast<unsigned>(here.device);
  const uint64_t row = (width + kPitchAlignment - 1) & ~(kPitchAlignment - 1);
  uint64_t bytes;
  if (row < width || __builtin_mul_overflow(row, height, &bytes)) bytes = UINT64_MAX;
  const uint64_t expected = FootprintOf(bytes);
  Pointer pointer = 0;
  Size pitch = 0;
  const CUresult r = TakeCharged(
      here, Family::kPointer, Kind::kLinear, expected, symbol,
      [&] { return take(&pointer, &pitch); }, [&] { return static_cast<uint64_t>(pointer); });
  if (r != CUDA_SUCCESS) return r;
  const uint64_t really = FootprintOf(static_cast<uint64_t>(pitch) * height);
  if (really > expected) {
    // The driver's rows are longer than expected: the rest is charged now, or all is undone.
    const uint64_t more = really - expected;
    if (const Verdict v = Charge(device, more, Kind::kLinear, symbol); v != Verdict::kGranted) {
      const RelaxedCapture relaxed;
      GiveBack(Family::kPointer, pointer, [&] { return g_driver.cuMemFree_v2(pointer); });
      return CodeOf(v);
    }
    g_process.live.Update(Family::kPointer, pointer,
                          [really](LiveEntry& entry) { entry.units = really; });
  }
  *out = pointer;
  *pitch_out = pitch;
  return r;
}

// Shared with other processes, or a mapping of a record.
__attribute__((noinline, cold)) CUresult FreeFlagged(const LiveEntry& entry) noexcept {
  Begin();
  const bool shared = (entry.flags & kSharedMemory) != 0;
  if (shared) CloseExport(entry);
  const CUresult r = g_driver.cuMemFree_v2(entry.key);
  if (r == CUDA_SUCCESS && shared) {
    CreditSharedAndEnd(entry);
    return r;
  }
  if (r == CUDA_SUCCESS) {
    UnrefRecord(static_cast<uint32_t>(entry.aux), RecordRef::kMapping);
  } else {
    if (shared) ReopenExport(entry);
    g_process.live.Insert(entry);
  }
  End();
  return r;
}

template <typename Give>
CUresult FreePointer(uint64_t pointer, const Give& give) noexcept {
  if (pointer == 0) return give();
  LiveEntry entry;
  if (g_process.live.Take(Family::kPointer, pointer, &entry)) {
    if (__builtin_expect(entry.flags != 0, 0)) return FreeFlagged(entry);
    Begin();
    const CUresult r = give();
    if (r == CUDA_SUCCESS) {
      CreditAndEnd(entry.device, entry.units, static_cast<Kind>(entry.kind));
      return r;
    }
    g_process.live.Insert(entry);
    End();
    return r;
  }
  return FreePooled(pointer, give);
}

}  // namespace

CUresult hook_cuMemAlloc_v2(CUdeviceptr_v2* dptr, size_t bytesize) noexcept {
  DIVVY_ENTER(cuMemAlloc_v2, (dptr, bytesize));
  return TakeLinear(DriverSymbol::cuMemAlloc_v2, Kind::kLinear, bytesize, dptr,
                    [&] { return g_driver.cuMemAlloc_v2(dptr, bytesize); });
}

CUresult hook_cuMemAlloc(CUdeviceptr_v1* dptr, unsigned int bytesize) noexcept {
  DIVVY_ENTER(cuMemAlloc, (dptr, bytesize));
  return TakeLinear(DriverSymbol::cuMemAlloc, Kind::kLinear, bytesize, dptr,
                    [&] { return g_driver.cuMemAlloc(dptr, bytesize); });
}

CUresult hook_cuMemAllocManaged(CUdeviceptr_v2* dptr, size_t bytesize,
                                unsigned int flags) noexcept {
  DIVVY_ENTER(cuMemAllocManaged, (dptr, bytesize, flags));
  return TakeLinear(DriverSymbol::cuMemAllocManaged, Kind::kManaged, bytesize, dptr,
                    [&] { return g_driver.cuMemAllocManaged(dptr, bytesize, flags); });
}

CUresult hook_cuMemAllocPitch_v2(CUdeviceptr_v2* dptr, size_t* pPitch, size_t WidthInBytes,
                                 size_t Height, unsigned int ElementSizeBytes) noexcept {
  DIVVY_ENTER(cuMemAllocPitch_v2, (dptr, pPitch, WidthInBytes, Height, ElementSizeBytes));
  return TakePitched(DriverSymbol::cuMemAllocPitch_v2, dptr, pPitch, WidthInBytes, Height,
                     [&](CUdeviceptr_v2* p, size_t* pitch) {
                       return g_driver.cuMemAllocPitch_v2(p, pitch, WidthInBytes, Height,
                                                          ElementSizeBytes);
                     });
}

CUresult hook_cuMemAllocPitch(CUdeviceptr_v1* dptr, unsigned int* pPitch, unsigned int WidthInBytes,
                              unsigned int Height, unsigned int ElementSizeBytes) noexcept {
  DIVVY_ENTER(cuMemAllocPitch, (dptr, pPitch, WidthInBytes, Height, ElementSizeBytes));
  return TakePitched(DriverSymbol::cuMemAllocPitch, dptr, pPitch, WidthInBytes, Height,
                     [&](CUdeviceptr_v1* p, unsigned int* pitch) {
                       return g_driver.cuMemAllocPitch(p, pitch, WidthInBytes, Height,
                                                       ElementSizeBytes);
                     });
}

CUresult hook_cuMemFree_v2(CUdeviceptr_v2 dptr) noexcept {
  DIVVY_ENTER(cuMemFree_v2, (dptr));
  return FreePointer(dptr, [dptr] { return g_driver.cuMemFree_v2(dptr); });
}

CUresult hook_cuMemFree(CUdeviceptr_v1 dptr) noexcept {
  DIVVY_ENTER(cuMemFree, (dptr));
  return FreePointer(dptr, [dptr] { return g_driver.cuMemFree(dptr); });
}

}  // namespace divvy::shim
