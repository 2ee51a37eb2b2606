// Interprocess communication (CUDA Driver API, "Memory Management": cuIpcGetMemHandle and
// following; "Event Management": CU_EVENT_INTERPROCESS). Memory goes through the broker, which
// keeps it alive and booked once; events are two counters on the machine page.
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/sim/client/capture.h"
#include "src/sim/client/vmm.h"
#include "src/sim/generated/driver_functions.h"
#include "src/sim/wire/futex.h"

namespace divvy::sim {
namespace {

// What a CUipcMemHandle holds.
struct MemToken {
  static constexpr uint64_t kMagic = 0x4D454D4356495044;
  uint64_t magic, name, within, bytes, row;
};
static_assert(sizeof(MemToken) <= sizeof(CUipcMemHandle));

struct EventToken {
  static constexpr uint64_t kMagic = 0x544E564556495044;
  uint64_t magic, index;
};
static_assert(sizeof(EventToken) <= sizeof(CUipcEventHandle));

IpcEvent* Shared(const Event* e) { return static_cast<IpcEvent*>(e->ipc.get()); }

// A place on the page, counted; it is free again when the last of its holders lets go. (A killed
// process's count stays.)
std::shared_ptr<void> Hold(IpcEvent* slot) {
  return std::shared_ptr<void>(slot, [](void* p) {
    static_cast<IpcEvent*>(p)->users.fetch_sub(1, std::memory_order_acq_rel);
  });
}

IpcEvent* Place() {
  for (IpcEvent& slot : Process::Get().page()->ipc_event) {
    uint32_t free = 0;
    if (slot.users.compare_exchange_strong(free, 1)) {
      slot.recorded.store(0);
      slot.done.store(0);
      return &slot;
    }
  }
  return nullptr;
}

CUresult OpenMem(CUdeviceptr* out, const CUipcMemHandle& handle, unsigned flags) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  MemToken t;
  memcpy(&t, &handle, sizeof t);
  if (out == nullptr || flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (t.magic != MemToken::kMagic) return CUDA_ERROR_INVALID_HANDLE;
  if (t.row == Process::Get().row()) return CUDA_ERROR_INVALID_CONTEXT;  // one's own memory
  // "If the memory handle has already been opened by this context, the reference count ... is
  // incremented by 1 and the existing device pointer is returned."
  uint64_t known = 0;
  AddressMap::Get().ForEach([&](const Range& r) {
    if (r.kind == RangeKind::kImported && r.import_id == t.name && r.offset == t.within) {
      known = r.base;
    }
  });
  if (known != 0) {
    AddressMap::Get().Update(known, RangeKind::kImported, [](Range& r) { ++r.opened; });
    *out = known;
    return CUDA_SUCCESS;
  }
  Imported in;
  if (CUresult r = ImportBlocks(t.name, &in)) return r;
  uint64_t at = t.within + t.bytes <= in.bytes ? MapImported(in, t.within, t.bytes) : 0;
  if (at == 0) {
    UnimportBlocks(in.id);
    return CUDA_ERROR_MAP_FAILED;
  }
  Range r;
  r.base = at;
  r.bytes = t.bytes;
  r.kind = RangeKind::kImported;
  r.device = in.device;
  r.context = c;
  r.offset = t.within;
  r.import_id = in.id;
  r.opened = 1;
  AddressMap::Get().Insert(r);
  *out = at;
  return CUDA_SUCCESS;
}

}  // namespace

CUresult sim_cuIpcGetMemHandle(CUipcMemHandle* out, CUdeviceptr ptr) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  auto r = AddressMap::Get().Find(ptr);
  if (out == nullptr || !r || r->kind != RangeKind::kDevice) return CUDA_ERROR_INVALID_VALUE;
  MemToken t{};
  t.magic = MemToken::kMagic;
  t.row = Process::Get().row();
  t.bytes = r->bytes;
  if (r->block_bytes != 0) {
    t.name = r->device->ExportBlocks(r->offset, r->block_bytes);
  } else {  // the block that it shares with others goes out whole
    std::lock_guard lock(r->context->mu);
    auto chunk = r->context->small.ChunkAt(r->offset);
    t.name = r->device->ExportBlocks(chunk.offset, chunk.bytes);
    t.within = r->offset - chunk.offset;
  }
  if (t.name == 0) return CUDA_ERROR_OPERATING_SYSTEM;
  memset(out, 0, sizeof *out);
  memcpy(out, &t, sizeof t);
  return CUDA_SUCCESS;
}

CUresult sim_cuIpcOpenMemHandle_v2(CUdeviceptr* out, CUipcMemHandle handle, unsigned int flags) {
  return OpenMem(out, handle, flags);
}
CUresult sim_cuIpcOpenMemHandle(CUdeviceptr* out, CUipcMemHandle handle, unsigned int flags) {
  return OpenMem(out, handle, flags);
}

CUresult sim_cuIpcCloseMemHandle(CUdeviceptr ptr) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  auto r = AddressMap::Get().FindExact(ptr, RangeKind::kImported);
  if (!r) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult e = FinishWorkOn(c)) return e;
  unsigned left = 0;
  AddressMap::Get().Update(ptr, RangeKind::kImported, [&](Range& x) { left = --x.opened; });
  if (left > 0) return CUDA_SUCCESS;
  AddressMap::Get().Remove(ptr, RangeKind::kImported);
  uint64_t first = ptr & ~4095ull;
  munmap(reinterpret_cast<void*>(first), ptr + r->bytes - first);
  UnimportBlocks(r->import_id);
  return CUDA_SUCCESS;
}

CUresult sim_cuIpcGetEventHandle(CUipcEventHandle* out, CUevent handle) {
  Event* e;
  if (CUresult r = EnterEvent(handle, &e)) return r;
  if (out == nullptr || (e->flags & CU_EVENT_INTERPROCESS) == 0) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard lock(e->mu);
  if (e->ipc == nullptr) {
    IpcEvent* slot = Place();
    if (slot == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    e->ipc = Hold(slot);
    if (e->recorded.stream != nullptr) {  // what was recorded before is taken along
      slot->recorded.store(1);
      if (e->done_ns != 0) slot->done.store(1);
    }
  }
  EventToken t{EventToken::kMagic, uint64_t(Shared(e) - Process::Get().page()->ipc_event)};
  memset(out, 0, sizeof *out);
  memcpy(out, &t, sizeof t);
  return CUDA_SUCCESS;
}

CUresult sim_cuIpcOpenEventHandle(CUevent* out, CUipcEventHandle handle) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  EventToken t;
  memcpy(&t, &handle, sizeof t);
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (t.magic != EventToken::kMagic || t.index >= kIpcEvents) return CUDA_ERROR_INVALID_HANDLE;
  IpcEvent* slot = &Process::Get().page()->ipc_event[t.index];
  if (slot->users.fetch_add(1) == 0) {
    slot->users.fetch_sub(1);
    return CUDA_ERROR_INVALID_HANDLE;  // its maker has destroyed it
  }
  Event* e = MakeEvent(c, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING);
  e->ipc = Hold(slot);
  *out = e->handle();
  return CUDA_SUCCESS;
}

// The record counts at once; `done` follows when the stream gets there, whoever looks.
Work IpcRecordWork(Event* e) {
  IpcEvent* slot = Shared(e);
  uint64_t number = slot->recorded.fetch_add(1, std::memory_order_acq_rel) + 1;
  Work w;
  w.effect = [slot, number, keep = e->ipc](uint64_t) {
    uint64_t now = slot->done.load(std::memory_order_relaxed);
    while (now < number && !slot->done.compare_exchange_weak(now, number)) {
    }
  };
  return w;
}

bool WaitIpcEvent(Stream* s, Event* e) {
  IpcEvent* slot = Shared(e);
  uint64_t number = slot->recorded.load(std::memory_order_acquire);
  Work w;
  w.kind = OpKind::kExternal;
  w.satisfied = [slot, number, keep = e->ipc] {
    return slot->done.load(std::memory_order_acquire) >= number;
  };
  Submit(s, std::move(w));
  return true;
}

bool QueryIpcEvent(Event* e, bool* done) {
  IpcEvent* slot = Shared(e);
  *done =
      slot->done.load(std::memory_order_acquire) >= slot->recorded.load(std::memory_order_acquire);
  return true;
}

bool FinishIpcEvent(Event* e) {
  IpcEvent* slot = Shared(e);
  uint64_t number = slot->recorded.load(std::memory_order_acquire);
  std::atomic<uint32_t> never{0};
  uint64_t pause = 20'000;
  while (slot->done.load(std::memory_order_acquire) < number) {
    FutexWait(&never, 0, NowNs() + pause);
    pause = pause < 200'000 ? pause * 3 / 2 : pause;
  }
  return true;
}

}  // namespace divvy::sim
