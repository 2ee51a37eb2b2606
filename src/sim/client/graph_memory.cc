// Memory nodes and the per-device graph memory pool. See graph_memory.h.
#include "src/sim/client/graph_memory.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "src/sim/client/address_map.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

uint64_t Blocks(uint64_t bytes) { return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes; }

// An executable graph's memory. Graphs launched into one stream never overlap and share.
struct Mapping {
  Stream* stream = nullptr;
  uint64_t bytes = 0;
  Ticket last;  // stream null: not launched yet
  bool gone = false;

  bool Idle() const { return last.stream == nullptr || HasEnded(last); }
};

struct DevicePool {
  std::unordered_map<uint64_t, Mapping> mapped;  // by the executable graph's number
  uint64_t live_bytes = 0;                       // allocations left to the program
  // Freed in a stream that has not got there yet.
  std::vector<std::pair<Ticket, std::shared_ptr<GraphAllocation>>> leaving;
  uint64_t reserved = 0, reserved_high = 0, used_high = 0;

  uint64_t Used() const {
    std::map<Stream*, uint64_t> shared;
    for (auto& [exec, m] : mapped) shared[m.stream] = std::max(shared[m.stream], m.bytes);
    uint64_t sum = live_bytes;
    for (auto& [freed, memory] : leaving) sum += memory->block_bytes;
    for (auto [stream, bytes] : shared) sum += bytes;
    return sum;
  }
  // Unmaps what no launch uses: of graphs that are gone, or of all.
  void Sweep(bool all) {
    std::erase_if(leaving, [](const auto& l) { return HasEnded(l.first); });
    std::erase_if(mapped, [&](const auto& e) { return (all || e.second.gone) && e.second.Idle(); });
  }
  bool Grow(Device* device) {
    uint64_t used = Used();
    if (used > reserved) {
      Process& p = Process::Get();
      if (!Book(p.page(), p.row(), device->index(), used - reserved)) return false;
      reserved = used;
    }
    reserved_high = std::max(reserved_high, reserved);
    used_high = std::max(used_high, used);
    return true;
  }
  void Trim(Device* device) {
    Sweep(true);
    uint64_t used = Used();
    if (used >= reserved) return;
    Process& p = Process::Get();
    Unbook(p.page(), p.row(), device->index(), reserved - used);
    reserved = used;
  }
  // Gives the executable graph `want`; what others have mapped but do not use goes before memory
  // is refused.
  bool Map(uint64_t exec, Device* device, Mapping want) {
    Sweep(false);
    auto it = mapped.find(exec);
    Mapping before = it == mapped.end() ? Mapping{} : it->second;
    bool had = it != mapped.end();
    want.last = before.last;
    mapped[exec] = want;
    if (Grow(device)) return true;
    mapped.erase(exec);
    Trim(device);
    mapped[exec] = want;
    if (Grow(device)) return true;
    mapped.erase(exec);
    if (had) mapped[exec] = before;
    return false;
  }
};

struct Pools {
  std::mutex mu;
  std::unordered_map<Device*, DevicePool> of;
  std::map<uint64_t, std::weak_ptr<GraphAllocation>> by_address;  // ended ones until overwritten
  std::map<uint64_t, std::shared_ptr<GraphAllocation>> live;
};
Pools& All() {
  static Pools& p = *new Pools;
  return p;
}

Device* DeviceNamed(CUdevice ordinal) { return Process::Get().device(ordinal); }

using AllocationSet = std::map<uint64_t, std::shared_ptr<GraphAllocation>>;

// What a launch does to the live allocations and how much it needs beside them, by device.
struct Effect {
  AllocationSet live;
  std::map<Device*, uint64_t> peak, kept;
};
CUresult EffectOf(const MemoryNodes& nodes, const AllocationSet& live, bool auto_free,
                  Effect* out) {
  out->live = live;
  std::map<Device*, uint64_t> now;
  AllocationSet own;
  if (auto_free) {
    for (const NodeParams* params : nodes) {
      if (auto* a = std::get_if<AllocNode>(params)) out->live.erase(a->memory->address);
    }
  }
  for (const NodeParams* params : nodes) {
    if (auto* a = std::get_if<AllocNode>(params)) {
      const GraphAllocation& m = *a->memory;
      if (!out->live.emplace(m.address, a->memory).second) return CUDA_ERROR_INVALID_VALUE;
      own.emplace(m.address, a->memory);
      uint64_t& bytes = now[m.device];
      bytes += m.block_bytes;
      out->peak[m.device] = std::max(out->peak[m.device], bytes);
    } else if (auto* f = std::get_if<FreeNode>(params)) {
      if (out->live.erase(f->ptr) == 0) return CUDA_ERROR_INVALID_VALUE;
      if (own.erase(f->ptr) != 0) now[f->memory->device] -= f->memory->block_bytes;
    }
  }
  out->kept = std::move(now);
  return CUDA_SUCCESS;
}

uint64_t LiveOn(Device* device, const AllocationSet& live) {
  uint64_t sum = 0;
  for (auto& [address, m] : live) sum += m->device == device ? m->block_bytes : 0;
  return sum;
}

}  // namespace

GraphAllocation::~GraphAllocation() {
  if (device == nullptr) return;
  AddressMap::Get().Remove(address, RangeKind::kGraph);
  device->ReturnPlace(offset, block_bytes);
}

CUresult MakeAllocNode(CUDA_MEM_ALLOC_NODE_PARAMS* p, Context* context, NodeParams* out) {
  const CUmemPoolProps& props = p->poolProps;
  // "poolProps.handleTypes ... IPC is not supported"; memory of devices only.
  if (p->bytesize == 0 || props.allocType != CU_MEM_ALLOCATION_TYPE_PINNED ||
      props.location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
      props.handleTypes != CU_MEM_HANDLE_TYPE_NONE ||
      (p->accessDescCount > 0 && p->accessDescs == nullptr)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Device* d = DeviceNamed(props.location.id);
  if (d == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  for (size_t i = 0; i < p->accessDescCount; ++i) {
    if (DeviceNamed(p->accessDescs[i].location.id) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  }
  uint64_t offset;
  if (CUresult r = d->TakePlace(p->bytesize, &offset)) return r;
  auto memory = std::make_shared<GraphAllocation>();
  memory->device = d;
  memory->offset = offset;
  memory->bytes = p->bytesize;
  memory->block_bytes = Blocks(p->bytesize);
  memory->address = d->base() + offset;
  Range r;
  r.base = memory->address;
  r.bytes = memory->bytes;
  r.kind = RangeKind::kGraph;
  r.device = d;
  r.context = context;
  r.offset = offset;
  r.block_bytes = memory->block_bytes;
  AddressMap::Get().Insert(r);
  p->dptr = memory->address;
  AllocNode n;
  n.params = *p;
  n.access.assign(p->accessDescs, p->accessDescs + p->accessDescCount);
  n.params.accessDescs = nullptr;
  {
    std::lock_guard lock(All().mu);
    All().by_address[memory->address] = memory;
  }
  n.memory = std::move(memory);
  *out = std::move(n);
  return CUDA_SUCCESS;
}

CUresult MakeFreeNode(CUdeviceptr ptr, Graph* graph, NodeParams* out) {
  std::shared_ptr<GraphAllocation> memory;
  {
    std::lock_guard lock(All().mu);
    auto it = All().by_address.find(ptr);
    if (it != All().by_address.end()) memory = it->second.lock();
  }
  // "CUDA_ERROR_INVALID_VALUE if the user attempts to free: an allocation twice in the same graph;
  // an address that was not returned by an allocation node"; and not in both the owning graph and
  // another one.
  if (memory == nullptr || memory->freed_in_owner) return CUDA_ERROR_INVALID_VALUE;
  if (memory->owner == graph && memory->freed_elsewhere) return CUDA_ERROR_INVALID_VALUE;
  for (const auto& n : graph->nodes) {
    auto* f = std::get_if<FreeNode>(&n->params);
    if (f != nullptr && f->ptr == ptr) return CUDA_ERROR_INVALID_VALUE;
  }
  *out = FreeNode{ptr, std::move(memory)};
  return CUDA_SUCCESS;
}

void OwnMemoryNode(Graph* graph, const NodeParams& params) {
  if (auto* a = std::get_if<AllocNode>(&params)) {
    if (a->memory->owner == nullptr) a->memory->owner = graph;
  } else if (auto* f = std::get_if<FreeNode>(&params)) {
    (f->memory->owner == graph ? f->memory->freed_in_owner : f->memory->freed_elsewhere) = true;
  }
}

CUresult TakeForUpload(uint64_t exec, Stream* stream, const MemoryNodes& nodes) {
  std::lock_guard lock(All().mu);
  Effect effect;
  // As for a first launch; one that could not be made now does not stop an upload.
  if (EffectOf(nodes, {}, true, &effect) != CUDA_SUCCESS) return CUDA_SUCCESS;
  for (auto [device, bytes] : effect.peak) {
    if (!All().of[device].Map(exec, device, {stream, bytes, {}, false})) {
      return CUDA_ERROR_OUT_OF_MEMORY;
    }
  }
  return CUDA_SUCCESS;
}

CUresult TakeForLaunch(uint64_t exec, Stream* stream, const MemoryNodes& nodes, bool auto_free) {
  Effect effect;
  std::lock_guard lock(All().mu);
  if (CUresult r = EffectOf(nodes, All().live, auto_free, &effect)) return r;
  std::map<Device*, uint64_t> live_before;
  CUresult answer = CUDA_SUCCESS;
  for (auto [device, peak] : effect.peak) {
    DevicePool& pool = All().of[device];
    live_before[device] = pool.live_bytes;
    pool.live_bytes = LiveOn(device, effect.live);
    if (!pool.Map(exec, device, {stream, peak - effect.kept[device], {}, false})) {
      answer = CUDA_ERROR_OUT_OF_MEMORY;
      break;
    }
  }
  if (answer != CUDA_SUCCESS) {
    for (auto [device, bytes] : live_before) All().of[device].live_bytes = bytes;
    return answer;
  }
  All().live.swap(effect.live);
  for (auto& [device, pool] : All().of) pool.live_bytes = LiveOn(device, All().live);
  return CUDA_SUCCESS;
}

void GraphMemoryInUse(uint64_t exec, Ticket last) {
  std::lock_guard lock(All().mu);
  for (auto& [device, pool] : All().of) {
    auto it = pool.mapped.find(exec);
    if (it != pool.mapped.end()) it->second.last = last;
  }
}

void ReleaseGraphMemory(Device* device) {
  std::lock_guard lock(All().mu);
  DevicePool& pool = All().of[device];
  pool.mapped.clear();
  pool.leaving.clear();
  std::erase_if(All().live, [&](const auto& l) { return l.second->device == device; });
  pool.live_bytes = 0;
  pool.Trim(device);
}

void ForgetGraphMemory(uint64_t exec) {
  std::lock_guard lock(All().mu);
  for (auto& [device, pool] : All().of) {
    auto it = pool.mapped.find(exec);
    if (it == pool.mapped.end()) continue;
    it->second.gone = true;
    pool.Sweep(false);
  }
}

CUresult FreeGraphMemoryAsync(CUdeviceptr ptr, Stream* stream) {
  std::lock_guard lock(All().mu);
  auto it = All().live.find(ptr);
  if (it == All().live.end()) return CUDA_ERROR_INVALID_VALUE;
  DevicePool& pool = All().of[it->second->device];
  pool.live_bytes -= it->second->block_bytes;
  pool.leaving.emplace_back(LastOf(stream), std::move(it->second));
  All().live.erase(it);
  return CUDA_SUCCESS;
}

CUresult FreeGraphMemory(CUdeviceptr ptr) {
  std::lock_guard lock(All().mu);
  auto it = All().live.find(ptr);
  if (it == All().live.end()) return CUDA_ERROR_INVALID_VALUE;
  All().of[it->second->device].live_bytes -= it->second->block_bytes;
  All().live.erase(it);
  return CUDA_SUCCESS;
}

CUresult sim_cuDeviceGraphMemTrim(CUdevice device) {
  if (CUresult r = Process::Get().Ready()) return r;
  Device* d = DeviceNamed(device);
  if (d == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  std::lock_guard lock(All().mu);
  All().of[d].Trim(d);
  return CUDA_SUCCESS;
}

CUresult sim_cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attr, void* value) {
  if (CUresult r = Process::Get().Ready()) return r;
  Device* d = DeviceNamed(device);
  if (d == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard lock(All().mu);
  DevicePool& pool = All().of[d];
  pool.Sweep(false);
  auto* out = static_cast<cuuint64_t*>(value);
  switch (attr) {
    case CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT:
      *out = pool.Used();
      return CUDA_SUCCESS;
    case CU_GRAPH_MEM_ATTR_USED_MEM_HIGH:
      *out = pool.used_high;
      return CUDA_SUCCESS;
    case CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT:
      *out = pool.reserved;
      return CUDA_SUCCESS;
    case CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH:
      *out = pool.reserved_high;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

// "High watermark can only be reset to zero."
CUresult sim_cuDeviceSetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attr, void* value) {
  if (CUresult r = Process::Get().Ready()) return r;
  Device* d = DeviceNamed(device);
  if (d == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  if (value == nullptr || *static_cast<cuuint64_t*>(value) != 0) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard lock(All().mu);
  DevicePool& pool = All().of[d];
  switch (attr) {
    case CU_GRAPH_MEM_ATTR_USED_MEM_HIGH:
      pool.used_high = 0;
      return CUDA_SUCCESS;
    case CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH:
      pool.reserved_high = 0;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult sim_cuGraphMemAllocNodeGetParams(CUgraphNode handle, CUDA_MEM_ALLOC_NODE_PARAMS* out) {
  GraphLock lock(GraphMutex());
  Node* n = Node::From(handle);
  auto* a = n != nullptr ? std::get_if<AllocNode>(&n->params) : nullptr;
  if (a == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = a->params;
  out->accessDescs = a->access.empty() ? nullptr : a->access.data();
  return CUDA_SUCCESS;
}

CUresult sim_cuGraphMemFreeNodeGetParams(CUgraphNode handle, CUdeviceptr* out) {
  GraphLock lock(GraphMutex());
  Node* n = Node::From(handle);
  auto* f = n != nullptr ? std::get_if<FreeNode>(&n->params) : nullptr;
  if (f == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = f->ptr;
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
