// cuInit and the device queries of the driver API (CUDA Driver API, "Initialization", "Version
// Management", "Device Management").
#include <string.h>

#include <cstdio>

#include "src/sim/client/device.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

// The device, or why there is none.
CUresult FindDevice(CUdevice dev, Device** out) {
  Process& p = Process::Get();
  if (CUresult r = p.Ready()) return r;
  *out = p.device(dev);
  return *out == nullptr ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

}  // namespace

CUresult sim_cuInit(unsigned int flags) {
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  return Process::Get().Init();
}

CUresult sim_cuDriverGetVersion(int* version) {
  if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}

CUresult sim_cuDeviceGetCount(int* count) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *count = int(Process::Get().devices().size());
  return CUDA_SUCCESS;
}

CUresult sim_cuDeviceGet(CUdevice* device, int ordinal) {
  Device* d;
  if (CUresult r = FindDevice(ordinal, &d)) return r;
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult sim_cuDeviceGetName(char* name, int len, CUdevice dev) {
  Device* d;
  if (CUresult r = FindDevice(dev, &d)) return r;
  if (name == nullptr || len <= 0) return CUDA_ERROR_INVALID_VALUE;
  snprintf(name, size_t(len), "%s", d->profile().name);
  return CUDA_SUCCESS;
}

CUresult sim_cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice dev) {
  Device* d;
  if (CUresult r = FindDevice(dev, &d)) return r;
  if (uuid == nullptr) return CUDA_ERROR_INVALID_VALUE;
  memcpy(uuid->bytes, d->head().uuid, sizeof uuid->bytes);
  return CUDA_SUCCESS;
}

CUresult sim_cuDeviceGetUuid(CUuuid* uuid, CUdevice dev) {
  return sim_cuDeviceGetUuid_v2(uuid, dev);
}

// LUIDs exist on Windows only.
CUresult sim_cuDeviceGetLuid(char*, unsigned int*, CUdevice dev) {
  Device* d;
  if (CUresult r = FindDevice(dev, &d)) return r;
  return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult sim_cuDeviceTotalMem_v2(size_t* bytes, CUdevice dev) {
  Device* d;
  if (CUresult r = FindDevice(dev, &d)) return r;
  if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *bytes = d->total_bytes();
  return CUDA_SUCCESS;
}

CUresult sim_cuDeviceTotalMem(unsigned int* bytes, CUdevice dev) {
  size_t all;
  if (CUresult r = sim_cuDeviceTotalMem_v2(&all, dev)) return r;
  if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *bytes = all > 0xFFFFFFFF ? 0xFFFFFFFF : unsigned(all);
  return CUDA_SUCCESS;
}

CUresult sim_cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice dev) {
  Device* d;
  if (CUresult r = FindDevice(dev, &d)) return r;
  bool known = false;
  int v = d->Attribute(attribute, &known);
  if (value == nullptr || !known) return CUDA_ERROR_INVALID_VALUE;
  *value = v;
  return CUDA_SUCCESS;
}

CUresult sim_cuDeviceComputeCapability(int* major, int* minor, CUdevice dev) {
  Device* d;
  if (CUresult r = FindDevice(dev, &d)) return r;
  if (major == nullptr || minor == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *major = d->profile().cc_major;
  *minor = d->profile().cc_minor;
  return CUDA_SUCCESS;
}

CUresult sim_cuDeviceGetProperties(CUdevprop* prop, CUdevice dev) {
  Device* d;
  if (CUresult r = FindDevice(dev, &d)) return r;
  if (prop == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto get = [d](CUdevice_attribute a) {
    bool known;
    return d->Attribute(a, &known);
  };
  *prop = CUdevprop{.maxThreadsPerBlock = get(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK),
                    .maxThreadsDim = {get(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X),
                                      get(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y),
                                      get(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z)},
                    .maxGridSize = {get(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X),
                                    get(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y),
                                    get(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z)},
                    .sharedMemPerBlock = get(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK),
                    .totalConstantMemory = get(CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY),
                    .SIMDWidth = get(CU_DEVICE_ATTRIBUTE_WARP_SIZE),
                    .memPitch = get(CU_DEVICE_ATTRIBUTE_MAX_PITCH),
                    .regsPerBlock = get(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK),
                    .clockRate = get(CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
                    .textureAlign = get(CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT)};
  return CUDA_SUCCESS;
}

CUresult sim_cuDeviceGetPCIBusId(char* bus_id, int len, CUdevice dev) {
  Device* d;
  if (CUresult r = FindDevice(dev, &d)) return r;
  std::string text = d->PciBusId();
  if (bus_id == nullptr || len <= int(text.size())) return CUDA_ERROR_INVALID_VALUE;
  memcpy(bus_id, text.c_str(), text.size() + 1);
  return CUDA_SUCCESS;
}

CUresult sim_cuDeviceGetByPCIBusId(CUdevice* dev, const char* bus_id) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (dev == nullptr || bus_id == nullptr) return CUDA_ERROR_INVALID_VALUE;
  unsigned domain = 0, bus = 0, slot = 0, function = 0;
  if (sscanf(bus_id, "%x:%x:%x.%x", &domain, &bus, &slot, &function) < 3) {
    domain = 0;
    if (sscanf(bus_id, "%x:%x.%x", &bus, &slot, &function) < 2) return CUDA_ERROR_INVALID_VALUE;
  }
  for (Device* d : Process::Get().devices()) {
    if (domain == 0 && d->head().pci_bus == bus && slot == 0 && function == 0) {
      *dev = d->ordinal();
      return CUDA_SUCCESS;
    }
  }
  return CUDA_ERROR_INVALID_DEVICE;
}

CUresult sim_cuDeviceCanAccessPeer(int* can, CUdevice dev, CUdevice peer) {
  Device *a, *b;
  if (CUresult r = FindDevice(dev, &a)) return r;
  if (CUresult r = FindDevice(peer, &b)) return r;
  if (can == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *can = a != b;
  return CUDA_SUCCESS;
}

CUresult sim_cuDeviceGetP2PAttribute(int* value, CUdevice_P2PAttribute attribute, CUdevice src,
                                     CUdevice dst) {
  Device *a, *b;
  if (CUresult r = FindDevice(src, &a)) return r;
  if (CUresult r = FindDevice(dst, &b)) return r;
  if (value == nullptr || a == b) return CUDA_ERROR_INVALID_VALUE;
  switch (attribute) {
    case CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK:
      *value = 0;
      return CUDA_SUCCESS;
    case CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED:
    case CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED:
      *value = 1;
      return CUDA_SUCCESS;
    case CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED:
      *value = a->profile().nvlink;
      return CUDA_SUCCESS;
    case CU_DEVICE_P2P_ATTRIBUTE_ONLY_PARTIAL_NATIVE_ATOMIC_SUPPORTED:
      *value = 0;
      return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_VALUE;
}

// Compute partitioning by execution affinity is an MPS feature; there is no MPS here.
CUresult sim_cuDeviceGetExecAffinitySupport(int* pi, CUexecAffinityType, CUdevice dev) {
  Device* d;
  if (CUresult r = FindDevice(dev, &d)) return r;
  if (pi == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *pi = 0;
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
