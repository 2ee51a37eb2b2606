// Stream capture as the other files need it: whether a call is allowed now, and where a submission
// to a capturing stream goes (CUDA Driver API, cuStreamBeginCapture,
// cuThreadExchangeStreamCaptureMode).
#pragma once

#include "src/sim/client/node.h"
#include "src/sim/client/stream.h"

namespace divvy::sim {

// A call that "may be unsafe" (cuMemAlloc, cuMemFree, cuEventQuery, ...): refused, and the captures
// concerned invalidated, while this thread's mode and the captures in progress forbid it.
CUresult RefuseUnsafeCall();

// A call that synchronises this stream, or everything in the context, or uses the legacy stream
// while a capture in the context could see it (900, 901, 906): refused, captures invalidated.
CUresult RefuseSyncOfStream(Stream* stream);
CUresult RefuseSyncOfContext(Context* context);
CUresult RefuseSyncOfEvent(Event* event);  // 907 for an event recorded in a capture

// cuEventRecord and cuStreamWaitEvent with capture's rules.
CUresult RecordOrCapture(Stream* stream, Event* event, unsigned flags);
CUresult WaitOrCapture(Stream* stream, Event* event, unsigned flags);
// The stream is destroyed: a capture in it is invalidated.
void DropCapture(Stream* stream);

// cuMemAllocAsync and cuMemFreeAsync in a capturing stream: graph memory nodes.
CUresult CaptureAlloc(Stream* stream, size_t bytes, Pool* pool, CUdeviceptr* out);
CUresult CaptureFree(Stream* stream, CUdeviceptr ptr);

// Submits to the stream, or adds a node to the graph that it captures into.
CUresult SubmitOrCapture(Stream* stream, NodeParams params);

}  // namespace divvy::sim
