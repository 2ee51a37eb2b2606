// Linear device memory: cuMemAlloc, cuMemAllocPitch, cuMemFree, cuMemGetInfo (CUDA Driver API,
// "Memory Management"). Requests under 2 MiB share 2 MiB blocks with others of their context,
// larger ones are rounded to whole blocks: what the real driver's free memory shows when one
// allocates.
#include "src/sim/client/memory.h"

#include <sys/mman.h>

#include <algorithm>

#include "src/sim/client/capture.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {

CUresult TakeMemory(Context* c, uint64_t bytes, Range* r) {
  if (bytes > c->device->total_bytes()) return CUDA_ERROR_OUT_OF_MEMORY;
  uint64_t offset;
  if (bytes >= kBlockBytes) {
    if (CUresult e = c->device->TakeBlocks(bytes, &offset)) return e;
    r->block_bytes = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  } else {
    std::lock_guard lock(c->mu);
    auto at = c->small.Take(bytes);
    if (!at) {
      uint64_t chunk;
      if (CUresult e = c->device->TakeBlocks(kBlockBytes, &chunk)) return e;
      c->small.AddChunk(chunk, kBlockBytes);
      at = c->small.Take(bytes);
    }
    offset = *at;
    r->block_bytes = 0;
  }
  r->bytes = bytes;
  r->offset = offset;
  r->base = c->device->base() + offset;
  r->device = c->device;
  r->context = c;
  return CUDA_SUCCESS;
}

void GiveMemory(const Range& r) {
  if (r.block_bytes != 0) {
    r.device->FreeBlocks(r.offset, r.block_bytes);
  } else {
    std::lock_guard lock(r.context->mu);
    r.context->small.Free(r.offset);
    if (auto chunk = r.context->small.PopEmptyChunk()) {
      r.device->FreeBlocks(chunk->offset, chunk->bytes);
    }
  }
}

bool Accessible(uint64_t at, uint64_t bytes, bool write) {
  while (bytes > 0) {
    auto r = AddressMap::Get().Find(at);
    if (!r || r->kind == RangeKind::kReserved || !r->readable || (write && !r->writable)) {
      return false;
    }
    uint64_t here = std::min(bytes, r->base + r->bytes - at);
    at += here;
    bytes -= here;
  }
  return true;
}

void FaultContext(Context* c) {
  int none = CUDA_SUCCESS;
  c->sticky.compare_exchange_strong(none, CUDA_ERROR_ILLEGAL_ADDRESS);
  DropWork(c);
}

void ReleaseContextMemory(Context* c) {
  std::unordered_set<uint64_t> mine;
  std::unordered_map<uint64_t, uint64_t> arrays;
  {
    std::lock_guard lock(c->mu);
    mine.swap(c->allocations);
    arrays.swap(c->array_memory);
  }
  for (auto [offset, block_bytes] : arrays) {
    Range r;
    r.offset = offset;
    r.block_bytes = block_bytes;
    r.device = c->device;
    r.context = c;
    GiveMemory(r);
  }
  for (uint64_t base : mine) {
    if (auto r = AddressMap::Get().Remove(base, RangeKind::kDevice)) GiveMemory(*r);
  }
}

CUresult sim_cuMemAlloc_v2(CUdeviceptr* out, size_t bytes) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (out == nullptr || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult r = RefuseUnsafeCall()) return r;
  Range r;
  if (CUresult e = TakeMemory(c, bytes, &r)) return e;
  {
    std::lock_guard lock(c->mu);
    c->allocations.insert(r.base);
  }
  AddressMap::Get().Insert(r);
  *out = r.base;
  return CUDA_SUCCESS;
}

CUresult sim_cuMemAlloc(CUdeviceptr_v1* out, unsigned int bytes) {
  CUdeviceptr wide;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult r = sim_cuMemAlloc_v2(&wide, bytes)) return r;
  *out = CUdeviceptr_v1(wide);  // 32-bit pointers: as useless on a 64-bit machine as the real one
  return CUDA_SUCCESS;
}

CUresult sim_cuMemAllocPitch_v2(CUdeviceptr* out, size_t* pitch, size_t width, size_t height,
                                unsigned int element) {
  if (out == nullptr || pitch == nullptr || width == 0 || height == 0 ||
      (element != 4 && element != 8 && element != 16)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  size_t rounded = (width + 511) & ~size_t(511);
  if (height > SIZE_MAX / rounded) return CUDA_ERROR_OUT_OF_MEMORY;
  if (CUresult r = sim_cuMemAlloc_v2(out, rounded * height)) return r;
  *pitch = rounded;
  return CUDA_SUCCESS;
}

CUresult sim_cuMemFree_v2(CUdeviceptr ptr) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (ptr == 0) return CUDA_SUCCESS;
  auto found = AddressMap::Get().Find(ptr);
  if (!found || found->base != ptr) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult r = RefuseUnsafeCall()) return r;
  switch (found->kind) {
    case RangeKind::kDevice: {
      if (CUresult r = FinishWorkOn(found->context)) return r;
      auto r = AddressMap::Get().Remove(ptr, RangeKind::kDevice);
      if (!r) return CUDA_ERROR_INVALID_VALUE;
      {
        std::lock_guard lock(r->context->mu);
        r->context->allocations.erase(ptr);
      }
      GiveMemory(*r);
      return CUDA_SUCCESS;
    }
    case RangeKind::kManaged:
      return FreeManaged(ptr);
    case RangeKind::kPool:
      return FreePoolNow(ptr);
    case RangeKind::kGraph:
      if (CUresult r = FinishWorkOn(found->context)) return r;
      return FreeGraphMemory(ptr);
    case RangeKind::kExternal: {  // a buffer of external memory: only the mapping goes
      if (CUresult r = FinishWorkOn(c)) return r;
      auto r = AddressMap::Get().Remove(ptr, RangeKind::kExternal);
      if (!r) return CUDA_ERROR_INVALID_VALUE;
      uint64_t first = ptr & ~4095ull;
      munmap(reinterpret_cast<void*>(first), ptr + r->bytes - first);
      return CUDA_SUCCESS;
    }
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult sim_cuMemFree(CUdeviceptr_v1 ptr) { return sim_cuMemFree_v2(ptr); }

CUresult sim_cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (free_bytes == nullptr || total == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *free_bytes = c->device->free_bytes();
  *total = c->device->total_bytes();
  return CUDA_SUCCESS;
}

CUresult sim_cuMemGetInfo(unsigned int* free_bytes, unsigned int* total) {
  size_t f, t;
  if (CUresult r = sim_cuMemGetInfo_v2(&f, &t)) return r;
  if (free_bytes == nullptr || total == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *free_bytes = f > 0xFFFFFFFF ? 0xFFFFFFFF : unsigned(f);
  *total = t > 0xFFFFFFFF ? 0xFFFFFFFF : unsigned(t);
  return CUDA_SUCCESS;
}

CUresult sim_cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* bytes, CUdeviceptr ptr) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  auto found = AddressMap::Get().Find(ptr);
  if (!found) return CUDA_ERROR_NOT_FOUND;
  if (base != nullptr) *base = found->base;
  if (bytes != nullptr) *bytes = found->bytes;
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
