// Contexts and the thread's context stack (CUDA Driver API, "Context Management" and "Primary
// Context Management"). The first context of a process on a device costs what a driver's context
// costs; further ones less, because code and runtime heaps are shared.
#include "src/sim/client/context.h"

#include "src/sim/client/graph_memory.h"
#include "src/sim/client/pools.h"
#include "src/sim/generated/driver_functions.h"

#include <mutex>
#include <unordered_set>

namespace divvy::sim {
namespace {

// Every context ever made: a stale handle is told apart from garbage.
struct Registry {
  std::mutex mu;
  std::unordered_set<Context*> all;
  uint64_t next_id = 1;
};
Registry& Contexts() {
  static Registry& r = *new Registry;
  return r;
}

constexpr int kMaxDepth = 256;
struct ThreadStack {  // trivially destructible: calls may come after thread exit handlers
  Context* at[kMaxDepth];
  int depth;
};
thread_local ThreadStack tls_stack;

}  // namespace

Context* Context::From(CUcontext handle) {
  auto* c = reinterpret_cast<Context*>(handle);
  std::lock_guard lock(Contexts().mu);
  return Contexts().all.count(c) != 0 ? c : nullptr;
}

CUresult Enter(Context** context) {
  if (CUresult r = Process::Get().Ready()) return r;
  ThreadStack& s = tls_stack;
  if (s.depth == 0 || s.at[s.depth - 1] == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  Context* c = s.at[s.depth - 1];
  if (c->destroyed.load(std::memory_order_relaxed)) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  if (int e = c->sticky.load(std::memory_order_acquire))
    return CUresult(e);  // pairs with the fault
  *context = c;
  return CUDA_SUCCESS;
}

CUresult MakeContext(Device* device, unsigned flags, bool primary, Context** out) {
  Process& p = Process::Get();
  uint64_t bytes;
  {
    std::lock_guard lock(device->mu);
    bytes = device->contexts == 0 ? p.profile().context_bytes : p.profile().extra_context_bytes;
    if (!BookContext(p.page(), p.row(), device->index(), bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
    ++device->contexts;
  }
  Context* c = new Context;
  c->device = device;
  c->flags = flags;
  c->primary = primary;
  c->api_version = CUDA_VERSION;
  c->booked_bytes = bytes;
  c->limit[CU_LIMIT_STACK_SIZE] = 1024;
  c->limit[CU_LIMIT_PRINTF_FIFO_SIZE] = 1 << 20;
  c->limit[CU_LIMIT_MALLOC_HEAP_SIZE] = 8 << 20;
  c->limit[CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH] = 2;
  c->limit[CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT] = 2048;
  c->limit[CU_LIMIT_MAX_L2_FETCH_GRANULARITY] = 64;
  MakeLegacyStream(c);
  std::lock_guard lock(Contexts().mu);
  c->id = Contexts().next_id++;
  Contexts().all.insert(c);
  *out = c;
  return CUDA_SUCCESS;
}

// The object stays (other threads may have it on their stacks); what it held goes.
void DestroyContext(Context* c) {
  if (c->destroyed.exchange(true)) return;
  ReleaseContextStreams(c);
  ReleaseContextModules(c);
  ReleaseContextMemory(c);
  Process& p = Process::Get();
  bool last;
  {
    std::lock_guard lock(c->device->mu);
    last = --c->device->contexts == 0;
  }
  if (last) {
    ReleasePools(c->device);
    ReleaseGraphMemory(c->device);
  }
  UnbookContext(p.page(), p.row(), c->device->index(), c->booked_bytes);
}

namespace {

CUresult Push(Context* c) {
  if (tls_stack.depth == kMaxDepth) return CUDA_ERROR_OUT_OF_MEMORY;
  tls_stack.at[tls_stack.depth++] = c;
  return CUDA_SUCCESS;
}

void SetTop(Context* c) {
  ThreadStack& s = tls_stack;
  if (c == nullptr) {
    if (s.depth > 0) --s.depth;
  } else if (s.depth == 0) {
    s.at[s.depth++] = c;
  } else {
    s.at[s.depth - 1] = c;
  }
}

CUresult CreateAndPush(CUcontext* out, unsigned flags, CUdevice dev) {
  Process& p = Process::Get();
  if (CUresult r = p.Ready()) return r;
  Device* d = p.device(dev);
  if (d == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  if (out == nullptr || (flags & ~unsigned(CU_CTX_FLAGS_MASK)) != 0 ||
      (flags & CU_CTX_SCHED_MASK) == 3 || (flags & CU_CTX_SCHED_MASK) > 4) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  Context* c;
  if (CUresult r = MakeContext(d, flags, false, &c)) return r;
  *out = c->handle();
  return Push(c);
}

Device* DeviceOf(CUdevice dev, CUresult* why) {
  Process& p = Process::Get();
  *why = p.Ready();
  if (*why) return nullptr;
  Device* d = p.device(dev);
  if (d == nullptr) *why = CUDA_ERROR_INVALID_DEVICE;
  return d;
}

// `handle`, or the current context when null.
CUresult Named(CUcontext handle, Context** out) {
  if (handle == nullptr) return Enter(out);
  if (CUresult r = Process::Get().Ready()) return r;
  *out = Context::From(handle);
  if (*out == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  return (*out)->destroyed ? CUDA_ERROR_CONTEXT_IS_DESTROYED : CUDA_SUCCESS;
}

}  // namespace

CUresult sim_cuCtxCreate_v2(CUcontext* out, unsigned int flags, CUdevice dev) {
  return CreateAndPush(out, flags, dev);
}
CUresult sim_cuCtxCreate(CUcontext* out, unsigned int flags, CUdevice dev) {
  return CreateAndPush(out, flags, dev);
}
CUresult sim_cuCtxCreate_v3(CUcontext* out, CUexecAffinityParam*, int params, unsigned int flags,
                            CUdevice dev) {
  if (params != 0) return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
  return CreateAndPush(out, flags, dev);
}
CUresult sim_cuCtxCreate_v4(CUcontext* out, CUctxCreateParams* params, unsigned int flags,
                            CUdevice dev) {
  if (params != nullptr && params->numExecAffinityParams != 0) {
    return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
  }
  if (params != nullptr && params->cigParams != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
  return CreateAndPush(out, flags, dev);
}

CUresult sim_cuCtxDestroy_v2(CUcontext ctx) {
  if (CUresult r = Process::Get().Ready()) return r;
  Context* c = Context::From(ctx);
  if (c == nullptr || c->primary) return CUDA_ERROR_INVALID_CONTEXT;
  if (c->destroyed) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  // "If ctx is current to the calling thread then ctx will also be popped from the current thread's
  // context stack."
  ThreadStack& s = tls_stack;
  if (s.depth > 0 && s.at[s.depth - 1] == c) --s.depth;
  DestroyContext(c);
  return CUDA_SUCCESS;
}
CUresult sim_cuCtxDestroy(CUcontext ctx) { return sim_cuCtxDestroy_v2(ctx); }

CUresult sim_cuCtxPushCurrent_v2(CUcontext ctx) {
  if (CUresult r = Process::Get().Ready()) return r;
  Context* c = Context::From(ctx);
  if (c == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (c->destroyed) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  return Push(c);
}
CUresult sim_cuCtxPushCurrent(CUcontext ctx) { return sim_cuCtxPushCurrent_v2(ctx); }

CUresult sim_cuCtxPopCurrent_v2(CUcontext* out) {
  if (CUresult r = Process::Get().Ready()) return r;
  ThreadStack& s = tls_stack;
  if (s.depth == 0) return CUDA_ERROR_INVALID_CONTEXT;
  --s.depth;
  if (out != nullptr) *out = s.at[s.depth] == nullptr ? nullptr : s.at[s.depth]->handle();
  return CUDA_SUCCESS;
}
CUresult sim_cuCtxPopCurrent(CUcontext* out) { return sim_cuCtxPopCurrent_v2(out); }

CUresult sim_cuCtxSetCurrent(CUcontext ctx) {
  if (CUresult r = Process::Get().Ready()) return r;
  Context* c = nullptr;
  if (ctx != nullptr) {
    c = Context::From(ctx);
    if (c == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    if (c->destroyed) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  }
  SetTop(c);
  return CUDA_SUCCESS;
}

CUresult sim_cuCtxGetCurrent(CUcontext* out) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  ThreadStack& s = tls_stack;
  Context* c = s.depth > 0 ? s.at[s.depth - 1] : nullptr;
  *out = c == nullptr ? nullptr : c->handle();
  return CUDA_SUCCESS;
}

CUresult sim_cuCtxGetDevice(CUdevice* out) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  ThreadStack& s = tls_stack;
  if (s.depth == 0 || s.at[s.depth - 1] == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *out = s.at[s.depth - 1]->device->ordinal();
  return CUDA_SUCCESS;
}
CUresult sim_cuCtxGetDevice_v2(CUdevice* out, CUcontext ctx) {
  if (ctx == nullptr) return sim_cuCtxGetDevice(out);
  Context* c;
  if (CUresult r = Named(ctx, &c)) return r;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = c->device->ordinal();
  return CUDA_SUCCESS;
}

CUresult sim_cuCtxGetFlags(unsigned int* flags) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *flags = c->flags;
  return CUDA_SUCCESS;
}
CUresult sim_cuCtxSetFlags(unsigned int flags) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if ((flags & ~unsigned(CU_CTX_FLAGS_MASK)) != 0) return CUDA_ERROR_INVALID_VALUE;
  c->flags = flags;
  return CUDA_SUCCESS;
}
CUresult sim_cuCtxGetId(CUcontext ctx, unsigned long long* id) {
  Context* c;
  if (CUresult r = Named(ctx, &c)) return r;
  if (id == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *id = c->id;
  return CUDA_SUCCESS;
}
CUresult sim_cuCtxGetApiVersion(CUcontext ctx, unsigned int* version) {
  Context* c;
  if (CUresult r = Named(ctx, &c)) return r;
  if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *version = c->api_version;
  return CUDA_SUCCESS;
}
CUresult sim_cuCtxGetLimit(size_t* value, CUlimit limit) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (limit < 0 || limit >= CU_LIMIT_MAX) return CUDA_ERROR_UNSUPPORTED_LIMIT;
  *value = c->limit[limit];
  return CUDA_SUCCESS;
}
namespace {

// Local memory of a thread (CUDA C++ Programming Guide, technical specifications).
constexpr size_t kLargestStack = 512 << 10, kStackStep = 16;

// Whole blocks. A stack is there for each thread that the device can hold at once: 216 MiB on the
// 108 multiprocessors of an A100 by default, part of what a context costs.
uint64_t BytesOfLimit(const Profile& profile, CUlimit limit, uint64_t value) {
  if (limit == CU_LIMIT_STACK_SIZE) value *= uint64_t(profile.sm_count) * profile.threads_per_sm;
  return (value + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
}

// More takes device memory at once (heaps at first use on hardware). Less gives that of stacks
// back, also below the default; heaps keep theirs.
CUresult SetMemoryLimit(Context* c, CUlimit limit, size_t value) {
  Process& p = Process::Get();
  const uint32_t device = c->device->index();
  if (value > c->device->total_bytes()) return CUDA_ERROR_OUT_OF_MEMORY;
  std::lock_guard lock(c->mu);
  const uint64_t before = BytesOfLimit(p.profile(), limit, c->limit[limit]),
                 after = BytesOfLimit(p.profile(), limit, value);
  auto& of_contexts = p.page()->row[p.row()].dev[device].context_bytes;
  if (after > before) {
    if (!Book(p.page(), p.row(), device, after - before)) return CUDA_ERROR_OUT_OF_MEMORY;
    of_contexts.fetch_add(after - before);
  } else if (after < before) {
    if (limit != CU_LIMIT_STACK_SIZE) return CUDA_SUCCESS;
    Unbook(p.page(), p.row(), device, before - after);
    of_contexts.fetch_sub(before - after);
  }
  c->booked_bytes += after - before;
  c->limit[limit] = value;
  return CUDA_SUCCESS;
}

}  // namespace

CUresult sim_cuCtxSetLimit(CUlimit limit, size_t value) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (limit < 0 || limit >= CU_LIMIT_MAX) return CUDA_ERROR_UNSUPPORTED_LIMIT;
  const bool stack = limit == CU_LIMIT_STACK_SIZE;
  if (stack || limit == CU_LIMIT_MALLOC_HEAP_SIZE || limit == CU_LIMIT_PRINTF_FIFO_SIZE) {
    if (stack && value > kLargestStack) return CUDA_ERROR_INVALID_VALUE;
    if (stack) value = (value + kStackStep - 1) / kStackStep * kStackStep;
    return SetMemoryLimit(c, limit, value);
  }
  c->limit[limit] = value;
  return CUDA_SUCCESS;
}
CUresult sim_cuCtxGetCacheConfig(CUfunc_cache* config) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *config = CU_FUNC_CACHE_PREFER_NONE;
  return CUDA_SUCCESS;
}
CUresult sim_cuCtxSetCacheConfig(CUfunc_cache) {
  Context* c;
  return Enter(&c);
}
CUresult sim_cuCtxGetSharedMemConfig(CUsharedconfig* config) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *config = CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE;
  return CUDA_SUCCESS;
}
CUresult sim_cuCtxSetSharedMemConfig(CUsharedconfig) {
  Context* c;
  return Enter(&c);
}
CUresult sim_cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;
  return CUDA_SUCCESS;
}
CUresult sim_cuCtxResetPersistingL2Cache(void) {
  Context* c;
  return Enter(&c);
}
CUresult sim_cuCtxGetExecAffinity(CUexecAffinityParam*, CUexecAffinityType) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
}
CUresult sim_cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags) {
  Context *c, *other;
  if (CUresult r = Enter(&c)) return r;
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult r = Named(peer, &other)) return r;
  return other->device == c->device ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}
CUresult sim_cuCtxDisablePeerAccess(CUcontext peer) {
  Context *c, *other;
  if (CUresult r = Enter(&c)) return r;
  return Named(peer, &other);
}
// Deprecated reference counting on contexts made by cuCtxCreate.
CUresult sim_cuCtxAttach(CUcontext* out, unsigned int flags) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (out == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  *out = c->handle();
  return CUDA_SUCCESS;
}
CUresult sim_cuCtxDetach(CUcontext ctx) { return sim_cuCtxDestroy_v2(ctx); }

CUresult sim_cuDevicePrimaryCtxRetain(CUcontext* out, CUdevice dev) {
  CUresult why;
  Device* d = DeviceOf(dev, &why);
  if (d == nullptr) return why;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  static std::mutex& making =
      *new std::mutex;  // one maker; the device's lock is not held meanwhile
  std::lock_guard one(making);
  bool missing;
  unsigned flags;
  {
    std::lock_guard lock(d->mu);
    missing = d->primary == nullptr;
    flags = d->primary_flags;
  }
  if (missing) {
    Context* c;
    if (CUresult r = MakeContext(d, flags, true, &c)) return r;
    std::lock_guard lock(d->mu);
    d->primary = c;
  }
  std::lock_guard lock(d->mu);
  ++d->primary_refs;
  *out = d->primary->handle();
  return CUDA_SUCCESS;
}

CUresult sim_cuDevicePrimaryCtxRelease_v2(CUdevice dev) {
  CUresult why;
  Device* d = DeviceOf(dev, &why);
  if (d == nullptr) return why;
  Context* gone = nullptr;
  {
    std::lock_guard lock(d->mu);
    if (d->primary_refs == 0) return CUDA_ERROR_INVALID_CONTEXT;
    if (--d->primary_refs == 0) std::swap(gone, d->primary);
  }
  if (gone != nullptr) DestroyContext(gone);
  return CUDA_SUCCESS;
}
CUresult sim_cuDevicePrimaryCtxRelease(CUdevice dev) {
  return sim_cuDevicePrimaryCtxRelease_v2(dev);
}

// "Explicitly destroys and cleans up all resources associated with the current device in the
// current process", references or not. It comes back with the next retain.
CUresult sim_cuDevicePrimaryCtxReset_v2(CUdevice dev) {
  CUresult why;
  Device* d = DeviceOf(dev, &why);
  if (d == nullptr) return why;
  Context* gone = nullptr;
  {
    std::lock_guard lock(d->mu);
    std::swap(gone, d->primary);
    d->primary_refs = 0;
  }
  if (gone != nullptr) DestroyContext(gone);
  return CUDA_SUCCESS;
}
CUresult sim_cuDevicePrimaryCtxReset(CUdevice dev) { return sim_cuDevicePrimaryCtxReset_v2(dev); }

CUresult sim_cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int* flags, int* active) {
  CUresult why;
  Device* d = DeviceOf(dev, &why);
  if (d == nullptr) return why;
  std::lock_guard lock(d->mu);
  if (flags != nullptr) *flags = d->primary_flags;
  if (active != nullptr) *active = d->primary != nullptr;
  return CUDA_SUCCESS;
}

CUresult sim_cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned int flags) {
  CUresult why;
  Device* d = DeviceOf(dev, &why);
  if (d == nullptr) return why;
  if ((flags & ~unsigned(CU_CTX_FLAGS_MASK)) != 0) return CUDA_ERROR_INVALID_VALUE;
  std::lock_guard lock(d->mu);
  d->primary_flags = flags;
  if (d->primary != nullptr) d->primary->flags = flags;
  return CUDA_SUCCESS;
}
CUresult sim_cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned int flags) {
  return sim_cuDevicePrimaryCtxSetFlags_v2(dev, flags);
}

}  // namespace divvy::sim
