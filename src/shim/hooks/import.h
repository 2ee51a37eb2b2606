// Memory of another process that was brought in as a pointer: its size is known once the driver has
// opened it, so it is charged then, and closed again if the share has no room for it.
#pragma once

#include "src/shim/hooks/hook.h"

namespace divvy::shim {

template <typename Close>
CUresult KeepImported(DriverSymbol symbol, CUdeviceptr_v2 pointer, const Close& close) noexcept {
  CUdeviceptr_v2 base = 0;
  size_t bytes = 0;
  const Here here = CurrentPlace();
  if (here.device < 0) return CUDA_SUCCESS;
  {
    const RelaxedCapture relaxed;
    if (g_driver.cuMemGetAddressRange_v2(&base, &bytes, pointer) != CUDA_SUCCESS)
      return CUDA_SUCCESS;
  }
  const auto device = static_cast<unsigned>(here.device);
  const uint64_t units = region::UnitsOf(bytes);
  if (const Verdict v = Charge(device, units, Kind::kImport, symbol); v != Verdict::kGranted) {
    close();
    return CodeOf(v);
  }
  // The same memory opened again has the same address and counts once; each opening is closed.
  if (g_process.live.Update(Family::kPointer, pointer, [](LiveEntry& entry) { ++entry.aux; })) {
    Credit(device, units, Kind::kImport);
    return CUDA_SUCCESS;
  }
  if (!g_process.live.Insert({pointer, Family::kPointer, static_cast<uint8_t>(device),
                              static_cast<uint8_t>(Kind::kImport), 0, here.context, units, 0}))
    Degrade(2);
  return CUDA_SUCCESS;
}

}  // namespace divvy::shim
