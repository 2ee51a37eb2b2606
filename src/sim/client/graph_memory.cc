// Memory of graphs. (This step: graphs cannot hold memory nodes yet.)
#include "src/sim/client/capture.h"

namespace divvy::sim {
CUresult CaptureAlloc(Stream*, size_t, Pool*, CUdeviceptr*) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult CaptureFree(Stream*, CUdeviceptr) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult FreeGraphMemory(CUdeviceptr) { return CUDA_ERROR_INVALID_VALUE; }
CUresult FreeGraphMemoryAsync(CUdeviceptr, Stream*) { return CUDA_ERROR_INVALID_VALUE; }
}  // namespace divvy::sim
