// Virtual memory management (CUDA Driver API, "Virtual Memory Management"): addresses, physical
// memory and mappings apart. Physical memory lives until its last handle is released and its last
// mapping is gone, in either order.
#include "src/sim/client/vmm.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>

#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

struct Table {
  std::mutex mu;  // guards the handles too
  uint64_t next = 1;
  std::map<uint64_t, MemHandle*> all;
};
Table& Handles() {
  static Table& t = *new Table;
  return t;
}

// Gives the memory back if nobody holds it any more. The table's lock is held.
void Settle(MemHandle* h) {
  if (h->refs != 0 || h->maps != 0) return;
  if (h->import_id != 0) {
    UnimportBlocks(h->import_id);
  } else if (h->device != nullptr) {  // of host memory the descriptor closes
    h->device->FreeBlocks(h->offset, h->bytes);
  }
  Handles().all.erase(h->id);
  delete h;
}

MemHandle* Find(CUmemGenericAllocationHandle handle) {
  auto it = Handles().all.find(handle);
  return it == Handles().all.end() || it->second->refs == 0 ? nullptr : it->second;
}

uint64_t Add(MemHandle* h) {
  h->id = Handles().next++;
  Handles().all[h->id] = h;
  return h->id;
}

bool IsHost(const CUmemLocation& l) {
  return l.type == CU_MEM_LOCATION_TYPE_HOST || l.type == CU_MEM_LOCATION_TYPE_HOST_NUMA ||
         l.type == CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT;
}

bool GoodProp(const CUmemAllocationProp* p) {
  if (p == nullptr || p->type != CU_MEM_ALLOCATION_TYPE_PINNED) return false;
  if ((p->requestedHandleTypes & ~CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != 0) return false;
  if (IsHost(p->location)) return true;
  return p->location.type == CU_MEM_LOCATION_TYPE_DEVICE &&
         Process::Get().device(p->location.id) != nullptr;
}

void* At(uint64_t address) { return reinterpret_cast<void*>(address); }

// Mappings wholly inside [ptr, ptr + bytes), which they must fill without a gap.
bool MappingsOf(uint64_t ptr, uint64_t bytes, std::vector<Range>* out) {
  for (uint64_t at = ptr; at < ptr + bytes;) {
    auto r = AddressMap::Get().FindExact(at, RangeKind::kMapped);
    if (!r || at + r->bytes > ptr + bytes) return false;
    out->push_back(*r);
    at += r->bytes;
  }
  return bytes != 0;
}

}  // namespace

CUresult sim_cuMemGetAllocationGranularity(size_t* out, const CUmemAllocationProp* prop,
                                           CUmemAllocationGranularity_flags) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (out == nullptr || !GoodProp(prop)) return CUDA_ERROR_INVALID_VALUE;
  *out = kBlockBytes;
  return CUDA_SUCCESS;
}

CUresult sim_cuMemAddressReserve(CUdeviceptr* out, size_t bytes, size_t alignment, CUdeviceptr hint,
                                 unsigned long long flags) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (out == nullptr || bytes == 0 || bytes % kBlockBytes != 0 || flags != 0 ||
      (alignment & (alignment - 1)) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  uint64_t align = std::max<uint64_t>(alignment, kBlockBytes);
  uint64_t base = 0;
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  if (hint != 0 && hint % align == 0) {  // "the driver may ignore" a hint
    void* at = mmap(At(hint), bytes, PROT_NONE, kFlags | MAP_FIXED_NOREPLACE, -1, 0);
    if (at == At(hint)) {
      base = hint;
    } else if (at != MAP_FAILED) {
      munmap(at, bytes);
    }
  }
  if (base == 0) {
    void* at = mmap(nullptr, bytes + align, PROT_NONE, kFlags, -1, 0);
    if (at == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    uint64_t from = reinterpret_cast<uint64_t>(at);
    base = (from + align - 1) & ~(align - 1);
    if (base > from) munmap(at, base - from);
    if (from + align > base) munmap(At(base + bytes), from + align - base);
  }
  Range r;
  r.base = base;
  r.bytes = bytes;
  r.kind = RangeKind::kReserved;
  AddressMap::Get().Insert(r);
  *out = base;
  return CUDA_SUCCESS;
}

CUresult sim_cuMemAddressFree(CUdeviceptr ptr, size_t bytes) {
  if (CUresult r = Process::Get().Ready()) return r;
  auto r = AddressMap::Get().FindExact(ptr, RangeKind::kReserved);
  if (!r || r->bytes != bytes || AddressMap::Get().Overlaps(ptr, bytes, RangeKind::kMapped)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  AddressMap::Get().Remove(ptr, RangeKind::kReserved);
  munmap(At(ptr), bytes);
  return CUDA_SUCCESS;
}

CUresult sim_cuMemCreate(CUmemGenericAllocationHandle* out, size_t bytes,
                         const CUmemAllocationProp* prop, unsigned long long flags) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (out == nullptr || bytes == 0 || bytes % kBlockBytes != 0 || flags != 0 || !GoodProp(prop)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  auto* h = new MemHandle;
  h->bytes = bytes;
  h->prop = *prop;
  if (IsHost(prop->location)) {
    h->contents = UniqueFd(memfd_create("divvy-sim-host", MFD_CLOEXEC));
    if (!h->contents.valid() || ftruncate(h->contents.get(), off_t(bytes)) != 0) {
      delete h;
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
  } else {
    h->device = Process::Get().device(prop->location.id);
    if (CUresult r = h->device->TakeBlocks(bytes, &h->offset)) {
      delete h;
      return r;
    }
  }
  std::lock_guard lock(Handles().mu);
  *out = Add(h);
  return CUDA_SUCCESS;
}

CUresult sim_cuMemRelease(CUmemGenericAllocationHandle handle) {
  if (CUresult r = Process::Get().Ready()) return r;
  std::lock_guard lock(Handles().mu);
  MemHandle* h = Find(handle);
  if (h == nullptr) return CUDA_ERROR_INVALID_VALUE;
  --h->refs;
  Settle(h);
  return CUDA_SUCCESS;
}

CUresult sim_cuMemMap(CUdeviceptr ptr, size_t bytes, size_t offset,
                      CUmemGenericAllocationHandle handle, unsigned long long flags) {
  if (CUresult r = Process::Get().Ready()) return r;
  std::lock_guard lock(Handles().mu);
  MemHandle* h = Find(handle);
  // "offset ... must be zero", the whole allocation or its beginning is mapped
  if (h == nullptr || bytes == 0 || bytes % kBlockBytes != 0 || ptr % kBlockBytes != 0 ||
      offset != 0 || flags != 0 || bytes > h->bytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  auto within = AddressMap::Get().Find(ptr);
  if (AddressMap::Get().Overlaps(ptr, bytes, RangeKind::kMapped) || !within ||
      within->kind != RangeKind::kReserved || ptr + bytes > within->base + within->bytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (mmap(At(ptr), bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, h->fd(),
           off_t(h->offset)) == MAP_FAILED) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  madvise(At(ptr), bytes, MADV_DONTFORK);
  Range r;
  r.base = ptr;
  r.bytes = bytes;
  r.kind = RangeKind::kMapped;
  r.device = h->device;
  r.physical = h;
  r.readable = r.writable = false;
  AddressMap::Get().Insert(r);
  ++h->maps;
  return CUDA_SUCCESS;
}

CUresult sim_cuMemUnmap(CUdeviceptr ptr, size_t bytes) {
  if (CUresult r = Process::Get().Ready()) return r;
  std::lock_guard lock(Handles().mu);
  std::vector<Range> maps;
  if (!MappingsOf(ptr, bytes, &maps)) return CUDA_ERROR_INVALID_VALUE;
  for (const Range& r : maps) {
    AddressMap::Get().Remove(r.base, RangeKind::kMapped);
    (void)!mmap(At(r.base), r.bytes, PROT_NONE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    --r.physical->maps;
    Settle(r.physical);
  }
  return CUDA_SUCCESS;
}

CUresult sim_cuMemSetAccess(CUdeviceptr ptr, size_t bytes, const CUmemAccessDesc* desc,
                            size_t count) {
  if (CUresult r = Process::Get().Ready()) return r;
  std::vector<Range> maps;
  if (desc == nullptr || count == 0 || !MappingsOf(ptr, bytes, &maps)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0; i < count; ++i) {
    bool device = desc[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE;
    if (device && Process::Get().device(desc[i].location.id) == nullptr) {
      return CUDA_ERROR_INVALID_DEVICE;
    }
    if (!device && !IsHost(desc[i].location)) return CUDA_ERROR_INVALID_VALUE;
  }
  // One address space for all devices here: the widest right that any of them is given.
  int flags = 0;
  for (size_t i = 0; i < count; ++i) flags |= desc[i].flags;
  int protection = flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE ? PROT_READ | PROT_WRITE
                   : flags == CU_MEM_ACCESS_FLAGS_PROT_READ    ? PROT_READ
                                                               : PROT_NONE;
  for (const Range& r : maps) {
    mprotect(At(r.base), r.bytes, protection);
    AddressMap::Get().Update(r.base, RangeKind::kMapped, [&](Range& x) {
      x.readable = (protection & PROT_READ) != 0;
      x.writable = (protection & PROT_WRITE) != 0;
    });
  }
  return CUDA_SUCCESS;
}

CUresult sim_cuMemGetAccess(unsigned long long* flags, const CUmemLocation* location,
                            CUdeviceptr ptr) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (flags == nullptr || location == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto r = AddressMap::Get().Find(ptr);
  if (!r || r->kind == RangeKind::kReserved) return CUDA_ERROR_INVALID_VALUE;
  *flags = r->writable   ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
           : r->readable ? CU_MEM_ACCESS_FLAGS_PROT_READ
                         : CU_MEM_ACCESS_FLAGS_PROT_NONE;
  return CUDA_SUCCESS;
}

CUresult sim_cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* out, void* address) {
  if (CUresult r = Process::Get().Ready()) return r;
  std::lock_guard lock(Handles().mu);
  auto r = AddressMap::Get().Find(reinterpret_cast<uint64_t>(address));
  if (out == nullptr || !r || r->kind != RangeKind::kMapped) return CUDA_ERROR_INVALID_VALUE;
  ++r->physical->refs;
  *out = r->physical->id;
  return CUDA_SUCCESS;
}

CUresult sim_cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp* prop,
                                                    CUmemGenericAllocationHandle handle) {
  if (CUresult r = Process::Get().Ready()) return r;
  std::lock_guard lock(Handles().mu);
  MemHandle* h = Find(handle);
  if (prop == nullptr || h == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *prop = h->prop;
  return CUDA_SUCCESS;
}

CUresult sim_cuMemExportToShareableHandle(void* out, CUmemGenericAllocationHandle handle,
                                          CUmemAllocationHandleType type,
                                          unsigned long long flags) {
  if (CUresult r = Process::Get().Ready()) return r;
  std::lock_guard lock(Handles().mu);
  MemHandle* h = Find(handle);
  if (out == nullptr || h == nullptr || flags != 0 ||
      type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ||
      (h->prop.requestedHandleTypes & type) == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (h->device == nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  uint64_t id = h->import_id != 0 ? h->import_id : h->device->ExportBlocks(h->offset, h->bytes);
  if (id == 0) return CUDA_ERROR_OPERATING_SYSTEM;
  ShareToken token;
  token.export_id = id;
  token.bytes = h->bytes;
  token.pid = uint64_t(getpid());
  int fd = MakeTokenFd(token);
  if (fd < 0) return CUDA_ERROR_OPERATING_SYSTEM;
  memcpy(out, &fd, sizeof fd);
  return CUDA_SUCCESS;
}

CUresult sim_cuMemImportFromShareableHandle(CUmemGenericAllocationHandle* out, void* os_handle,
                                            CUmemAllocationHandleType type) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (out == nullptr || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  ShareToken token;
  if (!ReadTokenFd(int(reinterpret_cast<intptr_t>(os_handle)), &token)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Imported in;
  if (CUresult r = ImportBlocks(token.export_id, &in)) return r;
  auto* h = new MemHandle;
  h->device = in.device;
  h->offset = in.offset;
  h->bytes = in.bytes;
  h->import_id = in.id;
  h->contents = std::move(in.contents);
  h->prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  h->prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  h->prop.location = {CU_MEM_LOCATION_TYPE_DEVICE, in.device->ordinal()};
  std::lock_guard lock(Handles().mu);
  *out = Add(h);
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
