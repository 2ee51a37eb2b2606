// Stream capture. (This step: nothing captures yet, everything is submitted.)
#include "src/sim/client/capture.h"

namespace divvy::sim {

CUresult RefuseUnsafeCall() { return CUDA_SUCCESS; }
CUresult RefuseSyncOfStream(Stream*) { return CUDA_SUCCESS; }
CUresult RefuseSyncOfContext(Context*) { return CUDA_SUCCESS; }
CUresult RefuseSyncOfEvent(Event*) { return CUDA_SUCCESS; }

CUresult RecordOrCapture(Stream* stream, Event* event, unsigned) {
  RecordEvent(event, stream);
  return CUDA_SUCCESS;
}
CUresult WaitOrCapture(Stream* stream, Event* event, unsigned) {
  WaitEvent(stream, event);
  return CUDA_SUCCESS;
}
void DropCapture(Stream*) {}

CUresult SubmitOrCapture(Stream* stream, NodeParams params) {
  SubmitNode(stream, params);
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
