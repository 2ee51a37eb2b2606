// Memory of other APIs (Vulkan, D3D, NvSci): its size is in the import's descriptor, so it is
// charged before it comes in, once for the object; buffers and arrays mapped out of it take nothing
// more.
#include "src/shim/hooks/hook.h"

namespace divvy::shim {

CUresult hook_cuImportExternalMemory(
    CUexternalMemory* extMem_out,
    const CUDA_EXTERNAL_MEMORY_HANDLE_DESC_v1* memHandleDesc) noexcept {
  DIVVY_ENTER(cuImportExternalMemory, (extMem_out, memHandleDesc));
  const auto take = [&] { return g_driver.cuImportExternalMemory(extMem_out, memHandleDesc); };
  if (extMem_out == nullptr || memHandleDesc == nullptr || memHandleDesc->size == 0) return take();
  const Here here = CurrentPlace();
  if (here.device < 0) return ForeignContext(here) ? CUDA_ERROR_INVALID_CONTEXT : take();
  return TakeCharged(here, Family::kExternal, Kind::kImport, region::UnitsOf(memHandleDesc->size),
                     DriverSymbol::cuImportExternalMemory, take,
                     [&] { return reinterpret_cast<uint64_t>(*extMem_out); });
}

CUresult hook_cuDestroyExternalMemory(CUexternalMemory extMem) noexcept {
  DIVVY_ENTER(cuDestroyExternalMemory, (extMem));
  return GiveBack(Family::kExternal, reinterpret_cast<uint64_t>(extMem),
                  [extMem] { return g_driver.cuDestroyExternalMemory(extMem); });
}

}  // namespace divvy::shim
