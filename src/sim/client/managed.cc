// Managed memory (CUDA Driver API, "Unified Addressing"; CUDA C++ Programming Guide, "Unified
// Memory": "physical memory is populated at first touch", "GPU memory may be oversubscribed"). An
// allocation takes no device memory; a prefetch, or a memset or copy on the device, makes it
// resident there whole, when there is room; a prefetch to the host, or its end, gives that back.
// Kernels do not page here.
#include "src/sim/client/managed.h"

#include <string.h>
#include <sys/mman.h>

#include <algorithm>

#include "src/sim/client/capture.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

struct Residency {
  Device* device = nullptr;
  uint64_t booked = 0;
  CUmemLocation preferred{CU_MEM_LOCATION_TYPE_INVALID, CU_DEVICE_INVALID};
  CUmemLocation prefetched{CU_MEM_LOCATION_TYPE_INVALID, CU_DEVICE_INVALID};
  bool read_mostly = false;
};
struct Table {
  std::mutex mu;
  std::map<uint64_t, Residency> of;  // by base
};
Table& Managed() {
  static Table& t = *new Table;
  return t;
}

void Leave(Residency* r) {
  Process& p = Process::Get();
  if (r->device != nullptr) Unbook(p.page(), p.row(), r->device->index(), r->booked);
  r->device = nullptr;
  r->booked = 0;
}

// `device` null: to the host.
void Move(uint64_t base, uint64_t bytes, Device* device) {
  Process& p = Process::Get();
  std::lock_guard lock(Managed().mu);
  auto it = Managed().of.find(base);
  if (it == Managed().of.end() || it->second.device == device) return;
  Leave(&it->second);
  if (device == nullptr) return;
  uint64_t whole = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  // When it does not fit, pages stay where they are: oversubscription, not an error.
  if (!Book(p.page(), p.row(), device->index(), whole)) return;
  it->second.device = device;
  it->second.booked = whole;
}

CUresult Prefetch(CUdeviceptr ptr, size_t bytes, CUmemLocation to, CUstream stream) {
  Stream* s;
  if (CUresult r = EnterStream(stream, &s)) return r;
  auto range = AddressMap::Get().Find(ptr);
  if (!range || range->kind != RangeKind::kManaged || bytes == 0 ||
      ptr + bytes > range->base + range->bytes) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Device* device = nullptr;
  if (to.type == CU_MEM_LOCATION_TYPE_DEVICE) {
    device = Process::Get().device(to.id);
    if (device == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  }
  if (CUresult r = RefuseCaptured(s)) return r;
  {
    std::lock_guard lock(Managed().mu);
    auto it = Managed().of.find(range->base);
    if (it != Managed().of.end()) it->second.prefetched = to;
  }
  Work w;
  w.kind = device != nullptr ? OpKind::kCopyH2D : OpKind::kCopyD2H;
  w.duration_ns = uint64_t(double(bytes) / Process::Get().profile().h2d_gbps);
  w.effect = [base = range->base, all = range->bytes, device](uint64_t) {
    Move(base, all, device);
  };
  Submit(s, std::move(w));
  return CUDA_SUCCESS;
}

CUmemLocation LocationOf(CUdevice device) {
  return device == CU_DEVICE_CPU ? CUmemLocation{CU_MEM_LOCATION_TYPE_HOST, 0}
                                 : CUmemLocation{CU_MEM_LOCATION_TYPE_DEVICE, device};
}

}  // namespace

void TouchOnDevice(uint64_t address, Device* device) {
  auto r = AddressMap::Get().Find(address);
  if (r && r->kind == RangeKind::kManaged) Move(r->base, r->bytes, device);
}

CUresult FreeManaged(CUdeviceptr ptr) {
  auto r = AddressMap::Get().FindExact(ptr, RangeKind::kManaged);
  if (!r) return CUDA_ERROR_INVALID_VALUE;
  if (r->context != nullptr && !r->context->destroyed) {
    if (CUresult e = FinishWorkOn(r->context)) return e;
  }
  if (!AddressMap::Get().Remove(ptr, RangeKind::kManaged)) return CUDA_ERROR_INVALID_VALUE;
  {
    std::lock_guard lock(Managed().mu);
    auto it = Managed().of.find(ptr);
    if (it != Managed().of.end()) {
      Leave(&it->second);
      Managed().of.erase(it);
    }
  }
  munmap(reinterpret_cast<void*>(ptr), (r->bytes + 4095) & ~4095ull);
  return CUDA_SUCCESS;
}

CUresult sim_cuMemAllocManaged(CUdeviceptr* out, size_t bytes, unsigned int flags) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (out == nullptr || bytes == 0 ||
      (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (CUresult r = RefuseUnsafeCall()) return r;
  if (bytes > (1ull << 44)) return CUDA_ERROR_OUT_OF_MEMORY;
  void* at = mmap(nullptr, (bytes + 4095) & ~4095ull, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  Range r;
  r.base = reinterpret_cast<uint64_t>(at);
  r.bytes = bytes;
  r.kind = RangeKind::kManaged;
  r.device = c->device;
  r.context = c;
  r.flags = flags;
  AddressMap::Get().Insert(r);
  std::lock_guard lock(Managed().mu);
  Managed().of[r.base] = {};
  *out = r.base;
  return CUDA_SUCCESS;
}

CUresult sim_cuMemPrefetchAsync_v2(CUdeviceptr ptr, size_t bytes, CUmemLocation to,
                                   unsigned int flags, CUstream stream) {
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  return Prefetch(ptr, bytes, to, stream);
}
CUresult sim_cuMemPrefetchAsync(CUdeviceptr ptr, size_t bytes, CUdevice to, CUstream stream) {
  return Prefetch(ptr, bytes, LocationOf(to), stream);
}
CUresult sim_cuMemPrefetchBatchAsync(CUdeviceptr* ptrs, size_t* sizes, size_t count,
                                     CUmemLocation* to, size_t* first, size_t kinds,
                                     unsigned long long flags, CUstream stream) {
  if (ptrs == nullptr || sizes == nullptr || to == nullptr || first == nullptr || kinds == 0 ||
      flags != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  size_t kind = 0;
  for (size_t i = 0; i < count; ++i) {
    while (kind + 1 < kinds && first[kind + 1] <= i) ++kind;
    if (CUresult r = Prefetch(ptrs[i], sizes[i], to[kind], stream)) return r;
  }
  return CUDA_SUCCESS;
}

CUresult sim_cuMemAdvise_v2(CUdeviceptr ptr, size_t bytes, CUmem_advise advice,
                            CUmemLocation location) {
  if (CUresult r = Process::Get().Ready()) return r;
  auto range = AddressMap::Get().Find(ptr);
  if (!range || range->kind != RangeKind::kManaged || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard lock(Managed().mu);
  Residency& r = Managed().of[range->base];
  if (advice == CU_MEM_ADVISE_SET_READ_MOSTLY) r.read_mostly = true;
  if (advice == CU_MEM_ADVISE_UNSET_READ_MOSTLY) r.read_mostly = false;
  if (advice == CU_MEM_ADVISE_SET_PREFERRED_LOCATION) r.preferred = location;
  if (advice == CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION) r.preferred = Residency{}.preferred;
  return CUDA_SUCCESS;
}
CUresult sim_cuMemAdvise(CUdeviceptr ptr, size_t bytes, CUmem_advise advice, CUdevice device) {
  return sim_cuMemAdvise_v2(ptr, bytes, advice, LocationOf(device));
}

CUresult sim_cuMemRangeGetAttribute(void* data, size_t size, CUmem_range_attribute attribute,
                                    CUdeviceptr ptr, size_t bytes) {
  if (CUresult r = Process::Get().Ready()) return r;
  auto range = AddressMap::Get().Find(ptr);
  if (data == nullptr || size < 4 || !range || range->kind != RangeKind::kManaged || bytes == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::lock_guard lock(Managed().mu);
  const Residency& r = Managed().of[range->base];
  auto device = [](const CUmemLocation& l) {
    return l.type == CU_MEM_LOCATION_TYPE_DEVICE ? l.id
           : l.type == CU_MEM_LOCATION_TYPE_HOST ? int(CU_DEVICE_CPU)
                                                 : int(CU_DEVICE_INVALID);
  };
  int value = 0;
  switch (attribute) {
    case CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY:
      value = r.read_mostly;
      break;
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION:
      value = device(r.preferred);
      break;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION:
      value = device(r.prefetched);
      break;
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE:
      value = r.preferred.type;
      break;
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_ID:
      value = r.preferred.id;
      break;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE:
      value = r.prefetched.type;
      break;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_ID:
      value = r.prefetched.id;
      break;
    case CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY:
      for (size_t i = 0; i < size / 4; ++i) static_cast<int*>(data)[i] = CU_DEVICE_INVALID;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  memcpy(data, &value, sizeof value);
  return CUDA_SUCCESS;
}
CUresult sim_cuMemRangeGetAttributes(void** data, size_t* sizes, CUmem_range_attribute* attributes,
                                     size_t count, CUdeviceptr ptr, size_t bytes) {
  if (data == nullptr || sizes == nullptr || attributes == nullptr) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; ++i) {
    if (CUresult r = sim_cuMemRangeGetAttribute(data[i], sizes[i], attributes[i], ptr, bytes)) {
      return r;
    }
  }
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
