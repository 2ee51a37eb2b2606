#include "src/shim/testing/fake_driver.h"

#include <stdlib.h>
#include <string.h>

#include "src/shim/driver.h"
#include "src/shim/generated/hooks.h"

namespace divvy::shim::testing {

FakeDriver& Fake() {
  static FakeDriver driver;
  return driver;
}

namespace {

#define FAIL_ON_DEMAND(name)                                        \
  ++Fake().calls;                                                   \
  if (Fake().during) Fake().during(#name);                          \
  if (auto it = Fake().fail.find(#name); it != Fake().fail.end()) { \
    const CUresult code = it->second;                               \
    Fake().fail.erase(it);                                          \
    return code;                                                    \
  }                                                                 \
  static_assert(true, "")

CUresult Init(unsigned) {
  FAIL_ON_DEMAND(cuInit);
  const char* visible = getenv("CUDA_VISIBLE_DEVICES");
  Fake().visible = visible != nullptr ? visible : "(unset)";
  Fake().initialised = true;
  return CUDA_SUCCESS;
}
CUresult DeviceGetCount(int* count) {
  if (!Fake().initialised) return CUDA_ERROR_NOT_INITIALIZED;
  *count = static_cast<int>(Fake().devices);
  return CUDA_SUCCESS;
}
CUresult DeviceGet(CUdevice* device, int ordinal) {
  if (ordinal < 0 || ordinal >= static_cast<int>(Fake().devices)) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}
CUresult DeviceGetUuid(CUuuid* uuid, CUdevice device) {
  if (device < 0 || device >= static_cast<int>(Fake().devices)) return CUDA_ERROR_INVALID_DEVICE;
  memset(uuid->bytes, device + 1, 16);
  return CUDA_SUCCESS;
}
CUresult TotalMem(size_t* bytes, CUdevice) {
  if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *bytes = Fake().total_bytes;
  return CUDA_SUCCESS;
}
CUresult GetInfo(size_t* free, size_t* total) {
  FAIL_ON_DEMAND(cuMemGetInfo_v2);
  if (Fake().current == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (free != nullptr) *free = Fake().total_bytes - Fake().used_bytes;
  if (total != nullptr) *total = Fake().total_bytes;
  return CUDA_SUCCESS;
}
CUresult ByPciBusId(CUdevice* device, const char* id) {
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *device = atoi(id);
  return CUDA_SUCCESS;
}

CUresult CtxCreate(CUcontext* out, unsigned, CUdevice device) {
  FAIL_ON_DEMAND(cuCtxCreate_v2);
  *out = reinterpret_cast<CUcontext>(Fake().next += 4096);
  Fake().contexts[*out] = device;
  Fake().current = *out;
  return CUDA_SUCCESS;
}
CUresult CtxDestroy(CUcontext context) {
  FAIL_ON_DEMAND(cuCtxDestroy_v2);
  if (Fake().contexts.erase(context) == 0) return CUDA_ERROR_INVALID_CONTEXT;
  if (Fake().current == context) Fake().current = nullptr;
  for (auto& [pointer, bytes] : Fake().linear) Fake().used_bytes -= bytes;
  Fake().linear.clear();
  return CUDA_SUCCESS;
}
CUresult CtxGetCurrent(CUcontext* out) {
  *out = Fake().current;
  return CUDA_SUCCESS;
}
CUresult CtxSetCurrent(CUcontext context) {
  Fake().current = context;
  return CUDA_SUCCESS;
}
CUresult CtxGetDevice(CUdevice* out) {
  if (Fake().current == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *out = Fake().contexts[Fake().current];
  return CUDA_SUCCESS;
}
CUcontext Primary() { return reinterpret_cast<CUcontext>(uint64_t{0x100000}); }
CUresult PrimaryRetain(CUcontext* out, CUdevice device) {
  FAIL_ON_DEMAND(cuDevicePrimaryCtxRetain);
  ++Fake().primary_refs;
  *out = Primary();
  Fake().contexts[*out] = device;
  return CUDA_SUCCESS;
}
CUresult PrimaryRelease(CUdevice) {
  FAIL_ON_DEMAND(cuDevicePrimaryCtxRelease_v2);
  if (Fake().primary_refs == 0) return CUDA_ERROR_INVALID_CONTEXT;
  if (--Fake().primary_refs == 0) Fake().contexts.erase(Primary());
  return CUDA_SUCCESS;
}
CUresult PrimaryState(CUdevice, unsigned* flags, int* active) {
  *flags = 0;
  *active = Fake().contexts.count(Primary()) != 0;
  return CUDA_SUCCESS;
}

CUresult TakeLinear(CUdeviceptr* out, uint64_t bytes, std::map<uint64_t, uint64_t>& where) {
  if (out == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (Fake().current == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (bytes > Fake().total_bytes - Fake().used_bytes) return CUDA_ERROR_OUT_OF_MEMORY;
  Fake().used_bytes += bytes;
  *out = Fake().next += (bytes + 4095) & ~uint64_t{4095};
  where[*out] = bytes;
  return CUDA_SUCCESS;
}
CUresult MemAlloc(CUdeviceptr* out, size_t bytes) {
  FAIL_ON_DEMAND(cuMemAlloc_v2);
  return TakeLinear(out, bytes, Fake().linear);
}
CUresult MemAllocManaged(CUdeviceptr* out, size_t bytes, unsigned) {
  FAIL_ON_DEMAND(cuMemAllocManaged);
  return TakeLinear(out, bytes, Fake().linear);
}
CUresult MemAllocPitch(CUdeviceptr* out, size_t* pitch, size_t width, size_t height, unsigned) {
  FAIL_ON_DEMAND(cuMemAllocPitch_v2);
  *pitch = (width + 2047) & ~size_t{2047};  // longer rows than the shim expects
  return TakeLinear(out, *pitch * height, Fake().linear);
}
CUresult MemFree(CUdeviceptr pointer) {
  FAIL_ON_DEMAND(cuMemFree_v2);
  if (auto it = Fake().pooled.find(pointer); it != Fake().pooled.end()) {
    FakePool& p = Fake().pools[it->second.first];
    p.used -= it->second.second;
    Fake().pooled.erase(it);
    return CUDA_SUCCESS;
  }
  auto it = Fake().linear.find(pointer);
  if (it == Fake().linear.end()) return CUDA_ERROR_INVALID_VALUE;
  Fake().used_bytes -= it->second;
  Fake().linear.erase(it);
  return CUDA_SUCCESS;
}
CUresult Array3DCreate(CUarray* out, const CUDA_ARRAY3D_DESCRIPTOR_v2*) {
  FAIL_ON_DEMAND(cuArray3DCreate_v2);
  *out = reinterpret_cast<CUarray>(Fake().next += 4096);
  return CUDA_SUCCESS;
}
CUresult ArrayDestroy(CUarray) {
  FAIL_ON_DEMAND(cuArrayDestroy);
  return CUDA_SUCCESS;
}

void SettlePhysical(uint64_t handle) {
  FakePhysical& p = Fake().physical[handle];
  if (p.handles != 0 || p.mappings != 0) return;
  Fake().used_bytes -= p.bytes;
  Fake().physical.erase(handle);
}
CUresult MemCreate(CUmemGenericAllocationHandle* out, size_t bytes, const CUmemAllocationProp*,
                   unsigned long long) {
  FAIL_ON_DEMAND(cuMemCreate);
  *out = Fake().next += 4096;
  Fake().physical[*out] = {bytes, 1, 0};
  Fake().used_bytes += bytes;
  return CUDA_SUCCESS;
}
CUresult MemRelease(CUmemGenericAllocationHandle handle) {
  FAIL_ON_DEMAND(cuMemRelease);
  auto it = Fake().physical.find(handle);
  if (it == Fake().physical.end() || it->second.handles == 0) return CUDA_ERROR_INVALID_VALUE;
  --it->second.handles;
  SettlePhysical(handle);
  return CUDA_SUCCESS;
}
CUresult MemMap(CUdeviceptr at, size_t bytes, size_t, CUmemGenericAllocationHandle handle,
                unsigned long long) {
  FAIL_ON_DEMAND(cuMemMap);
  if (Fake().mapped.count(at) != 0 || Fake().physical.count(handle) == 0)
    return CUDA_ERROR_INVALID_VALUE;
  Fake().mapped[at] = {handle, bytes};
  ++Fake().physical[handle].mappings;
  return CUDA_SUCCESS;
}
CUresult MemUnmap(CUdeviceptr at, size_t bytes) {
  FAIL_ON_DEMAND(cuMemUnmap);
  for (uint64_t p = at; p < at + bytes;) {
    auto it = Fake().mapped.find(p);
    if (it == Fake().mapped.end()) return CUDA_ERROR_INVALID_VALUE;
    const auto [handle, size] = it->second;
    Fake().mapped.erase(it);
    --Fake().physical[handle].mappings;
    SettlePhysical(handle);
    p += size;
  }
  return CUDA_SUCCESS;
}
CUresult MemRetain(CUmemGenericAllocationHandle* out, void* address) {
  auto it = Fake().mapped.upper_bound(reinterpret_cast<uint64_t>(address));
  if (it == Fake().mapped.begin()) return CUDA_ERROR_INVALID_VALUE;
  *out = (--it)->second.first;
  ++Fake().physical[*out].handles;
  return CUDA_SUCCESS;
}

CUresult ExchangeMode(CUstreamCaptureMode* mode) {
  if (*mode == CU_STREAM_CAPTURE_MODE_RELAXED) {
    *mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
    ++Fake().exchanges;
  } else {
    *mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    --Fake().exchanges;
  }
  return CUDA_SUCCESS;
}
CUresult PoolAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void* value) {
  if (Fake().exchanges == 0) ++Fake().pool_queries_unguarded;
  auto it = Fake().pools.find(pool);
  if (it == Fake().pools.end()) return CUDA_ERROR_INVALID_VALUE;
  auto* out = static_cast<cuuint64_t*>(value);
  if (attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)
    *out = it->second.reserved;
  else if (attribute == CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
    *out = it->second.used;
  else
    return CUDA_ERROR_INVALID_VALUE;
  return CUDA_SUCCESS;
}
CUresult PoolTrim(CUmemoryPool pool, size_t keep) {
  FakePool& p = Fake().pools[pool];
  // Frees that the device had not come to have completed by the next look.
  const uint64_t need = (p.used + p.step - 1) / p.step * p.step;
  p.used -= p.pending;
  p.pending = 0;
  uint64_t least = need > keep ? need : keep;
  if (least < p.reserved) {
    Fake().used_bytes -= p.reserved - least;
    p.reserved = least;
  }
  return CUDA_SUCCESS;
}
CUresult AllocFromPool(CUdeviceptr* out, size_t bytes, CUmemoryPool pool, CUstream) {
  FAIL_ON_DEMAND(cuMemAllocFromPoolAsync);
  FakePool& p = Fake().pools[pool];
  p.used += bytes;
  if (p.used > p.reserved) {
    const uint64_t reserved = (p.used + p.step - 1) / p.step * p.step;
    Fake().used_bytes += reserved - p.reserved;
    p.reserved = reserved;
  }
  *out = Fake().next += (bytes + 4095) & ~uint64_t{4095};
  Fake().pooled[*out] = {pool, bytes};
  return CUDA_SUCCESS;
}
CUresult AllocAsync(CUdeviceptr* out, size_t bytes, CUstream stream) {
  FAIL_ON_DEMAND(cuMemAllocAsync);
  return AllocFromPool(out, bytes, DefaultPool(0), stream);
}
CUresult FreeAsync(CUdeviceptr pointer, CUstream) {
  FAIL_ON_DEMAND(cuMemFreeAsync);
  auto it = Fake().pooled.find(pointer);
  if (it == Fake().pooled.end()) return CUDA_ERROR_INVALID_VALUE;
  FakePool& p = Fake().pools[it->second.first];
  if (p.frees_complete_at_once)
    p.used -= it->second.second;
  else
    p.pending += it->second.second;
  Fake().pooled.erase(it);
  return CUDA_SUCCESS;
}
CUresult StreamSynchronize(CUstream) {
  for (auto& [handle, p] : Fake().pools) {
    p.used -= p.pending;
    p.pending = 0;
    if (!p.keeps) PoolTrim(handle, 0);
  }
  return CUDA_SUCCESS;
}
CUresult GetPool(CUmemoryPool* out, CUdevice device) {
  *out = DefaultPool(device);
  return CUDA_SUCCESS;
}
CUresult PoolCreate(CUmemoryPool* out, const CUmemPoolProps*) {
  *out = reinterpret_cast<CUmemoryPool>(Fake().next += 4096);
  Fake().pools[*out];
  return CUDA_SUCCESS;
}
CUresult PoolDestroy(CUmemoryPool pool) {
  Fake().pools.erase(pool);
  return CUDA_SUCCESS;
}

CUresult AddressRange(CUdeviceptr* base, size_t* bytes, CUdeviceptr pointer) {
  auto it = Fake().linear.find(pointer);
  if (it == Fake().linear.end()) return CUDA_ERROR_NOT_FOUND;
  *base = pointer;
  *bytes = it->second;
  return CUDA_SUCCESS;
}
CUresult IpcOpen(CUdeviceptr* out, CUipcMemHandle handle, unsigned) {
  uint64_t bytes;
  memcpy(&bytes, handle.reserved, sizeof(bytes));
  *out = 0x600000000000 + bytes;  // the same handle, the same address
  Fake().linear[*out] = bytes;
  return CUDA_SUCCESS;
}
CUresult IpcClose(CUdeviceptr) { return CUDA_SUCCESS; }
CUresult CtxGetLimit(size_t* value, CUlimit limit) {
  *value = Fake().limits[limit];
  return CUDA_SUCCESS;
}
CUresult CtxSetLimit(CUlimit limit, size_t value) {
  FAIL_ON_DEMAND(cuCtxSetLimit);
  if (limit == CU_LIMIT_STACK_SIZE) value = (value + 511) / 512 * 512;
  Fake().limits[limit] = value;
  return CUDA_SUCCESS;
}
CUresult DeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
  if (attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    *value = Fake().processors;
  else if (attribute == CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)
    *value = Fake().threads;
  else
    return CUDA_ERROR_INVALID_VALUE;
  return CUDA_SUCCESS;
}
CUresult LaunchKernel(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                      unsigned, CUstream, void**, void**) {
  FAIL_ON_DEMAND(cuLaunchKernel);
  return CUDA_SUCCESS;
}

}  // namespace

CUmemoryPool DefaultPool(int device) {
  return reinterpret_cast<CUmemoryPool>(uint64_t{0x200000} + 64 * static_cast<uint64_t>(device));
}

void InstallFakeDriver(unsigned devices) {
  Fake() = {};
  Fake().devices = devices;
  for (unsigned i = 0; i < devices; ++i) Fake().pools[DefaultPool(static_cast<int>(i))];
  abi::DriverFns f{};
  f.cuInit = Init;
  f.cuDeviceGetCount = DeviceGetCount;
  f.cuDeviceGet = DeviceGet;
  f.cuDeviceGetUuid = DeviceGetUuid;
  f.cuDeviceGetUuid_v2 = DeviceGetUuid;
  f.cuDeviceTotalMem_v2 = TotalMem;
  f.cuDeviceGetByPCIBusId = ByPciBusId;
  f.cuMemGetInfo_v2 = GetInfo;
  f.cuCtxCreate_v2 = CtxCreate;
  f.cuCtxDestroy_v2 = CtxDestroy;
  f.cuCtxGetCurrent = CtxGetCurrent;
  f.cuCtxSetCurrent = CtxSetCurrent;
  f.cuCtxGetDevice = CtxGetDevice;
  f.cuDevicePrimaryCtxRetain = PrimaryRetain;
  f.cuDevicePrimaryCtxRelease_v2 = PrimaryRelease;
  f.cuDevicePrimaryCtxGetState = PrimaryState;
  f.cuMemAlloc_v2 = MemAlloc;
  f.cuMemAllocManaged = MemAllocManaged;
  f.cuMemAllocPitch_v2 = MemAllocPitch;
  f.cuMemFree_v2 = MemFree;
  f.cuArray3DCreate_v2 = Array3DCreate;
  f.cuArrayDestroy = ArrayDestroy;
  f.cuMemCreate = MemCreate;
  f.cuMemRelease = MemRelease;
  f.cuMemMap = MemMap;
  f.cuMemUnmap = MemUnmap;
  f.cuMemRetainAllocationHandle = MemRetain;
  f.cuThreadExchangeStreamCaptureMode = ExchangeMode;
  f.cuMemPoolGetAttribute = PoolAttribute;
  f.cuMemPoolTrimTo = PoolTrim;
  f.cuMemAllocAsync = AllocAsync;
  f.cuMemAllocFromPoolAsync = AllocFromPool;
  f.cuMemFreeAsync = FreeAsync;
  f.cuStreamSynchronize = StreamSynchronize;
  f.cuDeviceGetMemPool = GetPool;
  f.cuDeviceGetDefaultMemPool = GetPool;
  f.cuMemPoolCreate = PoolCreate;
  f.cuMemPoolDestroy = PoolDestroy;
  f.cuMemGetAddressRange_v2 = AddressRange;
  f.cuIpcOpenMemHandle_v2 = IpcOpen;
  f.cuIpcCloseMemHandle = IpcClose;
  f.cuLaunchKernel = LaunchKernel;
  f.cuCtxGetLimit = CtxGetLimit;
  f.cuCtxSetLimit = CtxSetLimit;
  f.cuDeviceGetAttribute = DeviceGetAttribute;
  BindDriverForTest(f);
}

CUcontext MakeCurrentContext(int device) {
  CUcontext context = nullptr;
  hook_cuInit(0);
  hook_cuCtxCreate_v2(&context, 0, device);
  return context;
}

}  // namespace divvy::shim::testing
