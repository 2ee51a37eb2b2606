// Stream capture as the other files need it: streams whose work becomes nodes of a graph instead of
// running, and the rules that keep captured and uncaptured work apart (CUDA C++ Programming Guide,
// "Creating a Graph Using Stream Capture"; cuThreadExchangeStreamCaptureMode).
//
// Every driver call that enqueues, queries or waits asks here first: one load when no capture is
// open in the process. Takes the graph lock: the caller holds no lock. Any thread.
#pragma once

#include <atomic>

#include "src/sim/client/node.h"
#include "src/sim/client/stream.h"

namespace divvy::sim {

inline std::atomic<int> open_captures{0};
inline bool AnyCapture() { return open_captures.load(std::memory_order_relaxed) != 0; }

// A call that "may be unsafe" (cuMemAlloc, cuMemFree, cuEventQuery, ...): refused (900), and the
// captures concerned invalidated, while this thread's mode and the captures in progress forbid it.
CUresult RefuseUnsafeCall();

// A call that synchronises or queries this stream, or enqueues into it and waits (cuMemcpyHtoD in
// the NULL stream): 900 when it captures, 901 when its capture is invalid, 906 when it is the
// legacy stream and a blocking stream of its context captures. Otherwise an unsafe call.
CUresult RefuseSyncOfStream(Stream* stream);
// 900 when any stream of the context captures, in whatever mode.
CUresult RefuseSyncOfContext(Context* context);
CUresult RefuseSyncOfEvent(Event* event);  // 907 for an event recorded in a capture
CUresult RefuseTimeOfEvent(Event* event);  // the same, and no unsafe call
// A stream call that graphs have no node for (cuStreamAttachMemAsync, ...): 900 when it captures.
CUresult RefuseCaptured(Stream* stream);

// cuEventRecord and cuStreamWaitEvent with capture's rules.
CUresult RecordOrCapture(Stream* stream, Event* event, unsigned flags);
CUresult WaitOrCapture(Stream* stream, Event* event, unsigned flags);
// The event was recorded anew in a stream that does not capture, or is destroyed.
void ForgetCaptured(Event* event);
// The stream is destroyed: a capture in it is invalidated.
void DropCapture(Stream* stream);

// Whether the stream captures; the errors of any enqueueing call.
CUresult IsCaptured(Stream* stream, bool* captured);
// Submits to the stream, or adds a node to the graph that it captures into.
CUresult SubmitOrCapture(Stream* stream, NodeParams params);

// cuMemAllocAsync and cuMemFreeAsync in a stream that IsCaptured: graph memory nodes ("During
// stream capture, this function results in the creation of an allocation node").
CUresult CaptureAlloc(Stream* stream, size_t bytes, Pool* pool, CUdeviceptr* out);
CUresult CaptureFree(Stream* stream, CUdeviceptr ptr);

// Driver calls of the simulator's own are never unsafe.
class RelaxedCapture {
 public:
  RelaxedCapture();
  ~RelaxedCapture();
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  CUstreamCaptureMode before_;
};

}  // namespace divvy::sim
