// Pinned host memory (CUDA Driver API, "Memory Management": cuMemHostAlloc, cuMemHostRegister). It
// takes no device memory; the device reaches it at the host's own address.
#include <sys/mman.h>
#include <unistd.h>

#include "src/sim/client/capture.h"
#include "src/sim/client/memory.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

constexpr unsigned kAllocFlags =
    CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
constexpr unsigned kRegisterFlags = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP |
                                    CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY;

uint64_t Pages(uint64_t bytes) { return (bytes + 4095) & ~4095ull; }

}  // namespace

CUresult sim_cuMemHostAlloc(void** out, size_t bytes, unsigned int flags) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (out == nullptr || bytes == 0 || (flags & ~kAllocFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult r = RefuseUnsafeCall()) return r;
  if (bytes > SIZE_MAX / 2) return CUDA_ERROR_OUT_OF_MEMORY;
  void* at =
      mmap(nullptr, Pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  Range r;
  r.base = reinterpret_cast<uint64_t>(at);
  r.bytes = bytes;
  r.kind = RangeKind::kHost;
  r.context = c;
  r.flags = flags;
  AddressMap::Get().Insert(r);
  *out = at;
  return CUDA_SUCCESS;
}
CUresult sim_cuMemAllocHost_v2(void** out, size_t bytes) {
  return sim_cuMemHostAlloc(out, bytes, 0);
}
CUresult sim_cuMemAllocHost(void** out, unsigned int bytes) {
  return sim_cuMemHostAlloc(out, bytes, 0);
}

CUresult sim_cuMemFreeHost(void* ptr) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (ptr == nullptr) return CUDA_SUCCESS;
  if (CUresult r = RefuseUnsafeCall()) return r;
  auto found = AddressMap::Get().FindExact(reinterpret_cast<uint64_t>(ptr), RangeKind::kHost);
  if (!found) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult r = FinishWorkOn(c)) return r;
  AddressMap::Get().Remove(found->base, RangeKind::kHost);
  munmap(ptr, Pages(found->bytes));
  return CUDA_SUCCESS;
}

CUresult sim_cuMemHostRegister_v2(void* ptr, size_t bytes, unsigned int flags) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (ptr == nullptr || bytes == 0 || (flags & ~kRegisterFlags) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (CUresult r = RefuseUnsafeCall()) return r;
  uint64_t base = reinterpret_cast<uint64_t>(ptr);
  // Pages that are not mapped cannot be pinned.
  uint64_t first = base & ~4095ull;
  if (msync(reinterpret_cast<void*>(first), Pages(base + bytes - first), MS_ASYNC) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (AddressMap::Get().Overlaps(base, bytes, RangeKind::kRegistered)) {
    return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
  }
  Range r;
  r.base = base;
  r.bytes = bytes;
  r.kind = RangeKind::kRegistered;
  r.context = c;
  r.flags = flags;
  AddressMap::Get().Insert(r);
  return CUDA_SUCCESS;
}
CUresult sim_cuMemHostRegister(void* ptr, size_t bytes, unsigned int flags) {
  return sim_cuMemHostRegister_v2(ptr, bytes, flags);
}

CUresult sim_cuMemHostUnregister(void* ptr) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  uint64_t base = reinterpret_cast<uint64_t>(ptr);
  if (!AddressMap::Get().FindExact(base, RangeKind::kRegistered)) {
    return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
  }
  if (CUresult r = RefuseUnsafeCall()) return r;
  if (CUresult r = FinishWorkOn(c)) return r;
  AddressMap::Get().Remove(base, RangeKind::kRegistered);
  return CUDA_SUCCESS;
}

CUresult sim_cuMemHostGetDevicePointer_v2(CUdeviceptr* out, void* ptr, unsigned int flags) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (out == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  auto r = AddressMap::Get().Find(reinterpret_cast<uint64_t>(ptr));
  if (!r || (r->kind != RangeKind::kHost && r->kind != RangeKind::kRegistered)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *out = reinterpret_cast<CUdeviceptr>(ptr);
  return CUDA_SUCCESS;
}

CUresult sim_cuMemHostGetFlags(unsigned int* flags, void* ptr) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  auto r = AddressMap::Get().Find(reinterpret_cast<uint64_t>(ptr));
  if (flags == nullptr || !r || r->kind != RangeKind::kHost) return CUDA_ERROR_INVALID_VALUE;
  *flags = r->flags | CU_MEMHOSTALLOC_DEVICEMAP;
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
