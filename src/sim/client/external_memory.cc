// Imported external memory (CUDA Driver API, "External Resource Interoperability"). Descriptors
// that cuMemExportToShareableHandle made are what other APIs would hand over; anything else is
// refused.
#include <sys/mman.h>
#include <unistd.h>

#include <unordered_map>

#include "src/sim/client/stream.h"
#include "src/sim/client/vmm.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

struct External {
  Imported memory;
  std::vector<uint64_t> buffers;
};
struct Table {
  std::mutex mu;
  std::unordered_map<External*, std::unique_ptr<External>> all;
};
Table& Externals() {
  static Table& t = *new Table;
  return t;
}

}  // namespace

CUresult sim_cuImportExternalMemory(CUexternalMemory* out,
                                    const CUDA_EXTERNAL_MEMORY_HANDLE_DESC* desc) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (out == nullptr || desc == nullptr || desc->size == 0) return CUDA_ERROR_INVALID_VALUE;
  if (desc->type != CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD) return CUDA_ERROR_NOT_SUPPORTED;
  ShareToken token;
  if (!ReadTokenFd(desc->handle.fd, &token)) return CUDA_ERROR_INVALID_VALUE;
  auto e = std::make_unique<External>();
  if (CUresult r = ImportBlocks(token.export_id, &e->memory)) return r;
  if (desc->size > e->memory.bytes) {
    UnimportBlocks(e->memory.id);
    return CUDA_ERROR_INVALID_VALUE;
  }
  // "performing any operations on the file descriptor after it is imported results in undefined
  // behavior": it is the driver's now.
  close(desc->handle.fd);
  *out = reinterpret_cast<CUexternalMemory>(e.get());
  std::lock_guard lock(Externals().mu);
  Externals().all[e.get()] = std::move(e);
  return CUDA_SUCCESS;
}

CUresult sim_cuExternalMemoryGetMappedBuffer(CUdeviceptr* out, CUexternalMemory handle,
                                             const CUDA_EXTERNAL_MEMORY_BUFFER_DESC* desc) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  std::lock_guard lock(Externals().mu);
  auto it = Externals().all.find(reinterpret_cast<External*>(handle));
  if (it == Externals().all.end()) return CUDA_ERROR_INVALID_HANDLE;
  External* e = it->second.get();
  if (out == nullptr || desc == nullptr || desc->size == 0 || desc->flags != 0 ||
      desc->offset > e->memory.bytes || desc->size > e->memory.bytes - desc->offset) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  uint64_t at = MapImported(e->memory, desc->offset, desc->size);
  if (at == 0) return CUDA_ERROR_MAP_FAILED;
  Range r;
  r.base = at;
  r.bytes = desc->size;
  r.kind = RangeKind::kExternal;
  r.device = e->memory.device;
  r.context = c;
  AddressMap::Get().Insert(r);
  e->buffers.push_back(at);
  *out = at;
  return CUDA_SUCCESS;
}

CUresult sim_cuDestroyExternalMemory(CUexternalMemory handle) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  std::unique_ptr<External> e;
  {
    std::lock_guard lock(Externals().mu);
    auto it = Externals().all.find(reinterpret_cast<External*>(handle));
    if (it == Externals().all.end()) return CUDA_ERROR_INVALID_HANDLE;
    e = std::move(it->second);
    Externals().all.erase(it);
  }
  (void)FinishWorkOn(c);
  for (uint64_t at : e->buffers) {
    auto r = AddressMap::Get().Remove(at, RangeKind::kExternal);
    if (!r) continue;  // freed with cuMemFree, as the API asks
    uint64_t first = at & ~4095ull;
    munmap(reinterpret_cast<void*>(first), at + r->bytes - first);
  }
  UnimportBlocks(e->memory.id);
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
