// A static program with a driver of its own inside: no loader, no preload file, no library to bind
// over. Stands for a static binary that speaks to the kernel's driver by itself. `static_driver`.
#include "tests/attacks/attack.h"

extern "C" {
CUresult cuInit(unsigned);
CUresult cuDevicePrimaryCtxRetain(CUcontext*, CUdevice);
CUresult cuCtxSetCurrent(CUcontext);
CUresult cuMemAlloc_v2(CUdeviceptr*, size_t);
}

int main() {
  CUcontext context = nullptr;
  CUresult r = cuInit(0);
  if (r == CUDA_SUCCESS) r = cuDevicePrimaryCtxRetain(&context, 0);
  if (r == CUDA_SUCCESS) r = cuCtxSetCurrent(context);
  if (r != CUDA_SUCCESS) return attack::Report({.last = r, .note = "no context"});
  return attack::Report(attack::TakeAll([](size_t bytes) {
    CUdeviceptr p = 0;
    return cuMemAlloc_v2(&p, bytes);
  }));
}
