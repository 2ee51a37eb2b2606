// The stream-ordered allocator's calls (CUDA Driver API, "Stream Ordered Memory Allocator").
#include <string.h>
#include <unistd.h>

#include "src/sim/client/capture.h"
#include "src/sim/client/pools.h"
#include "src/sim/client/vmm.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

CUresult FindDevice(CUdevice dev, Device** out) {
  if (CUresult r = Process::Get().Ready()) return r;
  *out = Process::Get().device(dev);
  return *out == nullptr ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

// Pools of host memory are not simulated.
CUresult FindDevice(const CUmemLocation* location, CUmemAllocationType type, Device** out) {
  if (location == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (location->type != CU_MEM_LOCATION_TYPE_DEVICE || type != CU_MEM_ALLOCATION_TYPE_PINNED) {
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  return FindDevice(location->id, out);
}

CUresult FindPool(CUmemoryPool handle, Pool** out) {
  if (CUresult r = Process::Get().Ready()) return r;
  *out = Pool::From(handle);
  return *out == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult Alloc(CUdeviceptr* out, size_t bytes, Pool* pool, Stream* s) {
  if (out == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  bool captured;
  if (CUresult r = IsCaptured(s, &captured)) return r;
  if (captured) return CaptureAlloc(s, bytes, pool, out);
  return AllocFromPool(pool, bytes, s, out);
}

// What a CUmemPoolPtrExportData holds.
struct PointerToken {
  uint64_t name, within, bytes, pid;
};
static_assert(sizeof(PointerToken) <= sizeof(CUmemPoolPtrExportData));

}  // namespace

CUresult sim_cuDeviceGetDefaultMemPool(CUmemoryPool* out, CUdevice dev) {
  Device* d;
  if (CUresult r = FindDevice(dev, &d)) return r;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = DefaultPool(d)->handle();
  return CUDA_SUCCESS;
}
CUresult sim_cuDeviceGetMemPool(CUmemoryPool* out, CUdevice dev) {
  Device* d;
  if (CUresult r = FindDevice(dev, &d)) return r;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = CurrentPool(d)->handle();
  return CUDA_SUCCESS;
}
CUresult sim_cuDeviceSetMemPool(CUdevice dev, CUmemoryPool handle) {
  Device* d;
  Pool* p;
  if (CUresult r = FindDevice(dev, &d)) return r;
  if (CUresult r = FindPool(handle, &p)) return r;
  if (p->device() != d) return CUDA_ERROR_INVALID_VALUE;  // "The memory pool must be local"
  DefaultPool(d);
  std::lock_guard lock(d->mu);
  d->current_pool = p;
  return CUDA_SUCCESS;
}
CUresult sim_cuMemGetDefaultMemPool(CUmemoryPool* out, CUmemLocation* location,
                                    CUmemAllocationType type) {
  Device* d;
  if (CUresult r = FindDevice(location, type, &d)) return r;
  return sim_cuDeviceGetDefaultMemPool(out, d->ordinal());
}
CUresult sim_cuMemGetMemPool(CUmemoryPool* out, CUmemLocation* location, CUmemAllocationType type) {
  Device* d;
  if (CUresult r = FindDevice(location, type, &d)) return r;
  return sim_cuDeviceGetMemPool(out, d->ordinal());
}
CUresult sim_cuMemSetMemPool(CUmemLocation* location, CUmemAllocationType type, CUmemoryPool pool) {
  Device* d;
  if (CUresult r = FindDevice(location, type, &d)) return r;
  return sim_cuDeviceSetMemPool(d->ordinal(), pool);
}

CUresult sim_cuMemPoolCreate(CUmemoryPool* out, const CUmemPoolProps* props) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (CUresult r = RefuseUnsafeCall()) return r;
  if (out == nullptr || props == nullptr || props->allocType != CU_MEM_ALLOCATION_TYPE_PINNED ||
      (props->handleTypes & ~CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Device* d;
  if (CUresult r = FindDevice(&props->location, props->allocType, &d)) return r;
  *out = MakePool(d, *props, false)->handle();
  return CUDA_SUCCESS;
}

// "If any pointers obtained from this pool haven't been freed ... the memory pool may not be
// destroyed until [they] are": its memory goes with them; here what is free goes now.
CUresult sim_cuMemPoolDestroy(CUmemoryPool handle) {
  Pool* p;
  if (CUresult r = FindPool(handle, &p)) return r;
  if (CUresult r = RefuseUnsafeCall()) return r;
  if (p->built_in()) return CUDA_ERROR_INVALID_VALUE;
  Device* d = p->device();
  {
    std::lock_guard lock(d->mu);
    // "if it is the current pool of its device, the default pool becomes current"
    if (d->current_pool == p) d->current_pool = d->default_pool;
  }
  p->destroyed = true;
  p->Trim(0);
  return CUDA_SUCCESS;
}

CUresult sim_cuMemPoolTrimTo(CUmemoryPool handle, size_t keep) {
  Pool* p;
  if (CUresult r = FindPool(handle, &p)) return r;
  if (CUresult r = RefuseUnsafeCall()) return r;
  p->Trim(keep);
  return CUDA_SUCCESS;
}
CUresult sim_cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attr, void* value) {
  Pool* p;
  if (CUresult r = FindPool(handle, &p)) return r;
  if (CUresult r = RefuseUnsafeCall()) return r;
  return value == nullptr ? CUDA_ERROR_INVALID_VALUE : p->Get(attr, value);
}
CUresult sim_cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attr, void* value) {
  Pool* p;
  if (CUresult r = FindPool(handle, &p)) return r;
  if (CUresult r = RefuseUnsafeCall()) return r;
  return value == nullptr ? CUDA_ERROR_INVALID_VALUE : p->Set(attr, value);
}
CUresult sim_cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc* map, size_t count) {
  Pool* p;
  if (CUresult r = FindPool(handle, &p)) return r;
  for (size_t i = 0; i < count; ++i) {
    Device* d;
    if (map == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (CUresult r = FindDevice(&map[i].location, CU_MEM_ALLOCATION_TYPE_PINNED, &d)) return r;
    // "a device's access to its own pool cannot be revoked"
    if (d == p->device() && map[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE) {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  return CUDA_SUCCESS;
}
CUresult sim_cuMemPoolGetAccess(CUmemAccess_flags* flags, CUmemoryPool handle,
                                CUmemLocation* location) {
  Pool* p;
  if (CUresult r = FindPool(handle, &p)) return r;
  Device* d;
  if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult r = FindDevice(location, CU_MEM_ALLOCATION_TYPE_PINNED, &d)) return r;
  *flags = d == p->device() ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE;
  return CUDA_SUCCESS;
}

CUresult sim_cuMemAllocAsync(CUdeviceptr* out, size_t bytes, CUstream stream) {
  Stream* s;
  if (CUresult r = EnterStream(stream, &s)) return r;
  return Alloc(out, bytes, CurrentPool(s->context->device), s);
}
CUresult sim_cuMemAllocFromPoolAsync(CUdeviceptr* out, size_t bytes, CUmemoryPool handle,
                                     CUstream stream) {
  Stream* s;
  Pool* p;
  if (CUresult r = EnterStream(stream, &s)) return r;
  if (CUresult r = FindPool(handle, &p)) return r;
  return Alloc(out, bytes, p, s);
}
CUresult sim_cuMemFreeAsync(CUdeviceptr ptr, CUstream stream) {
  Stream* s;
  if (CUresult r = EnterStream(stream, &s)) return r;
  bool captured;
  if (CUresult r = IsCaptured(s, &captured)) return r;
  if (captured) return CaptureFree(s, ptr);
  auto r = AddressMap::Get().FindExact(ptr, RangeKind::kDevice);
  if (r) return sim_cuMemFree_v2(ptr);  // memory of cuMemAlloc: allowed, synchronises
  if (AddressMap::Get().FindExact(ptr, RangeKind::kGraph)) return FreeGraphMemoryAsync(ptr, s);
  return FreeAsync(ptr, s);
}

CUresult sim_cuMemPoolExportToShareableHandle(void* out, CUmemoryPool handle,
                                              CUmemAllocationHandleType type,
                                              unsigned long long flags) {
  Pool* p;
  if (CUresult r = FindPool(handle, &p)) return r;
  if (out == nullptr || flags != 0 || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ||
      (p->props().handleTypes & type) == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  ShareToken token;
  token.device = p->device()->index();
  token.pid = uint64_t(getpid());
  int fd = MakeTokenFd(token);
  if (fd < 0) return CUDA_ERROR_OPERATING_SYSTEM;
  memcpy(out, &fd, sizeof fd);
  return CUDA_SUCCESS;
}

CUresult sim_cuMemPoolImportFromShareableHandle(CUmemoryPool* out, void* handle,
                                                CUmemAllocationHandleType type,
                                                unsigned long long flags) {
  if (CUresult r = Process::Get().Ready()) return r;
  ShareToken token;
  if (out == nullptr || flags != 0 || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ||
      !ReadTokenFd(int(reinterpret_cast<intptr_t>(handle)), &token)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Device* d = Process::Get().physical(uint32_t(token.device));
  if (d == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  CUmemPoolProps props{};
  props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  props.location = {CU_MEM_LOCATION_TYPE_DEVICE, d->ordinal()};
  props.maxSize = 1;  // "imported memory pools do not support creating new allocations"
  *out = MakePool(d, props, false)->handle();
  return CUDA_SUCCESS;
}

CUresult sim_cuMemPoolExportPointer(CUmemPoolPtrExportData* out, CUdeviceptr ptr) {
  if (CUresult r = Process::Get().Ready()) return r;
  auto r = AddressMap::Get().FindExact(ptr, RangeKind::kPool);
  if (out == nullptr || !r || r->import_id != 0 || r->pool->props().handleTypes == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  PointerToken t{};
  uint64_t chunk_bytes;
  t.name = r->pool->ExportChunk(r->offset, &t.within, &chunk_bytes);
  t.bytes = r->bytes;
  t.pid = uint64_t(getpid());
  if (t.name == 0) return CUDA_ERROR_OPERATING_SYSTEM;
  memset(out, 0, sizeof *out);
  memcpy(out, &t, sizeof t);
  return CUDA_SUCCESS;
}

CUresult sim_cuMemPoolImportPointer(CUdeviceptr* out, CUmemoryPool handle,
                                    CUmemPoolPtrExportData* data) {
  Pool* p;
  if (CUresult r = FindPool(handle, &p)) return r;
  if (out == nullptr || data == nullptr) return CUDA_ERROR_INVALID_VALUE;
  PointerToken t;
  memcpy(&t, data, sizeof t);
  Imported in;
  if (CUresult r = ImportBlocks(t.name, &in)) return r;
  uint64_t at = t.within + t.bytes <= in.bytes ? MapImported(in, t.within, t.bytes) : 0;
  if (at == 0) {
    UnimportBlocks(in.id);
    return CUDA_ERROR_INVALID_VALUE;
  }
  Context* c;
  Range r;
  r.base = at;
  r.bytes = t.bytes;
  r.kind = RangeKind::kPool;
  r.device = in.device;
  r.context = Enter(&c) == CUDA_SUCCESS ? c : nullptr;
  r.import_id = in.id;
  r.pool = p;
  AddressMap::Get().Insert(r);
  *out = at;
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
