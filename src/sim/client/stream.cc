// Streams (CUDA Driver API, "Stream Management"): handles, creation, synchronisation. What capture
// adds is in capture.cc, what they carry in work.cc.
#include "src/sim/client/stream.h"

#include <map>
#include <unordered_set>
#include <vector>

#include "src/sim/client/capture.h"
#include "src/sim/client/per_thread.h"
#include "src/sim/client/pools.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

// A thread's default streams, one for each context it has used.
struct ThreadStreams {
  Context* context;
  Stream* stream;
  ThreadStreams* next;
};
thread_local ThreadStreams* tls_streams;

struct Registry {
  std::mutex mu;
  std::unordered_set<Stream*> all;  // ever made: stale handles are told from garbage
  std::map<Context*, std::vector<Stream*>> of;
  std::vector<ThreadStreams*> of_threads;  // for as long as the process lives
  uint64_t next_id = 1;
};
Registry& Streams() {
  static Registry& r = *new Registry;
  return r;
}

}  // namespace

Stream* MakeStream(Context* c, unsigned flags, int priority) {
  Stream* s = new Stream;
  s->context = c;
  s->flags = flags;
  s->priority = priority;
  s->queue.number = NewQueueNumber();
  Registry& r = Streams();
  std::lock_guard lock(r.mu);
  s->id = r.next_id++;
  r.all.insert(s);
  r.of[c].push_back(s);
  return s;
}

void DestroyStream(Stream* s) {
  s->destroyed = true;
  {
    Registry& r = Streams();
    std::lock_guard lock(r.mu);
    std::erase(r.of[s->context], s);
  }
  EndQueue(s);
}

namespace {

// A synchronising call: pools let go of what they hold above their threshold.
CUresult Wait(Stream* s) {
  CUresult r = Finish(LastOf(s));
  PoolsAtSync(s->context->device);
  return r;
}

}  // namespace

Stream* LegacyStream(Context* c) { return c->legacy; }

void MakeLegacyStream(Context* c) {
  c->legacy = MakeStream(c, CU_STREAM_DEFAULT, 0);
  c->legacy->legacy = true;
}

Stream* ThreadStream(Context* c) {
  for (ThreadStreams* t = tls_streams; t != nullptr; t = t->next) {
    if (t->context == c) return t->stream;
  }
  Stream* s = MakeStream(c, CU_STREAM_DEFAULT, 0);
  s->per_thread = true;
  tls_streams = new ThreadStreams{c, s, tls_streams};
  std::lock_guard lock(Streams().mu);
  Streams().of_threads.push_back(tls_streams);
  return s;
}

std::vector<Stream*> StreamsOf(Context* c) {
  std::lock_guard lock(Streams().mu);
  return Streams().of[c];
}

CUresult EnterStream(CUstream handle, Stream** out) {
  if (handle == nullptr || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) {
    Context* c;
    if (CUresult r = Enter(&c)) return r;
    bool own = handle == CU_STREAM_PER_THREAD || (handle == nullptr && PerThreadDefault::on());
    *out = own ? ThreadStream(c) : LegacyStream(c);
    return CUDA_SUCCESS;
  }
  if (CUresult r = Process::Get().Ready()) return r;
  auto* s = reinterpret_cast<Stream*>(handle);
  {
    std::lock_guard lock(Streams().mu);
    if (Streams().all.count(s) == 0) return CUDA_ERROR_INVALID_HANDLE;
  }
  if (s->context->destroyed) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  if (s->destroyed) return CUDA_ERROR_INVALID_HANDLE;
  if (int e = s->context->sticky.load(std::memory_order_acquire)) return CUresult(e);
  *out = s;
  return CUDA_SUCCESS;
}

CUresult FinishWorkOn(Context* c) {
  for (Stream* s : StreamsOf(c)) {
    if (CUresult r = Wait(s)) return r;
  }
  return CUresult(c->sticky.load(std::memory_order_acquire));
}

// The context goes: its work is cut off, as a context's end does on the device.
void ReleaseContextStreams(Context* c) {
  DropWork(c);
  for (Stream* s : StreamsOf(c)) {
    DropCapture(s);
    (void)Finish(LastOf(s));
    s->destroyed = true;
    EndQueue(s);
  }
  std::lock_guard lock(Streams().mu);
  Streams().of.erase(c);
}

CUresult sim_cuStreamCreateWithPriority(CUstream* out, unsigned int flags, int priority) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (out == nullptr || (flags & ~unsigned(CU_STREAM_NON_BLOCKING)) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  // "If priority is specified outside the numerical range ..., it will automatically be clamped"
  *out = MakeStream(c, flags, std::min(0, std::max(-5, priority)))->handle();
  return CUDA_SUCCESS;
}

CUresult sim_cuStreamCreate(CUstream* out, unsigned int flags) {
  return sim_cuStreamCreateWithPriority(out, flags, 0);
}

// "the function will return immediately and the resources ... released once the device has
// completed"
CUresult sim_cuStreamDestroy_v2(CUstream handle) {
  if (handle == nullptr || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  Stream* s;
  CUresult r = EnterStream(handle, &s);
  if (r != CUDA_SUCCESS) return r;
  DropCapture(s);
  DestroyStream(s);
  return CUDA_SUCCESS;
}
CUresult sim_cuStreamDestroy(CUstream handle) { return sim_cuStreamDestroy_v2(handle); }

CUresult sim_cuStreamSynchronize(CUstream handle) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  if (CUresult r = RefuseSyncOfStream(s)) return r;
  if (s->legacy) {  // everything that the NULL stream would wait for
    for (Stream* other : StreamsOf(s->context)) {
      if (!other->blocking()) continue;
      if (CUresult r = Wait(other)) return r;
    }
    return CUDA_SUCCESS;
  }
  return Wait(s);
}

CUresult sim_cuStreamQuery(CUstream handle) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  if (CUresult r = RefuseSyncOfStream(s)) return r;
  bool ended = HasEnded(LastOf(s));
  if (ended && s->legacy) {
    for (Stream* other : StreamsOf(s->context)) {
      ended = ended && (!other->blocking() || HasEnded(LastOf(other)));
    }
  }
  if (int e = s->context->sticky.load(std::memory_order_acquire)) return CUresult(e);
  return ended ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult sim_cuStreamGetFlags(CUstream handle, unsigned int* flags) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *flags = s->flags;
  return CUDA_SUCCESS;
}
CUresult sim_cuStreamGetPriority(CUstream handle, int* priority) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  if (priority == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *priority = s->priority;
  return CUDA_SUCCESS;
}
CUresult sim_cuStreamGetId(CUstream handle, unsigned long long* id) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  if (id == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *id = s->id;
  return CUDA_SUCCESS;
}
CUresult sim_cuStreamGetCtx(CUstream handle, CUcontext* ctx) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  if (ctx == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *ctx = s->context->handle();
  return CUDA_SUCCESS;
}
CUresult sim_cuStreamGetCtx_v2(CUstream handle, CUcontext* ctx, CUgreenCtx* green) {
  if (green != nullptr) *green = nullptr;
  return sim_cuStreamGetCtx(handle, ctx);
}
CUresult sim_cuStreamGetDevice(CUstream handle, CUdevice* device) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *device = s->context->device->ordinal();
  return CUDA_SUCCESS;
}
CUresult sim_cuStreamAttachMemAsync(CUstream handle, CUdeviceptr, size_t, unsigned int) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  return RefuseCaptured(s);
}
CUresult sim_cuStreamGetAttribute(CUstream handle, CUstreamAttrID attr, CUstreamAttrValue* value) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *value = {};
  if (attr == CU_LAUNCH_ATTRIBUTE_PRIORITY) value->priority = s->priority;
  if (attr == CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY) value->syncPolicy = CU_SYNC_POLICY_AUTO;
  return CUDA_SUCCESS;
}
CUresult sim_cuStreamSetAttribute(CUstream handle, CUstreamAttrID attr,
                                  const CUstreamAttrValue* value) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (attr == CU_LAUNCH_ATTRIBUTE_PRIORITY) s->priority = value->priority;
  return CUDA_SUCCESS;
}
CUresult sim_cuStreamCopyAttributes(CUstream dst, CUstream src) {
  Stream *d, *s;
  if (CUresult r = EnterStream(dst, &d)) return r;
  if (CUresult r = EnterStream(src, &s)) return r;
  d->priority = s->priority;
  return CUDA_SUCCESS;
}

CUresult sim_cuCtxSynchronize(void) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (CUresult r = RefuseSyncOfContext(c)) return r;
  return FinishWorkOn(c);
}
CUresult sim_cuCtxSynchronize_v2(CUcontext ctx) {
  if (ctx == nullptr) return sim_cuCtxSynchronize();
  if (CUresult r = Process::Get().Ready()) return r;
  Context* c = Context::From(ctx);
  if (c == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  if (c->destroyed) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  if (CUresult r = RefuseSyncOfContext(c)) return r;
  return FinishWorkOn(c);
}

}  // namespace divvy::sim
