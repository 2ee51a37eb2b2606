// Events (CUDA Driver API, "Event Management"). An event remembers the op that its last record put
// into a stream; its time is when that op ended.
#include <unordered_set>

#include "src/sim/client/capture.h"
#include "src/sim/client/pools.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

struct Registry {
  std::mutex mu;
  std::unordered_set<Event*> all;
};
Registry& Events() {
  static Registry& r = *new Registry;
  return r;
}

constexpr unsigned kKnownFlags =
    CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;

}  // namespace

Event* MakeEvent(Context* c, unsigned flags) {
  Event* e = new Event;
  e->context = c;
  e->flags = flags;
  std::lock_guard lock(Events().mu);
  Events().all.insert(e);
  return e;
}

CUresult EnterEvent(CUevent handle, Event** out) {
  if (CUresult r = Process::Get().Ready()) return r;
  auto* e = reinterpret_cast<Event*>(handle);
  {
    std::lock_guard lock(Events().mu);
    if (Events().all.count(e) == 0) return CUDA_ERROR_INVALID_HANDLE;
  }
  if (e->destroyed) return CUDA_ERROR_INVALID_HANDLE;
  if (e->context->destroyed) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  if (int s = e->context->sticky.load(std::memory_order_acquire)) return CUresult(s);
  *out = e;
  return CUDA_SUCCESS;
}

Ticket RecordEvent(Event* e, Stream* s) {
  if (e->captured.load(std::memory_order_acquire)) ForgetCaptured(e);  // pairs with the record
  uint64_t generation;
  {
    std::lock_guard lock(e->mu);
    generation = ++e->generation;
    e->done_ns = 0;
  }
  Work w;
  w.effect = [e, generation](uint64_t done_ns) {
    std::lock_guard lock(e->mu);
    if (e->generation == generation) e->done_ns = done_ns;
  };
  w.visible = false;
  if (e->ipc != nullptr) Submit(s, IpcRecordWork(e));
  Ticket t = Submit(s, std::move(w));
  std::lock_guard lock(e->mu);
  if (e->generation == generation) e->recorded = t;
  return t;
}

void WaitEvent(Stream* s, Event* e) {
  if (e->ipc != nullptr && WaitIpcEvent(s, e)) return;
  Ticket t;
  {
    std::lock_guard lock(e->mu);
    t = e->recorded;
  }
  SubmitWait(s, t);  // "If cuEventRecord() has not been called on hEvent, this call acts as if ...
                     // completed"
}

CUresult sim_cuEventCreate(CUevent* out, unsigned int flags) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (out == nullptr || (flags & ~kKnownFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
  // "CU_EVENT_INTERPROCESS must be specified along with CU_EVENT_DISABLE_TIMING"
  if ((flags & CU_EVENT_INTERPROCESS) != 0 && (flags & CU_EVENT_DISABLE_TIMING) == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *out = MakeEvent(c, flags)->handle();
  return CUDA_SUCCESS;
}

CUresult sim_cuEventDestroy_v2(CUevent handle) {
  Event* e;
  if (CUresult r = EnterEvent(handle, &e)) return r;
  e->destroyed = true;
  if (e->captured.load(std::memory_order_acquire)) ForgetCaptured(e);  // pairs with the record
  std::lock_guard lock(e->mu);
  e->ipc.reset();
  return CUDA_SUCCESS;
}
CUresult sim_cuEventDestroy(CUevent handle) { return sim_cuEventDestroy_v2(handle); }

CUresult sim_cuEventRecordWithFlags(CUevent handle, CUstream stream, unsigned int flags) {
  Event* e;
  Stream* s;
  if (CUresult r = EnterEvent(handle, &e)) return r;
  if (CUresult r = EnterStream(stream, &s)) return r;
  if (e->context != s->context) return CUDA_ERROR_INVALID_HANDLE;
  if ((flags & ~unsigned(CU_EVENT_RECORD_EXTERNAL)) != 0) return CUDA_ERROR_INVALID_VALUE;
  return RecordOrCapture(s, e, flags);
}
CUresult sim_cuEventRecord(CUevent handle, CUstream stream) {
  return sim_cuEventRecordWithFlags(handle, stream, CU_EVENT_RECORD_DEFAULT);
}

CUresult sim_cuStreamWaitEvent(CUstream stream, CUevent handle, unsigned int flags) {
  Event* e;
  Stream* s;
  if (CUresult r = EnterEvent(handle, &e)) return r;
  if (CUresult r = EnterStream(stream, &s)) return r;
  if ((flags & ~unsigned(CU_EVENT_WAIT_EXTERNAL)) != 0) return CUDA_ERROR_INVALID_VALUE;
  return WaitOrCapture(s, e, flags);
}

CUresult sim_cuEventQuery(CUevent handle) {
  Event* e;
  if (CUresult r = EnterEvent(handle, &e)) return r;
  if (CUresult r = RefuseSyncOfEvent(e)) return r;
  bool done;
  if (e->ipc != nullptr && QueryIpcEvent(e, &done)) {
    return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
  }
  Ticket t;
  {
    std::lock_guard lock(e->mu);
    t = e->recorded;
  }
  done = HasEnded(t);
  if (int s = e->context->sticky.load(std::memory_order_acquire)) return CUresult(s);
  return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult sim_cuEventSynchronize(CUevent handle) {
  Event* e;
  if (CUresult r = EnterEvent(handle, &e)) return r;
  if (CUresult r = RefuseSyncOfEvent(e)) return r;
  if (e->ipc != nullptr && FinishIpcEvent(e)) return CUDA_SUCCESS;
  Ticket t;
  {
    std::lock_guard lock(e->mu);
    t = e->recorded;
  }
  CUresult r = Finish(t);
  PoolsAtSync(e->context->device);
  return r;
}

CUresult sim_cuEventElapsedTime_v2(float* ms, CUevent start, CUevent end) {
  Event *a, *b;
  if (CUresult r = EnterEvent(start, &a)) return r;
  if (CUresult r = EnterEvent(end, &b)) return r;
  if (ms == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult r = RefuseTimeOfEvent(a)) return r;
  if (CUresult r = RefuseTimeOfEvent(b)) return r;
  if (((a->flags | b->flags) & CU_EVENT_DISABLE_TIMING) != 0) return CUDA_ERROR_INVALID_HANDLE;
  uint64_t at[2];
  Event* events[2] = {a, b};
  Ticket recorded[2];
  for (int i = 0; i < 2; ++i) {
    std::lock_guard lock(events[i]->mu);
    recorded[i] = events[i]->recorded;
  }
  if (recorded[0].stream == nullptr || recorded[1].stream == nullptr) {
    return CUDA_ERROR_INVALID_HANDLE;  // never recorded
  }
  if (!HasEnded(recorded[0]) || !HasEnded(recorded[1])) return CUDA_ERROR_NOT_READY;
  for (int i = 0; i < 2; ++i) {
    std::lock_guard lock(events[i]->mu);
    at[i] = events[i]->done_ns;
  }
  *ms = float(double(int64_t(at[1] - at[0])) / 1e6);
  return CUDA_SUCCESS;
}
CUresult sim_cuEventElapsedTime(float* ms, CUevent start, CUevent end) {
  return sim_cuEventElapsedTime_v2(ms, start, end);
}

}  // namespace divvy::sim
