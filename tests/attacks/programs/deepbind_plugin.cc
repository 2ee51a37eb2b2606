// A library that a program loads with RTLD_DEEPBIND: its own references go to its own dependencies
// first, past everything preloaded. Built twice: linked to the driver, and asking dlsym.
#include "tests/attacks/attack.h"

#ifdef ATTACK_LINKED
extern "C" {
CUresult cuInit(unsigned);
CUresult cuDevicePrimaryCtxRetain(CUcontext*, CUdevice);
CUresult cuCtxSetCurrent(CUcontext);
CUresult cuMemAlloc_v2(CUdeviceptr*, size_t);
}
#endif

extern "C" __attribute__((visibility("default"))) void plugin_take(attack::Holding* out) {
#ifdef ATTACK_LINKED
  CUcontext context = nullptr;
  CUresult r = cuInit(0);
  if (r == CUDA_SUCCESS) r = cuDevicePrimaryCtxRetain(&context, 0);
  if (r == CUDA_SUCCESS) r = cuCtxSetCurrent(context);
  out->last = r;
  if (r != CUDA_SUCCESS) return;
  *out = attack::TakeAll([](size_t bytes) {
    CUdeviceptr p = 0;
    return cuMemAlloc_v2(&p, bytes);
  });
#else
  *out = attack::EnterAndTake(attack::Driver(attack::ByName()));
#endif
}
