// For the tests of stream capture: beginning and ending one, and what it left.
#pragma once

#include <vector>

#include "src/sim/client/test_driver.h"

namespace divvy::sim {

class CaptureTest : public DriverTest {
 protected:
  void Begin(CUstream stream, CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL) {
    ASSERT_EQ(cu().cuStreamBeginCapture_v2(stream, mode), CUDA_SUCCESS);
  }
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
  CUevent NewEvent(unsigned flags = CU_EVENT_DISABLE_TIMING) {
    CUevent e;
    EXPECT_EQ(cu().cuEventCreate(&e, flags), CUDA_SUCCESS);
    return e;
  }
  void SetMode(CUstreamCaptureMode mode) {
    EXPECT_EQ(cu().cuThreadExchangeStreamCaptureMode(&mode), CUDA_SUCCESS);
  }
};

}  // namespace divvy::sim
