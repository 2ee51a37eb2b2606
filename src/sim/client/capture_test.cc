// Stream capture: what is captured, how streams fork and join, and how a capture ends. Documented
// in the CUDA C++ Programming Guide ("Creating a Graph Using Stream Capture", "Cross-stream
// Dependencies and Events"), and in the driver API's cuStreamBeginCapture, cuStreamEndCapture,
// cuStreamGetCaptureInfo, cuStreamUpdateCaptureDependencies. Codes that these leave open are those
// that AMD's hip-tests expect of NVIDIA's driver.
#include "src/sim/client/capture_test.h"

namespace divvy::sim {
namespace {

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

// Every kind of stream call that graphs have a node for.
TEST_F(CaptureTest, NodeTypes) {
  Begin(free_);
  CUevent e = NewEvent();
  std::vector<uint32_t> host(4);
  CUdeviceptr memory;
  EXPECT_EQ(Spin(free_, 1000), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemcpyDtoHAsync_v2(host.data(), words_, 16, free_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemcpyHtoDAsync_v2(words_, host.data(), 16, free_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemsetD8Async(words_, 1, 4, free_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuLaunchHostFunc(
                free_, [](void*) {}, nullptr),
            CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamWriteValue32_v2(free_, words_, 5, 0), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuEventRecordWithFlags(e, free_, CU_EVENT_RECORD_EXTERNAL), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamWaitEvent(free_, e, CU_EVENT_WAIT_EXTERNAL), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemAllocAsync(&memory, 1 << 20, free_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemFreeAsync(memory, free_), CUDA_SUCCESS);
  CUgraph graph = End(free_);
  size_t n = 16;
  CUgraphNode nodes[16];
  ASSERT_EQ(cu().cuGraphGetNodes(graph, nodes, &n), CUDA_SUCCESS);
  std::vector<CUgraphNodeType> types(n);
  for (size_t i = 0; i < n; ++i) cu().cuGraphNodeGetType(nodes[i], &types[i]);
  EXPECT_EQ(types,
            (std::vector<CUgraphNodeType>{
                CU_GRAPH_NODE_TYPE_KERNEL, CU_GRAPH_NODE_TYPE_MEMCPY, CU_GRAPH_NODE_TYPE_MEMCPY,
                CU_GRAPH_NODE_TYPE_MEMSET, CU_GRAPH_NODE_TYPE_HOST, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP,
                CU_GRAPH_NODE_TYPE_EVENT_RECORD, CU_GRAPH_NODE_TYPE_WAIT_EVENT,
                CU_GRAPH_NODE_TYPE_MEM_ALLOC, CU_GRAPH_NODE_TYPE_MEM_FREE}));
  EXPECT_EQ(Edges(graph), n - 1);
}

// "A captured event ... places the stream in capture mode if it is not already."
TEST_F(CaptureTest, ForkAndJoin) {
  CUevent fork = NewEvent(), join = NewEvent();
  Begin(blocking_);
  EXPECT_EQ(Store(blocking_, words_, 1), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuEventRecord(fork, blocking_), CUDA_SUCCESS);
  EXPECT_EQ(StatusOf(free_), CU_STREAM_CAPTURE_STATUS_NONE);
  EXPECT_EQ(cu().cuStreamWaitEvent(free_, fork, 0), CUDA_SUCCESS);
  EXPECT_EQ(StatusOf(free_), CU_STREAM_CAPTURE_STATUS_ACTIVE);
  EXPECT_EQ(Store(blocking_, words_ + 4, 2), CUDA_SUCCESS);
  EXPECT_EQ(Store(free_, words_ + 8, 3), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuEventRecord(join, free_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamWaitEvent(blocking_, join, 0), CUDA_SUCCESS);
  EXPECT_EQ(Store(blocking_, words_ + 12, 4), CUDA_SUCCESS);
  CUgraph graph = End(blocking_);
  EXPECT_EQ(StatusOf(free_), CU_STREAM_CAPTURE_STATUS_NONE);
  EXPECT_EQ(Nodes(graph), 4u);
  EXPECT_EQ(Edges(graph), 4u);  // a diamond
  CUgraphExec exec;
  ASSERT_EQ(cu().cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphLaunch(exec, nullptr), CUDA_SUCCESS);
  for (uint32_t i = 0; i < 4; ++i) EXPECT_EQ(Load(words_ + 4 * i), i + 1);
}

// 904: "The capture sequence contains a fork that was not joined to the primary stream."
TEST_F(CaptureTest, UnjoinedWorkFailsTheCapture) {
  CUevent fork = NewEvent();
  Begin(blocking_);
  EXPECT_EQ(Spin(blocking_, 1000), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuEventRecord(fork, blocking_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamWaitEvent(free_, fork, 0), CUDA_SUCCESS);
  EXPECT_EQ(Spin(free_, 1000), CUDA_SUCCESS);
  CUgraph graph;
  EXPECT_EQ(cu().cuStreamEndCapture(blocking_, &graph), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
  EXPECT_EQ(graph, nullptr);
  EXPECT_EQ(StatusOf(blocking_), CU_STREAM_CAPTURE_STATUS_NONE);
  EXPECT_EQ(StatusOf(free_), CU_STREAM_CAPTURE_STATUS_NONE);
}

// A fork without work of its own leaves nothing to join.
TEST_F(CaptureTest, EmptyForkNeedsNoJoin) {
  CUevent fork = NewEvent();
  Begin(blocking_);
  EXPECT_EQ(Spin(blocking_, 1000), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuEventRecord(fork, blocking_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamWaitEvent(free_, fork, 0), CUDA_SUCCESS);
  EXPECT_EQ(Nodes(End(blocking_)), 1u);
  EXPECT_EQ(StatusOf(free_), CU_STREAM_CAPTURE_STATUS_NONE);
}

// 902: "merge two separate capture graphs by waiting on a captured event ..."
TEST_F(CaptureTest, MergeInvalidatesBoth) {
  CUevent e = NewEvent();
  Begin(blocking_);
  Begin(free_);
  EXPECT_EQ(cu().cuEventRecord(e, free_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamWaitEvent(blocking_, e, 0), CUDA_ERROR_STREAM_CAPTURE_MERGE);
  EndInvalid(blocking_);
  EndInvalid(free_);
}

// 905: "invalid to wait on a non-captured event from a stream which is being captured".
TEST_F(CaptureTest, UncapturedDependencyIsRefused) {
  CUevent e = NewEvent(), never = NewEvent();
  ASSERT_EQ(cu().cuEventRecord(e, free_), CUDA_SUCCESS);
  Begin(blocking_);
  EXPECT_EQ(cu().cuStreamWaitEvent(blocking_, never, 0), CUDA_SUCCESS);  // never recorded: no-op
  EXPECT_EQ(StatusOf(blocking_), CU_STREAM_CAPTURE_STATUS_ACTIVE);
  EXPECT_EQ(cu().cuStreamWaitEvent(blocking_, e, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  EndInvalid(blocking_);
}

// 903 and 908, and both are invalid operations on the capture.
TEST_F(CaptureTest, EndInTheWrongStreamOrThread) {
  CUevent fork = NewEvent();
  CUgraph graph;
  Begin(blocking_);
  EXPECT_EQ(cu().cuEventRecord(fork, blocking_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamWaitEvent(free_, fork, 0), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamEndCapture(free_, &graph), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  EndInvalid(blocking_);
  for (auto mode : {CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL}) {
    Begin(blocking_, mode);
    InThread(context_, [&] {
      EXPECT_EQ(cu().cuStreamEndCapture(blocking_, &graph), CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    });
    EndInvalid(blocking_);
  }
  Begin(blocking_, CU_STREAM_CAPTURE_MODE_RELAXED);
  InThread(context_, [&] { End(blocking_); });
}

TEST_F(CaptureTest, BeginAndEndOutOfPlace) {
  CUgraph graph;
  EXPECT_EQ(cu().cuStreamBeginCapture_v2(nullptr, CU_STREAM_CAPTURE_MODE_GLOBAL),
            CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT_EQ(cu().cuStreamBeginCapture_v2(free_, CUstreamCaptureMode(3)), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cu().cuStreamEndCapture(nullptr, &graph), CUDA_ERROR_ILLEGAL_STATE);
  EXPECT_EQ(cu().cuStreamEndCapture(free_, &graph), CUDA_ERROR_ILLEGAL_STATE);
  Begin(free_);
  EXPECT_EQ(cu().cuStreamBeginCapture_v2(free_, CU_STREAM_CAPTURE_MODE_GLOBAL),
            CUDA_ERROR_ILLEGAL_STATE);
  End(free_);  // still valid
}

// The per-thread default stream may capture: `_ptsz` variants of the NULL stream.
TEST_F(CaptureTest, PerThreadDefaultStream) {
  ASSERT_EQ(cu().cuStreamBeginCapture_v2_ptsz(nullptr, CU_STREAM_CAPTURE_MODE_GLOBAL),
            CUDA_SUCCESS);
  EXPECT_EQ(StatusOf(CU_STREAM_PER_THREAD), CU_STREAM_CAPTURE_STATUS_ACTIVE);
  EXPECT_EQ(cu().cuMemsetD8Async_ptsz(words_, 1, 4, nullptr), CUDA_SUCCESS);
  CUgraph graph;
  EXPECT_EQ(cu().cuStreamEndCapture_ptsz(nullptr, &graph), CUDA_SUCCESS);
  EXPECT_EQ(Nodes(graph), 1u);
}

TEST_F(CaptureTest, InfoAndDependencies) {
  CUstreamCaptureStatus status;
  cuuint64_t id = 0, second = 0;
  CUgraph graph = nullptr;
  const CUgraphNode* deps;
  const CUgraphEdgeData* data;
  size_t count;
  EXPECT_EQ(cu().cuStreamUpdateCaptureDependencies_v2(free_, nullptr, nullptr, 0, 0),
            CUDA_ERROR_ILLEGAL_STATE);
  Begin(free_);
  EXPECT_EQ(Store(free_, words_, 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamGetCaptureInfo_v3(free_, &status, &id, &graph, &deps, &data, &count),
            CUDA_SUCCESS);
  EXPECT_EQ(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
  ASSERT_EQ(count, 1u);
  CUgraphNode first = deps[0];
  // A node added by hand becomes what the next captured one depends on.
  CUgraphNode added;
  ASSERT_EQ(cu().cuGraphAddEmptyNode(&added, graph, &first, 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamUpdateCaptureDependencies_v2(free_, &added, nullptr, 1,
                                                      CU_STREAM_SET_CAPTURE_DEPENDENCIES),
            CUDA_SUCCESS);
  EXPECT_EQ(Store(free_, words_ + 4, 2), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamGetCaptureInfo_v2(free_, &status, &id, &graph, &deps, &count),
            CUDA_SUCCESS);
  CUgraphNode from = nullptr;
  size_t one = 1;
  ASSERT_EQ(cu().cuGraphNodeGetDependencies(deps[0], &from, &one), CUDA_SUCCESS);
  EXPECT_EQ(from, added);
  EXPECT_EQ(cu().cuGraphDestroy(graph), CUDA_ERROR_INVALID_VALUE);  // the capture's
  CUgraphExec exec;
  EXPECT_NE(cu().cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
  EXPECT_EQ(End(free_), graph);
  Begin(free_);
  EXPECT_EQ(cu().cuStreamGetCaptureInfo(free_, &status, &second), CUDA_SUCCESS);
  EXPECT_NE(id, second);  // "unique over the lifetime of the process"
  End(free_);
}

TEST_F(CaptureTest, ToGraph) {
  CUgraph graph, out;
  CUgraphNode root;
  ASSERT_EQ(cu().cuGraphCreate(&graph, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphAddEmptyNode(&root, graph, nullptr, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamBeginCaptureToGraph(free_, graph, &root, nullptr, 1,
                                             CU_STREAM_CAPTURE_MODE_GLOBAL),
            CUDA_SUCCESS);
  EXPECT_EQ(Store(free_, words_, 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamEndCapture(free_, &out), CUDA_SUCCESS);
  EXPECT_EQ(out, graph);
  EXPECT_EQ(Nodes(graph), 2u);
  EXPECT_EQ(Edges(graph), 1u);
  EXPECT_EQ(cu().cuGraphDestroy(graph), CUDA_SUCCESS);
}

// A launch of a graph into a capturing stream is a child graph node.
TEST_F(CaptureTest, LaunchIsCapturedAsChild) {
  Begin(free_);
  EXPECT_EQ(Store(free_, words_, 5), CUDA_SUCCESS);
  CUgraph inner = End(free_);
  CUgraphExec exec;
  ASSERT_EQ(cu().cuGraphInstantiateWithFlags(&exec, inner, 0), CUDA_SUCCESS);
  Begin(free_);
  EXPECT_EQ(cu().cuGraphLaunch(exec, free_), CUDA_SUCCESS);
  CUgraph outer = End(free_);
  CUgraphNode child;
  size_t one = 1;
  ASSERT_EQ(cu().cuGraphGetNodes(outer, &child, &one), CUDA_SUCCESS);
  CUgraphNodeType type;
  ASSERT_EQ(cu().cuGraphNodeGetType(child, &type), CUDA_SUCCESS);
  EXPECT_EQ(type, CU_GRAPH_NODE_TYPE_GRAPH);
  CUgraphExec both;
  ASSERT_EQ(cu().cuGraphInstantiateWithFlags(&both, outer, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphLaunch(both, free_), CUDA_SUCCESS);
  EXPECT_EQ(Load(words_), 5u);
}

// "An exception is made for placing a stream into or out of capture mode": what was in the stream
// before runs, and orders what comes after.
TEST_F(CaptureTest, WorkAroundACaptureRuns) {
  EXPECT_EQ(Store(free_, words_, 1), CUDA_SUCCESS);
  Begin(free_);
  EXPECT_EQ(Store(free_, words_, 2), CUDA_SUCCESS);
  End(free_);
  EXPECT_EQ(cu().cuMemcpyDtoDAsync_v2(words_ + 4, words_, 4, free_), CUDA_SUCCESS);
  EXPECT_EQ(Load(words_ + 4), 1u);
}

// "Priorities are ... copied from stream priority during stream capture" (cuGraphInstantiate).
TEST_F(CaptureTest, KernelNodesHaveTheirStreamsPriority) {
  CUstream s;
  ASSERT_EQ(cu().cuStreamCreateWithPriority(&s, CU_STREAM_NON_BLOCKING, -2), CUDA_SUCCESS);
  Begin(s);
  EXPECT_EQ(Spin(s, 1000), CUDA_SUCCESS);
  CUgraph graph = End(s);
  CUgraphNode node;
  size_t one = 1;
  ASSERT_EQ(cu().cuGraphGetNodes(graph, &node, &one), CUDA_SUCCESS);
  CUkernelNodeAttrValue value{};
  ASSERT_EQ(cu().cuGraphKernelNodeGetAttribute(node, CU_LAUNCH_ATTRIBUTE_PRIORITY, &value),
            CUDA_SUCCESS);
  EXPECT_EQ(value.priority, -2);
}

// A context's end takes its captures along.
TEST_F(CaptureTest, ContextEndsItsCaptures) {
  CUcontext second;
  ASSERT_EQ(cu().cuCtxCreate_v2(&second, 0, 0), CUDA_SUCCESS);
  CUstream s;
  ASSERT_EQ(cu().cuStreamCreate(&s, CU_STREAM_DEFAULT), CUDA_SUCCESS);
  Begin(s);
  EXPECT_EQ(cu().cuCtxDestroy_v2(second), CUDA_SUCCESS);
  CUdeviceptr p;
  EXPECT_EQ(cu().cuMemAlloc_v2(&p, 4), CUDA_SUCCESS);  // no capture is left to forbid it
}

// Without its origin stream a capture is over.
TEST_F(CaptureTest, DestroyedStreamEndsItsCapture) {
  CUstream s;
  ASSERT_EQ(cu().cuStreamCreate(&s, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  Begin(s);
  EXPECT_EQ(cu().cuStreamDestroy_v2(s), CUDA_SUCCESS);
  CUdeviceptr p;
  EXPECT_EQ(cu().cuMemAlloc_v2(&p, 4), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuCtxSynchronize(), CUDA_SUCCESS);
}

}  // namespace
}  // namespace divvy::sim
