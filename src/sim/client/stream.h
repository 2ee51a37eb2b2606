// Streams and events as other files need them.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "src/sim/client/context.h"
#include "src/sim/client/work.h"

namespace divvy::sim {

struct Stream {
  static constexpr uint64_t kLive = 0x5354524541ull;
  uint64_t magic = kLive;
  Context* context = nullptr;
  unsigned flags = 0;
  int priority = 0;
  bool legacy = false;      // the context's NULL stream
  bool per_thread = false;  // a thread's default stream
  uint64_t id = 0;
  std::atomic<bool> destroyed{false};
  Queue queue;

  bool blocking() const { return (flags & CU_STREAM_NON_BLOCKING) == 0; }
  CUstream handle() { return reinterpret_cast<CUstream>(this); }
};

struct Event {
  static constexpr uint64_t kLive = 0x4556454E54ull;
  uint64_t magic = kLive;
  Context* context = nullptr;
  unsigned flags = 0;
  std::atomic<bool> destroyed{false};
  std::atomic<bool> captured{false};  // last recorded in a capturing stream; capture.cc
  std::mutex mu;                      // guards what follows
  Ticket recorded;                    // stream null: never recorded
  uint64_t generation = 0;            // of the record
  uint64_t done_ns = 0;               // end of the recorded op; 0: not yet
  std::shared_ptr<void> ipc;          // ipc.cc: shared with other processes

  CUevent handle() { return reinterpret_cast<CUevent>(this); }
};

// The stream that a handle means in the current context (null and the two special handles included)
// and its context, which may be another one: CUDA_ERROR_INVALID_HANDLE and the sticky error of the
// stream's own context. Includes Enter().
CUresult EnterStream(CUstream handle, Stream** stream);
CUresult EnterEvent(CUevent handle, Event** event);

Stream* MakeStream(Context* context, unsigned flags, int priority);
void DestroyStream(Stream* stream);       // drains by itself
void MakeLegacyStream(Context* context);  // once, when the context is made
Stream* LegacyStream(Context* context);
Stream* ThreadStream(Context* context);
// Every stream of the context, the legacy one first.
std::vector<Stream*> StreamsOf(Context* context);

// Until all work of the context has ended; its sticky error.
CUresult FinishWorkOn(Context* context);

// Records without capture rules: what a plain cuEventRecord and an event record node do.
Ticket RecordEvent(Event* event, Stream* stream);
// Waits without capture rules.
void WaitEvent(Stream* stream, Event* event);

Event* MakeEvent(Context* context, unsigned flags);

// ipc.cc: events that several processes share (event->ipc is set).
Work IpcRecordWork(Event* event);
bool WaitIpcEvent(Stream* stream, Event* event);
bool QueryIpcEvent(Event* event, bool* done);
bool FinishIpcEvent(Event* event);

// Freeing by address what these files own.
CUresult FreeManaged(CUdeviceptr ptr);      // managed.cc
CUresult FreePoolNow(CUdeviceptr ptr);      // pools.cc: cuMemFree of stream-ordered memory
CUresult FreeGraphMemory(CUdeviceptr ptr);  // graph_memory.cc
CUresult FreeGraphMemoryAsync(CUdeviceptr ptr, Stream* stream);

}  // namespace divvy::sim
