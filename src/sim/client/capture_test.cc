// Stream capture: what is captured, and what the rules refuse. Documented in the CUDA C++
// Programming Guide ("Creating a Graph Using Stream Capture": "Cross-stream Dependencies and
// Events", "Prohibited and Unhandled Operations", "Invalidation"), and in the driver API's
// cuStreamBeginCapture, cuThreadExchangeStreamCaptureMode, cuStreamGetCaptureInfo,
// cuStreamUpdateCaptureDependencies. Codes that these leave open are those of AMD's hip-tests as
// they expect them of NVIDIA's driver.
#include <functional>
#include <vector>

#include "src/sim/client/test_driver.h"

namespace divvy::sim {
namespace {

class CaptureTest : public DriverTest {
 protected:
  CUgraph End(CUstream stream) {
    CUgraph graph = nullptr;
    EXPECT_EQ(cu().cuStreamEndCapture(stream, &graph), CUDA_SUCCESS);
    EXPECT_NE(graph, nullptr);
    return graph;
  }
  void EndInvalid(CUstream stream) {
    CUgraph graph = reinterpret_cast<CUgraph>(1);
    EXPECT_EQ(cu().cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    EXPECT_EQ(graph, nullptr);
  }
  CUstreamCaptureStatus StatusOf(CUstream stream) {
    CUstreamCaptureStatus s{};
    EXPECT_EQ(cu().cuStreamIsCapturing(stream, &s), CUDA_SUCCESS);
    return s;
  }
  size_t Nodes(CUgraph graph) {
    size_t n = 0;
    EXPECT_EQ(cu().cuGraphGetNodes(graph, nullptr, &n), CUDA_SUCCESS);
    return n;
  }
  size_t Edges(CUgraph graph) {
    size_t n = 0;
    EXPECT_EQ(cu().cuGraphGetEdges_v2(graph, nullptr, nullptr, nullptr, &n), CUDA_SUCCESS);
    return n;
  }
  CUevent NewEvent() {
    CUevent e;
    EXPECT_EQ(cu().cuEventCreate(&e, CU_EVENT_DISABLE_TIMING), CUDA_SUCCESS);
    return e;
  }
  void SetMode(CUstreamCaptureMode mode) {
    EXPECT_EQ(cu().cuThreadExchangeStreamCaptureMode(&mode), CUDA_SUCCESS);
  }
  void Begin(CUstream stream, CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL) {
    ASSERT_EQ(cu().cuStreamBeginCapture_v2(stream, mode), CUDA_SUCCESS);
  }
};

TEST_F(CaptureTest, CapturedWorkDoesNotRunAndReplays) {
  Begin(blocking_);
  EXPECT_EQ(Store(blocking_, words_, 7), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemcpyDtoDAsync_v2(words_ + 4, words_, 4, blocking_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemsetD32Async(words_ + 8, 9, 2, blocking_), CUDA_SUCCESS);
  CUgraph graph = End(blocking_);
  EXPECT_EQ(Nodes(graph), 3u);
  EXPECT_EQ(Edges(graph), 2u);
  EXPECT_EQ(Load(words_), 0u);  // nothing ran
  CUgraphExec exec;
  ASSERT_EQ(cu().cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuGraphDestroy(graph), CUDA_SUCCESS);
  for (int i = 0; i < 2; ++i) {
    Fill(words_, 0);
    Fill(words_ + 4, 0);
    ASSERT_EQ(cu().cuGraphLaunch(exec, free_), CUDA_SUCCESS);
    EXPECT_EQ(Load(words_ + 4), 7u);
    EXPECT_EQ(Load(words_ + 12), 9u);
  }
  EXPECT_EQ(cu().cuGraphExecDestroy(exec), CUDA_SUCCESS);
}

}  // namespace
}  // namespace divvy::sim
