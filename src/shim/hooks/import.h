// Memory of another process that was brought in as a pointer: its size is known once the driver has
// opened it, so it is charged then, and closed again if the share has no room for it.
#pragma once

#include "src/shim/hooks/hook.h"

namespace divvy::shim {

template <typename Close>
CUresult KeepImported(DriverSymbol symbol, CUdeviceptr_v2 pointer, const Offer& offer,
                      const Close& close) noexcept {
  CUdeviceptr_v2 base = 0;
  size_t bytes = 0;
  const Here here = CurrentPlace();
  if (here.device < 0) return CUDA_SUCCESS;
  {
    const RelaxedCapture relaxed;
    if (g_driver.cuMemGetAddressRange_v2(&base, &bytes, pointer) != CUDA_SUCCESS)
      return CUDA_SUCCESS;
  }
  // The same memory opened again has the same address and counts once; each opening is closed.
  const auto opened_again = [pointer] {
    return g_process.live.Update(Family::kPointer, pointer, [](LiveEntry& entry) { ++entry.aux; });
  };
  if (opened_again()) return CUDA_SUCCESS;
  const auto device = static_cast<unsigned>(here.device);
  uint64_t units = region::UnitsOf(bytes);
  bool shared = false;
  if (const Verdict v = ChargeOpened(offer, device, &units, pointer, symbol, &shared);
      v != Verdict::kGranted) {
    close();
    return CodeOf(v);
  }
  const LiveEntry entry{pointer,
                        Family::kPointer,
                        static_cast<uint8_t>(device),
                        static_cast<uint8_t>(Kind::kImport),
                        shared ? kSharedMemory : uint8_t{0},
                        here.context,
                        units,
                        0};
  if (opened_again())  // by another thread meanwhile
    CreditEntry(entry);
  else if (!g_process.live.Insert(entry))
    Degrade(2);
  return CUDA_SUCCESS;
}

}  // namespace divvy::shim
