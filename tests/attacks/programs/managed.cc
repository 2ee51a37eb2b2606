// Managed memory, taken lazily and then moved to the device at once. `managed`.
#include "tests/attacks/attack.h"

int main() {
  const auto cu = attack::Driver(attack::ByName());
  const CUresult entered = attack::Enter(cu);
  if (entered != CUDA_SUCCESS) return attack::Report({.last = entered, .note = "no context"});
  return attack::Report(attack::TakeAll([&](size_t bytes) {
    CUdeviceptr p = 0;
    CUresult r = cu.cuMemAllocManaged(&p, bytes, CU_MEM_ATTACH_GLOBAL);
    if (r != CUDA_SUCCESS) return r;
    r = cu.cuMemPrefetchAsync_v2(p, bytes, {CU_MEM_LOCATION_TYPE_DEVICE, 0}, 0, nullptr);
    if (r == CUDA_ERROR_NOT_SUPPORTED || r == CUDA_ERROR_NOT_FOUND) r = CUDA_SUCCESS;
    return r == CUDA_SUCCESS ? cu.cuCtxSynchronize() : r;
  }));
}
