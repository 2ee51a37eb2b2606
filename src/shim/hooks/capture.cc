// Stream capture and streams. Only the number of captures that the process has open is kept: while
// it is zero no stream has to be asked whether it is recording. It may be too high (a capture that
// ended with its stream), never too low.
#include "src/shim/hooks/hook.h"

namespace divvy::shim {
namespace {

// Counted before the driver begins, so that no allocation beside it is mistaken for one in the
// stream's own time; taken back if it did not.
template <typename Begin>
CUresult BeginCapture(CUstream stream, const Begin& begin) noexcept {
  // In a capture the stream takes no marker.
  if (Metering()) MeterBeforeWait(stream);
  g_process.open_captures.fetch_add(1, std::memory_order_relaxed);
  const CUresult r = begin();
  if (r != CUDA_SUCCESS) g_process.open_captures.fetch_sub(1, std::memory_order_relaxed);
  return r;
}

// Ends also when the driver says that the capture had been invalidated.
CUresult Ended(CUresult r) noexcept {
  const bool ended = r == CUDA_SUCCESS || r == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED ||
                     r == CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  uint32_t open = g_process.open_captures.load(std::memory_order_relaxed);
  while (
      ended && open > 0 &&
      !g_process.open_captures.compare_exchange_weak(open, open - 1, std::memory_order_relaxed)) {
  }
  if (ended && Metering()) MeterBeforeWait(nullptr);  // what had to go unmarked beside it
  return r;
}

}  // namespace

bool IsCapturing(CUstream stream, bool per_thread) noexcept {
  if (__builtin_expect(g_process.open_captures.load(std::memory_order_relaxed) == 0, 1))
    return false;
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  const CUresult r = per_thread ? g_driver.cuStreamIsCapturing_ptsz(stream, &status)
                                : g_driver.cuStreamIsCapturing(stream, &status);
  // The legacy stream beside a blocking capture answers with an error and is not recording.
  return r == CUDA_SUCCESS && status != CU_STREAM_CAPTURE_STATUS_NONE;
}

CUresult hook_cuStreamBeginCapture(CUstream hStream) noexcept {
  DIVVY_ENTER(cuStreamBeginCapture, (hStream));
  return BeginCapture(hStream, [&] { return g_driver.cuStreamBeginCapture(hStream); });
}
CUresult hook_cuStreamBeginCapture_ptsz(CUstream hStream) noexcept {
  DIVVY_ENTER(cuStreamBeginCapture_ptsz, (hStream));
  return BeginCapture(StreamOr(hStream, CU_STREAM_PER_THREAD),
                      [&] { return g_driver.cuStreamBeginCapture_ptsz(hStream); });
}
CUresult hook_cuStreamBeginCapture_v2(CUstream hStream, CUstreamCaptureMode mode) noexcept {
  DIVVY_ENTER(cuStreamBeginCapture_v2, (hStream, mode));
  return BeginCapture(hStream, [&] { return g_driver.cuStreamBeginCapture_v2(hStream, mode); });
}
CUresult hook_cuStreamBeginCapture_v2_ptsz(CUstream hStream, CUstreamCaptureMode mode) noexcept {
  DIVVY_ENTER(cuStreamBeginCapture_v2_ptsz, (hStream, mode));
  return BeginCapture(StreamOr(hStream, CU_STREAM_PER_THREAD),
                      [&] { return g_driver.cuStreamBeginCapture_v2_ptsz(hStream, mode); });
}
CUresult hook_cuStreamBeginCaptureToGraph(CUstream hStream, CUgraph hGraph,
                                          const CUgraphNode* dependencies,
                                          const CUgraphEdgeData* dependencyData,
                                          size_t numDependencies,
                                          CUstreamCaptureMode mode) noexcept {
  DIVVY_ENTER(cuStreamBeginCaptureToGraph,
              (hStream, hGraph, dependencies, dependencyData, numDependencies, mode));
  return BeginCapture(hStream, [&] {
    return g_driver.cuStreamBeginCaptureToGraph(hStream, hGraph, dependencies, dependencyData,
                                                numDependencies, mode);
  });
}
CUresult hook_cuStreamBeginCaptureToGraph_ptsz(CUstream hStream, CUgraph hGraph,
                                               const CUgraphNode* dependencies,
                                               const CUgraphEdgeData* dependencyData,
                                               size_t numDependencies,
                                               CUstreamCaptureMode mode) noexcept {
  DIVVY_ENTER(cuStreamBeginCaptureToGraph_ptsz,
              (hStream, hGraph, dependencies, dependencyData, numDependencies, mode));
  return BeginCapture(StreamOr(hStream, CU_STREAM_PER_THREAD), [&] {
    return g_driver.cuStreamBeginCaptureToGraph_ptsz(hStream, hGraph, dependencies, dependencyData,
                                                     numDependencies, mode);
  });
}
CUresult hook_cuStreamEndCapture(CUstream hStream, CUgraph* phGraph) noexcept {
  DIVVY_ENTER(cuStreamEndCapture, (hStream, phGraph));
  return Ended(g_driver.cuStreamEndCapture(hStream, phGraph));
}
CUresult hook_cuStreamEndCapture_ptsz(CUstream hStream, CUgraph* phGraph) noexcept {
  DIVVY_ENTER(cuStreamEndCapture_ptsz, (hStream, phGraph));
  return Ended(g_driver.cuStreamEndCapture_ptsz(hStream, phGraph));
}

// Streams are not followed: which device a stream is on is asked when it matters, and those with
// metered work have a lane.
DIVVY_FORWARDED(cuStreamCreate, (CUstream * phStream, unsigned int Flags), (phStream, Flags))
DIVVY_FORWARDED(cuStreamCreateWithPriority, (CUstream * phStream, unsigned int flags, int priority),
                (phStream, flags, priority))
DIVVY_FORWARDED(cuGreenCtxStreamCreate,
                (CUstream * phStream, CUgreenCtx greenCtx, unsigned int flags, int priority),
                (phStream, greenCtx, flags, priority))

// A destroyed stream's work goes on to its end, which a marker tells; then its lane is free.
CUresult hook_cuStreamDestroy(CUstream hStream) noexcept {
  EnsureDriver();
  MeterStreamEnds(hStream);
  return g_driver.cuStreamDestroy(hStream);
}
CUresult hook_cuStreamDestroy_v2(CUstream hStream) noexcept {
  EnsureDriver();
  MeterStreamEnds(hStream);
  return g_driver.cuStreamDestroy_v2(hStream);
}

}  // namespace divvy::shim
