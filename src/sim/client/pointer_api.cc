// What a pointer is (CUDA Driver API, "Unified Addressing": cuPointerGetAttribute).
#include <string.h>

#include "src/sim/client/stream.h"
#include "src/sim/client/vmm.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

bool IsHost(const Range& r) {
  return r.kind == RangeKind::kHost || r.kind == RangeKind::kRegistered;
}

template <typename T>
CUresult Put(void* data, T value) {
  memcpy(data, &value, sizeof value);
  return CUDA_SUCCESS;
}

CUresult Get(void* data, CUpointer_attribute attribute, CUdeviceptr ptr, const Range& r) {
  switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      // Mapped and pool memory belongs to no context.
      if (r.kind == RangeKind::kMapped || r.kind == RangeKind::kReserved ||
          r.kind == RangeKind::kPool || r.context == nullptr) {
        return Put<CUcontext>(data, nullptr);
      }
      return Put(data, r.context->handle());
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      return Put<unsigned>(data, IsHost(r) ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE);
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      return Put<CUdeviceptr>(data, ptr);
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
      if (!IsHost(r) && r.kind != RangeKind::kManaged) return CUDA_ERROR_INVALID_VALUE;
      return Put<void*>(data, reinterpret_cast<void*>(ptr));
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
      return Put<int>(data, r.sync_memops);
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
      return Put<unsigned long long>(data, r.id);
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      return Put<int>(data, r.kind == RangeKind::kManaged);
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      if (r.device != nullptr) return Put<int>(data, r.device->ordinal());
      return Put<int>(data, r.context != nullptr ? r.context->device->ordinal() : 0);
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
      return Put<int>(data, r.kind == RangeKind::kDevice);
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
      return Put<CUdeviceptr>(data, r.base);
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
      return Put<size_t>(data, r.bytes);
    case CU_POINTER_ATTRIBUTE_MAPPED:
      return Put<int>(data, r.kind != RangeKind::kReserved);
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
      return Put<unsigned long long>(
          data, r.physical != nullptr ? r.physical->prop.requestedHandleTypes : 0);
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
      return Put<int>(data, 0);
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
      return Put<unsigned long long>(data, r.writable   ? CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE
                                           : r.readable ? CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READ
                                                        : CU_POINTER_ATTRIBUTE_ACCESS_FLAG_NONE);
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
      return Put<void*>(data, r.pool);
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
      return Put<size_t>(data, r.bytes);
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
      return Put<CUdeviceptr>(data, r.base);
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
      return Put<unsigned long long>(data, r.id);
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
      return Put<int>(data, 0);
    case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
  return CUDA_ERROR_INVALID_VALUE;
}

}  // namespace

CUresult sim_cuPointerGetAttribute(void* data, CUpointer_attribute attribute, CUdeviceptr ptr) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (data == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto r = AddressMap::Get().Find(ptr);
  if (!r) return CUDA_ERROR_INVALID_VALUE;
  return Get(data, attribute, ptr, *r);
}

// "If ptr was not allocated by, mapped by, or registered with a CUcontext which uses UVA", the
// values are zero and the call succeeds.
CUresult sim_cuPointerGetAttributes(unsigned int count, CUpointer_attribute* attributes,
                                    void** data, CUdeviceptr ptr) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (count == 0 || attributes == nullptr || data == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto r = AddressMap::Get().Find(ptr);
  for (unsigned i = 0; i < count; ++i) {
    if (r && Get(data[i], attributes[i], ptr, *r) == CUDA_SUCCESS) continue;
    switch (attributes[i]) {
      case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        Put<unsigned>(data[i], 0);
        break;
      case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        Put<int>(data[i], CU_DEVICE_INVALID);
        break;
      case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
      case CU_POINTER_ATTRIBUTE_IS_MANAGED:
      case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
      case CU_POINTER_ATTRIBUTE_MAPPED:
      case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
      case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
        Put<int>(data[i], 0);
        break;
      case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
        break;
      default:
        Put<uint64_t>(data[i], 0);
    }
  }
  return CUDA_SUCCESS;
}

CUresult sim_cuPointerSetAttribute(const void* value, CUpointer_attribute attribute,
                                   CUdeviceptr ptr) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  auto r = AddressMap::Get().Find(ptr);
  if (value == nullptr || !r || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  int on;
  memcpy(&on, value, sizeof on);
  AddressMap::Get().Update(r->base, r->kind, [on](Range& x) { x.sync_memops = on != 0; });
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
