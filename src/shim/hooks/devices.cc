// Initialisation and what devices there are: only those with a share, in the driver's order.
#include "src/shim/attach.h"
#include "src/shim/hooks/hook.h"

namespace divvy::shim {

CUresult hook_cuInit(unsigned int Flags) noexcept {
  EnsureDriver();
  switch (AttachNow()) {
    case Standing::kNotTenant:
      return g_driver.cuInit(Flags);
    case Standing::kActive:
      return InitDriver(Flags);
    default:
      return CUDA_ERROR_SYSTEM_NOT_READY;
  }
}

CUresult hook_cuDeviceGetCount(int* count) noexcept {
  DIVVY_ENTER(cuDeviceGetCount, (count));
  const CUresult r = g_driver.cuDeviceGetCount(count);
  if (r == CUDA_SUCCESS && count != nullptr) *count = static_cast<int>(VisibleCount());
  return r;
}

CUresult hook_cuDeviceGet(CUdevice_v1* device, int ordinal) noexcept {
  DIVVY_ENTER(cuDeviceGet, (device, ordinal));
  int count;
  if (const CUresult r = g_driver.cuDeviceGetCount(&count); r != CUDA_SUCCESS || ordinal < 0)
    return g_driver.cuDeviceGet(device, ordinal);
  if (static_cast<unsigned>(ordinal) >= VisibleCount()) return CUDA_ERROR_INVALID_DEVICE;
  return g_driver.cuDeviceGet(device, VisibleAt(static_cast<unsigned>(ordinal)));
}

CUresult hook_cuDeviceGetByPCIBusId(CUdevice_v1* dev, const char* pciBusId) noexcept {
  DIVVY_ENTER(cuDeviceGetByPCIBusId, (dev, pciBusId));
  CUdevice found = 0;
  const CUresult r = g_driver.cuDeviceGetByPCIBusId(dev != nullptr ? &found : nullptr, pciBusId);
  if (r != CUDA_SUCCESS) return r;
  if (!DeviceAllowed(found, DriverSymbol::cuDeviceGetByPCIBusId)) return CUDA_ERROR_INVALID_DEVICE;
  *dev = found;
  return r;
}

}  // namespace divvy::shim
