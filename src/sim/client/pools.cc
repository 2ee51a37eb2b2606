// Pools. See pools.h.
#include "src/sim/client/pools.h"

#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <unordered_set>

#include "src/sim/client/vmm.h"

namespace divvy::sim {
namespace {

struct Registry {
  std::mutex mu;
  std::unordered_set<Pool*> all;
};
Registry& Pools() {
  static Registry& r = *new Registry;
  return r;
}

std::vector<Pool*> PoolsOf(Device* device) {
  std::lock_guard lock(Pools().mu);
  std::vector<Pool*> out;
  for (Pool* p : Pools().all) {
    if (p->device() == device) out.push_back(p);
  }
  return out;
}

}  // namespace

Pool* MakePool(Device* device, const CUmemPoolProps& props, bool built_in) {
  Pool* p = new Pool(device, props, built_in);
  std::lock_guard lock(Pools().mu);
  Pools().all.insert(p);
  return p;
}

Pool* Pool::From(CUmemoryPool handle) {
  auto* p = reinterpret_cast<Pool*>(handle);
  std::lock_guard lock(Pools().mu);
  return Pools().all.count(p) != 0 && !p->destroyed ? p : nullptr;
}

Pool* DefaultPool(Device* device) {
  std::lock_guard lock(device->mu);
  if (device->default_pool == nullptr) {
    CUmemPoolProps props{};
    props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    props.location = {CU_MEM_LOCATION_TYPE_DEVICE, device->ordinal()};
    device->default_pool = MakePool(device, props, true);
    if (device->current_pool == nullptr) device->current_pool = device->default_pool;
  }
  return device->default_pool;
}

Pool* CurrentPool(Device* device) {
  DefaultPool(device);
  std::lock_guard lock(device->mu);
  return device->current_pool;
}

void PoolsAtSync(Device* device) {
  for (Pool* p : PoolsOf(device)) p->AtSync();
}
void ReleasePools(Device* device) {
  for (Pool* p : PoolsOf(device)) p->ReleaseAll();
}

void Pool::Reclaim(Stream* stream) {
  for (auto it = freed_.begin(); it != freed_.end();) {
    if ((stream != nullptr && it->ticket.stream == stream) || HasEnded(it->ticket)) {
      memory_.Free(it->offset);
      it = freed_.erase(it);
    } else {
      ++it;
    }
  }
}

CUresult Pool::Grow(uint64_t bytes) {
  uint64_t step = device_->profile().pool_step_bytes;
  uint64_t chunk = (bytes + step - 1) / step * step;
  if (props_.maxSize != 0 && memory_.reserved_bytes() + chunk > props_.maxSize) {
    chunk = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    if (memory_.reserved_bytes() + chunk > props_.maxSize) return CUDA_ERROR_OUT_OF_MEMORY;
  }
  uint64_t offset;
  CUresult r = device_->TakeBlocks(chunk, &offset);
  if (r != CUDA_SUCCESS && chunk != bytes) {  // not a whole step left: as much as is needed
    chunk = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    r = device_->TakeBlocks(chunk, &offset);
  }
  if (r != CUDA_SUCCESS) return r;
  memory_.AddChunk(offset, chunk);
  reserved_high_ = std::max(reserved_high_, memory_.reserved_bytes());
  return CUDA_SUCCESS;
}

CUresult Pool::Take(uint64_t bytes, Stream* stream, uint64_t* offset) {
  if (bytes > device_->total_bytes()) return CUDA_ERROR_OUT_OF_MEMORY;
  std::unique_lock lock(mu_);
  auto at = memory_.Take(bytes);
  if (!at) {
    Reclaim(nullptr);
    at = memory_.Take(bytes);
  }
  if (!at) {
    Reclaim(stream);
    at = memory_.Take(bytes);
  }
  if (!at && Grow(bytes) == CUDA_SUCCESS) at = memory_.Take(bytes);
  if (!at) {
    // The device is full: wait for what is being freed, give back what lies empty, try once more.
    std::vector<Ticket> pending;
    for (const Freed& f : freed_) pending.push_back(f.ticket);
    lock.unlock();
    for (Ticket t : pending) (void)Finish(t);
    for (Pool* p : PoolsOf(device_)) {
      if (p != this) p->Trim(0);
    }
    lock.lock();
    Reclaim(nullptr);
    at = memory_.Take(bytes);
    if (!at) {
      TrimLocked(0);
      if (CUresult r = Grow(bytes)) return r;
      at = memory_.Take(bytes);
    }
  }
  used_high_ = std::max(used_high_, memory_.used_bytes());
  *offset = *at;
  return CUDA_SUCCESS;
}

void Pool::GiveAfter(uint64_t offset, Ticket freed) {
  std::lock_guard lock(mu_);
  freed_.push_back({offset, freed});
}

void Pool::GiveNow(uint64_t offset) {
  std::lock_guard lock(mu_);
  memory_.Free(offset);
}

uint64_t Pool::ExportChunk(uint64_t offset, uint64_t* within, uint64_t* bytes) {
  std::lock_guard lock(mu_);
  auto chunk = memory_.ChunkAt(offset);
  *within = offset - chunk.offset;
  *bytes = chunk.bytes;
  return device_->ExportBlocks(chunk.offset, chunk.bytes);
}

void Pool::TrimLocked(uint64_t keep) {
  Reclaim(nullptr);
  while (memory_.reserved_bytes() > keep) {
    auto chunk = memory_.PopEmptyChunk();
    if (!chunk) return;
    device_->FreeBlocks(chunk->offset, chunk->bytes);
  }
}

void Pool::Trim(uint64_t keep) {
  std::lock_guard lock(mu_);
  TrimLocked(keep);
}

void Pool::AtSync() {
  std::lock_guard lock(mu_);
  if (memory_.reserved_bytes() > threshold_) TrimLocked(threshold_);
}

void Pool::ReleaseAll() {
  std::vector<Range> mine;
  AddressMap::Get().ForEach([&](const Range& r) {
    if (r.pool == this && r.import_id == 0) mine.push_back(r);
  });
  for (const Range& r : mine) {
    if (AddressMap::Get().Remove(r.base, r.kind)) GiveNow(r.offset);
  }
  Trim(0);
}

CUresult Pool::Get(CUmemPool_attribute attribute, void* value) {
  std::lock_guard lock(mu_);
  Reclaim(nullptr);
  uint64_t v = 0;
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      memcpy(value, &reuse_[attribute - 1], sizeof(int));
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      v = threshold_;
      break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
      v = memory_.reserved_bytes();
      break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
      v = reserved_high_;
      break;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
      v = memory_.used_bytes();
      break;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      v = used_high_;
      break;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  memcpy(value, &v, sizeof v);
  return CUDA_SUCCESS;
}

CUresult Pool::Set(CUmemPool_attribute attribute, const void* value) {
  std::lock_guard lock(mu_);
  uint64_t v = 0;
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      memcpy(&reuse_[attribute - 1], value, sizeof(int));
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      memcpy(&threshold_, value, sizeof threshold_);
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      memcpy(&v, value, sizeof v);
      if (v != 0) return CUDA_ERROR_INVALID_VALUE;  // "This value must be zero"
      (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH ? used_high_ : reserved_high_) =
          attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH ? memory_.used_bytes()
                                                     : memory_.reserved_bytes();
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

// Another process's allocation: unmapped once `after` has ended.
void CloseImported(const Range& r, Ticket after) {
  (void)Finish(after);
  uint64_t first = r.base & ~4095ull;
  munmap(reinterpret_cast<void*>(first), r.base + r.bytes - first);
  UnimportBlocks(r.import_id);
}

CUresult AllocFromPool(Pool* pool, uint64_t bytes, Stream* stream, CUdeviceptr* out) {
  uint64_t offset;
  if (CUresult r = pool->Take(bytes, stream, &offset)) return r;
  Range r;
  r.base = pool->device()->base() + offset;
  r.bytes = bytes;
  r.kind = RangeKind::kPool;
  r.device = pool->device();
  r.context = stream->context;
  r.offset = offset;
  r.pool = pool;
  AddressMap::Get().Insert(r);
  *out = r.base;
  return CUDA_SUCCESS;
}

CUresult FreeAsync(CUdeviceptr ptr, Stream* stream) {
  auto r = AddressMap::Get().Remove(ptr, RangeKind::kPool);
  if (!r) return CUDA_ERROR_INVALID_VALUE;
  if (r->import_id != 0) {
    CloseImported(*r, Submit(stream, {}));
    return CUDA_SUCCESS;
  }
  // The address is reused only after the free has been reached in stream order.
  r->pool->GiveAfter(r->offset, Submit(stream, {}));
  return CUDA_SUCCESS;
}

CUresult FreePoolNow(CUdeviceptr ptr) {
  auto r = AddressMap::Get().FindExact(ptr, RangeKind::kPool);
  if (!r) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult e = FinishWorkOn(r->context)) return e;
  if (!AddressMap::Get().Remove(ptr, RangeKind::kPool)) return CUDA_ERROR_INVALID_VALUE;
  if (r->import_id != 0) {
    CloseImported(*r, {});
  } else {
    r->pool->GiveNow(r->offset);
  }
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
