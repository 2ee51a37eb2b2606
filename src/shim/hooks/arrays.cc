// CUDA arrays and mipmapped arrays: charged by the size their descriptor implies, in whole blocks.
// What the driver pads beyond that shows as overhead. Sparse and deferred arrays take no memory of
// their own: what is mapped into them was charged as physical memory.
#include "src/shim/array_size.h"
#include "src/shim/footprint.h"
#include "src/shim/hooks/hook.h"
#include "src/shim/physical.h"

namespace divvy::shim {
namespace {

template <typename Handle, typename Take>
CUresult TakeArray(DriverSymbol symbol, Family family, uint64_t bytes, Handle* out,
                   const Take& take) noexcept {
  if (out == nullptr || bytes == 0) return take();
  const Here here = CurrentPlace();
  if (here.device < 0) return ForeignContext(here) ? CUDA_ERROR_INVALID_CONTEXT : take();
  return TakeCharged(here, family, Kind::kArray, FootprintOf(bytes), symbol, take,
                     [out] { return reinterpret_cast<uint64_t>(*out); });
}

}  // namespace

CUresult hook_cuArrayCreate_v2(CUarray* pHandle,
                               const CUDA_ARRAY_DESCRIPTOR_v2* pAllocateArray) noexcept {
  DIVVY_ENTER(cuArrayCreate_v2, (pHandle, pAllocateArray));
  return TakeArray(DriverSymbol::cuArrayCreate_v2, Family::kArray, ArrayBytes(pAllocateArray),
                   pHandle, [&] { return g_driver.cuArrayCreate_v2(pHandle, pAllocateArray); });
}

CUresult hook_cuArrayCreate(CUarray* pHandle,
                            const CUDA_ARRAY_DESCRIPTOR_v1* pAllocateArray) noexcept {
  DIVVY_ENTER(cuArrayCreate, (pHandle, pAllocateArray));
  return TakeArray(DriverSymbol::cuArrayCreate, Family::kArray, ArrayBytes(pAllocateArray), pHandle,
                   [&] { return g_driver.cuArrayCreate(pHandle, pAllocateArray); });
}

CUresult hook_cuArray3DCreate_v2(CUarray* pHandle,
                                 const CUDA_ARRAY3D_DESCRIPTOR_v2* pAllocateArray) noexcept {
  DIVVY_ENTER(cuArray3DCreate_v2, (pHandle, pAllocateArray));
  return TakeArray(DriverSymbol::cuArray3DCreate_v2, Family::kArray, ArrayBytes(pAllocateArray, 1),
                   pHandle, [&] { return g_driver.cuArray3DCreate_v2(pHandle, pAllocateArray); });
}

CUresult hook_cuArray3DCreate(CUarray* pHandle,
                              const CUDA_ARRAY3D_DESCRIPTOR_v1* pAllocateArray) noexcept {
  DIVVY_ENTER(cuArray3DCreate, (pHandle, pAllocateArray));
  return TakeArray(DriverSymbol::cuArray3DCreate, Family::kArray, ArrayBytes(pAllocateArray),
                   pHandle, [&] { return g_driver.cuArray3DCreate(pHandle, pAllocateArray); });
}

CUresult hook_cuMipmappedArrayCreate(CUmipmappedArray* pHandle,
                                     const CUDA_ARRAY3D_DESCRIPTOR_v2* pMipmappedArrayDesc,
                                     unsigned int numMipmapLevels) noexcept {
  DIVVY_ENTER(cuMipmappedArrayCreate, (pHandle, pMipmappedArrayDesc, numMipmapLevels));
  return TakeArray(DriverSymbol::cuMipmappedArrayCreate, Family::kMipmap,
                   ArrayBytes(pMipmappedArrayDesc, numMipmapLevels), pHandle, [&] {
                     return g_driver.cuMipmappedArrayCreate(pHandle, pMipmappedArrayDesc,
                                                            numMipmapLevels);
                   });
}

CUresult hook_cuArrayDestroy(CUarray hArray) noexcept {
  DIVVY_ENTER(cuArrayDestroy, (hArray));
  const auto key = reinterpret_cast<uint64_t>(hArray);
  const Moving moving;
  const CUresult r =
      GiveBack(Family::kArray, key, [hArray] { return g_driver.cuArrayDestroy(hArray); });
  if (r == CUDA_SUCCESS) UnbindArray(key);
  return r;
}

CUresult hook_cuMipmappedArrayDestroy(CUmipmappedArray hMipmappedArray) noexcept {
  DIVVY_ENTER(cuMipmappedArrayDestroy, (hMipmappedArray));
  const auto key = reinterpret_cast<uint64_t>(hMipmappedArray);
  const Moving moving;
  const CUresult r = GiveBack(Family::kMipmap, key, [hMipmappedArray] {
    return g_driver.cuMipmappedArrayDestroy(hMipmappedArray);
  });
  if (r == CUDA_SUCCESS) UnbindArray(key);
  return r;
}

}  // namespace divvy::shim
