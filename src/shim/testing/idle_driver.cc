#include "src/shim/testing/idle_driver.h"

#include <string.h>

#include "src/shim/driver.h"

namespace divvy::shim::testing {
namespace {

uint64_t next_pointer = 0x700000000000, last_freed = 0;
bool always_fresh = false;

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
  if (last_freed != 0 && !always_fresh) {
    *out = last_freed;
    last_freed = 0;
  } else {
    *out = next_pointer += 4096;
  }
  return CUDA_SUCCESS;
}
CUresult Free(CUdeviceptr pointer) {
  last_freed = pointer;
  return CUDA_SUCCESS;
}
CUresult Info(size_t* free, size_t* total) {
  *free = *total = size_t{80} << 30;
  return CUDA_SUCCESS;
}
CUresult Launch(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                CUstream, void**, void**) {
  return CUDA_SUCCESS;
}
CUresult WaitEvent(CUstream, CUevent, unsigned) { return CUDA_SUCCESS; }
CUresult Register(void*, size_t, unsigned) { return CUDA_SUCCESS; }
CUresult DevicePointer(CUdeviceptr* out, void* p, unsigned) {
  *out = reinterpret_cast<CUdeviceptr>(p);
  return CUDA_SUCCESS;
}
// A device that is so many markers behind.
unsigned behind = 0;
uint64_t queued[16], head = 0;
CUresult Write(CUstream, CUdeviceptr address, cuuint64_t value, unsigned) {
  queued[head++ % 16] = value;
  if (head > behind)
    __atomic_store_n(reinterpret_cast<uint64_t*>(address), queued[(head - 1 - behind) % 16],
                     __ATOMIC_RELEASE);
  return CUDA_SUCCESS;
}
CUresult EventCreate(CUevent* out, unsigned) {
  *out = reinterpret_cast<CUevent>(next_pointer += 64);
  return CUDA_SUCCESS;
}
CUresult EventRecord(CUevent, CUstream) { return CUDA_SUCCESS; }
CUresult EventElapsed(float* ms, CUevent, CUevent) {
  *ms = 0.05F;
  return CUDA_SUCCESS;
}
CUresult StreamGetCtx(CUstream, CUcontext* context) { return Current(context); }
CUresult Exchange(CUstreamCaptureMode*) { return CUDA_SUCCESS; }
CUresult Query(CUstream) { return CUDA_SUCCESS; }

}  // namespace

void SetMarkersBehind(unsigned markers) { behind = markers; }
void SetAlwaysFresh(bool fresh) { always_fresh = fresh; }

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
  f.cuMemHostRegister_v2 = Register;
  f.cuMemHostGetDevicePointer_v2 = DevicePointer;
  f.cuStreamWriteValue64_v2 = Write;
  f.cuEventCreate = EventCreate;
  f.cuEventRecord = EventRecord;
  f.cuEventElapsedTime = EventElapsed;
  f.cuStreamGetCtx = StreamGetCtx;
  f.cuThreadExchangeStreamCaptureMode = Exchange;
  f.cuStreamQuery = Query;
  BindDriverForTest(f);
}

}  // namespace divvy::shim::testing
