// Sharing with other processes. (This step: nothing is shared yet.)
#include "src/sim/client/stream.h"

namespace divvy::sim {
void RecordIpcEvent(Event*, Ticket) {}
bool WaitIpcEvent(Stream*, Event*) { return false; }
bool QueryIpcEvent(Event*, bool*) { return false; }
bool FinishIpcEvent(Event*) { return false; }
CUresult FreeManaged(CUdeviceptr) { return CUDA_ERROR_INVALID_VALUE; }
}  // namespace divvy::sim
