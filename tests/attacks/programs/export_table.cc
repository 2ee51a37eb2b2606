// The driver's private tables: one slot gives a device's primary context without any exported
// function being called. Then memory by the ordinary path, in a context that nobody saw begin.
//   export_table context   only the context, never made current (for a share smaller than it)
//   export_table memory    made current, and all the share on top
#include <cstring>

#include "src/abi/export_tables.h"
#include "tests/attacks/attack.h"

int main(int, char** argv) {
  const auto cu = attack::Driver(attack::ByName());
  CUresult r = cu.cuInit(0);
  const void* table = nullptr;
  if (r == CUDA_SUCCESS) r = cu.cuGetExportTable(&table, &divvy::abi::kCudartInterface.id);
  if (r != CUDA_SUCCESS) return attack::Report({.last = r, .note = "no table"});
  using Primary = CUresult (*)(CUcontext*, CUdevice);
  const auto primary = reinterpret_cast<Primary>(
      static_cast<void* const*>(table)[divvy::abi::kCudartPrimaryContextSlot]);
  CUcontext context = nullptr;
  r = primary(&context, 0);
  if (std::strcmp(argv[1], "context") == 0)
    return attack::Report({.last = r, .note = "context only"});
  if (r == CUDA_SUCCESS) r = cu.cuCtxSetCurrent(context);
  if (r != CUDA_SUCCESS) return attack::Report({.last = r, .note = "no context"});
  return attack::Report(attack::TakeLinear(cu));
}
