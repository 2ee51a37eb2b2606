// Memory of another process of this machine, opened by its IPC handle: charged as imported, and
// together with its exporter if that is a process of the same tenant.
#include "src/shim/hooks/import.h"

namespace divvy::shim {
namespace {

template <typename Open>
CUresult OpenImported(DriverSymbol symbol, CUdeviceptr_v2* out, const CUipcMemHandle_v1& handle,
                      const Open& open) noexcept {
  static_assert(sizeof(handle) == kHandleBytes);
  if (out == nullptr) return open(out);
  if (ForeignContext(CurrentPlace())) return CUDA_ERROR_INVALID_CONTEXT;
  const Offer offer = LookUpOffer(&handle);
  CUdeviceptr_v2 pointer = 0;
  const CUresult r = open(&pointer);
  if (r != CUDA_SUCCESS) return r;
  const CUresult kept = KeepImported(symbol, pointer, offer, [pointer] {
    const RelaxedCapture relaxed;
    return g_driver.cuIpcCloseMemHandle(pointer);
  });
  if (kept == CUDA_SUCCESS) *out = pointer;
  return kept;
}

}  // namespace

CUresult hook_cuIpcGetMemHandle(CUipcMemHandle_v1* pHandle, CUdeviceptr_v2 dptr) noexcept {
  DIVVY_ENTER(cuIpcGetMemHandle, (pHandle, dptr));
  const CUresult r = g_driver.cuIpcGetMemHandle(pHandle, dptr);
  if (r != CUDA_SUCCESS || pHandle == nullptr) return r;
  // The handle is the whole allocation's, wherever in it the pointer is.
  CUdeviceptr_v2 base = dptr;
  size_t bytes = 0;
  if (!g_process.live.Find(Family::kPointer, dptr, nullptr)) {
    const RelaxedCapture relaxed;
    if (g_driver.cuMemGetAddressRange_v2(&base, &bytes, dptr) != CUDA_SUCCESS) return r;
  }
  NoteExported(Family::kPointer, base, pHandle);
  return r;
}

CUresult hook_cuIpcOpenMemHandle(CUdeviceptr_v2* pdptr, CUipcMemHandle_v1 handle,
                                 unsigned int Flags) noexcept {
  DIVVY_ENTER(cuIpcOpenMemHandle, (pdptr, handle, Flags));
  return OpenImported(DriverSymbol::cuIpcOpenMemHandle, pdptr, handle, [&](CUdeviceptr_v2* p) {
    return g_driver.cuIpcOpenMemHandle(p, handle, Flags);
  });
}

CUresult hook_cuIpcOpenMemHandle_v2(CUdeviceptr_v2* pdptr, CUipcMemHandle_v1 handle,
                                    unsigned int Flags) noexcept {
  DIVVY_ENTER(cuIpcOpenMemHandle_v2, (pdptr, handle, Flags));
  return OpenImported(DriverSymbol::cuIpcOpenMemHandle_v2, pdptr, handle, [&](CUdeviceptr_v2* p) {
    return g_driver.cuIpcOpenMemHandle_v2(p, handle, Flags);
  });
}

CUresult hook_cuIpcCloseMemHandle(CUdeviceptr_v2 dptr) noexcept {
  DIVVY_ENTER(cuIpcCloseMemHandle, (dptr));
  bool opened_again = false;
  g_process.live.Update(Family::kPointer, dptr, [&](LiveEntry& entry) {
    opened_again = entry.aux > 0;
    if (opened_again) --entry.aux;
  });
  if (!opened_again)
    return GiveBack(Family::kPointer, dptr, [dptr] { return g_driver.cuIpcCloseMemHandle(dptr); });
  const CUresult r = g_driver.cuIpcCloseMemHandle(dptr);
  if (r != CUDA_SUCCESS)
    g_process.live.Update(Family::kPointer, dptr, [](LiveEntry& entry) { ++entry.aux; });
  return r;
}

}  // namespace divvy::shim
