// Streams. (First step: no work exists yet.)
#include "src/sim/client/stream.h"

namespace divvy::sim {
CUresult FinishWorkOn(Context*) { return CUDA_SUCCESS; }
CUresult RefuseUnsafeCall() { return CUDA_SUCCESS; }
CUresult FreeManaged(CUdeviceptr) { return CUDA_ERROR_INVALID_VALUE; }
CUresult FreePoolNow(CUdeviceptr) { return CUDA_ERROR_INVALID_VALUE; }
CUresult FreeGraphMemory(CUdeviceptr) { return CUDA_ERROR_INVALID_VALUE; }
void ReleaseContextStreams(Context*) {}
}  // namespace divvy::sim
