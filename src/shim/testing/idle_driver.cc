#include "src/shim/testing/idle_driver.h"

#include <string.h>

#include "src/shim/driver.h"

namespace divvy::shim::testing {
namespace {

uint64_t next_pointer = 0x700000000000;

CUresult Init(unsigned) { return CUDA_SUCCESS; }
CUresult Count(int* count) {
  *count = 1;
  return CUDA_SUCCESS;
}
CUresult Get(CUdevice* device, int) {
  *device = 0;
  return CUDA_SUCCESS;
}
CUresult Uuid(CUuuid* uuid, CUdevice) {
  memset(uuid->bytes, 1, 16);
  return CUDA_SUCCESS;
}
CUresult Current(CUcontext* context) {
  *context = reinterpret_cast<CUcontext>(uint64_t{0x1000});
  return CUDA_SUCCESS;
}
CUresult Device(CUdevice* device) {
  *device = 0;
  return CUDA_SUCCESS;
}
CUresult Alloc(CUdeviceptr* out, size_t) {
  *out = next_pointer += 4096;
  return CUDA_SUCCESS;
}
CUresult Free(CUdeviceptr) { return CUDA_SUCCESS; }
CUresult Info(size_t* free, size_t* total) {
  *free = *total = size_t{80} << 30;
  return CUDA_SUCCESS;
}
CUresult Launch(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                CUstream, void**, void**) {
  return CUDA_SUCCESS;
}
CUresult WaitEvent(CUstream, CUevent, unsigned) { return CUDA_SUCCESS; }

}  // namespace

void InstallIdleDriver() {
  abi::DriverFns f{};
  f.cuInit = Init;
  f.cuDeviceGetCount = Count;
  f.cuDeviceGet = Get;
  f.cuDeviceGetUuid = Uuid;
  f.cuDeviceGetUuid_v2 = Uuid;
  f.cuCtxGetCurrent = Current;
  f.cuCtxGetDevice = Device;
  f.cuMemAlloc_v2 = Alloc;
  f.cuMemFree_v2 = Free;
  f.cuMemGetInfo_v2 = Info;
  f.cuLaunchKernel = Launch;
  f.cuStreamWaitEvent = WaitEvent;
  BindDriverForTest(f);
}

}  // namespace divvy::shim::testing
