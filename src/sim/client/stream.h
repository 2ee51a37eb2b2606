// Streams as other files need them.
#pragma once

#include "src/sim/client/context.h"

namespace divvy::sim {

// cuMemFree and other implicitly synchronising calls: until all work of the context has ended.
CUresult FinishWorkOn(Context* context);

// For calls that "may be unsafe" while this thread's capture mode forbids them
// (cuThreadExchangeStreamCaptureMode): invalidates the captures concerned.
CUresult RefuseUnsafeCall();

// Freeing by address what these files own.
CUresult FreeManaged(CUdeviceptr ptr);      // managed.cc
CUresult FreePoolNow(CUdeviceptr ptr);      // pools.cc: cuMemFree of stream-ordered memory
CUresult FreeGraphMemory(CUdeviceptr ptr);  // graph_memory.cc

}  // namespace divvy::sim
