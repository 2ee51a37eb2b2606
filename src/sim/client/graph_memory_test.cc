// Graph memory nodes and the device's graph memory pool. Documented in the CUDA C++ Programming
// Guide, "Graph Memory Nodes", and the driver API's cuGraphAddMemAllocNode, cuGraphAddMemFreeNode,
// cuDeviceGraphMemTrim, cuDeviceGetGraphMemAttribute.
#include "src/sim/client/test_driver.h"

namespace divvy::sim {
namespace {

constexpr size_t kMiB = 1 << 20;

class GraphMemoryTest : public DriverTest {
 protected:
  void SetUp() override {
    DriverTest::SetUp();
    ASSERT_EQ(cu().cuGraphCreate(&graph_, 0), CUDA_SUCCESS);
    ASSERT_EQ(cu().cuDeviceGraphMemTrim(0), CUDA_SUCCESS);
    EXPECT_EQ(Reserved(), 0u);
  }

  CUgraphNode AddAlloc(size_t bytes, CUdeviceptr* ptr, std::vector<CUgraphNode> deps = {}) {
    CUDA_MEM_ALLOC_NODE_PARAMS p{};
    p.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.poolProps.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
    p.bytesize = bytes;
    CUgraphNode n = nullptr;
    EXPECT_EQ(cu().cuGraphAddMemAllocNode(&n, graph_, deps.data(), deps.size(), &p), CUDA_SUCCESS);
    *ptr = p.dptr;
    return n;
  }
  CUgraphNode AddFree(CUdeviceptr ptr, std::vector<CUgraphNode> deps) {
    CUgraphNode n = nullptr;
    EXPECT_EQ(cu().cuGraphAddMemFreeNode(&n, graph_, deps.data(), deps.size(), ptr), CUDA_SUCCESS);
    return n;
  }
  CUgraphExec Instantiate(unsigned long long flags = 0) {
    CUgraphExec exec = nullptr;
    EXPECT_EQ(cu().cuGraphInstantiateWithFlags(&exec, graph_, flags), CUDA_SUCCESS);
    return exec;
  }
  uint64_t Attribute(CUgraphMem_attribute a) {
    cuuint64_t v = ~0ull;
    EXPECT_EQ(cu().cuDeviceGetGraphMemAttribute(0, a, &v), CUDA_SUCCESS);
    return v;
  }
  uint64_t Reserved() { return Attribute(CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT); }
  uint64_t Used() { return Attribute(CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT); }
  uint64_t Free() {
    size_t free, total;
    EXPECT_EQ(cu().cuMemGetInfo_v2(&free, &total), CUDA_SUCCESS);
    return free;
  }

  CUgraph graph_ = nullptr;
};

// Memory is taken by the first launch, kept by the pool when the graph is gone, given back by a
// trim.
TEST_F(GraphMemoryTest, TakenAtLaunchKeptUntilTrim) {
  CUdeviceptr p;
  CUgraphNode a = AddAlloc(64 * kMiB, &p);
  CUDA_MEMSET_NODE_PARAMS_v1 m{p, 0, 5, 4, 1, 1};
  CUgraphNode set, copy;
  ASSERT_EQ(cu().cuGraphAddMemsetNode(&set, graph_, &a, 1, &m, context_), CUDA_SUCCESS);
  CUDA_MEMCPY3D c{};
  c.srcMemoryType = c.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  c.srcDevice = p, c.dstDevice = words_, c.WidthInBytes = 4, c.Height = c.Depth = 1;
  ASSERT_EQ(cu().cuGraphAddMemcpyNode(&copy, graph_, &set, 1, &c, context_), CUDA_SUCCESS);
  AddFree(p, {copy});
  uint64_t free = Free();
  CUgraphExec exec = Instantiate();
  EXPECT_EQ(Free(), free);
  ASSERT_EQ(cu().cuGraphLaunch(exec, free_), CUDA_SUCCESS);
  EXPECT_EQ(Load(words_), 5u);
  EXPECT_EQ(Free(), free - 64 * kMiB);
  EXPECT_EQ(Reserved(), 64 * kMiB);
  EXPECT_EQ(Used(), 64 * kMiB);
  ASSERT_EQ(cu().cuGraphLaunch(exec, free_), CUDA_SUCCESS);  // again: nothing more is taken
  ASSERT_EQ(cu().cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(Free(), free - 64 * kMiB);
  ASSERT_EQ(cu().cuGraphExecDestroy(exec), CUDA_SUCCESS);
  EXPECT_EQ(Used(), 0u);
  EXPECT_EQ(Free(), free - 64 * kMiB);
  ASSERT_EQ(cu().cuDeviceGraphMemTrim(0), CUDA_SUCCESS);
  EXPECT_EQ(Free(), free);
  EXPECT_EQ(Reserved(), 0u);
  EXPECT_EQ(Attribute(CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH), 64 * kMiB);
  cuuint64_t zero = 0, one = 1;
  EXPECT_EQ(cu().cuDeviceSetGraphMemAttribute(0, CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH, &one),
            CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(cu().cuDeviceSetGraphMemAttribute(0, CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH, &zero),
            CUDA_SUCCESS);
  EXPECT_EQ(Attribute(CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH), 0u);
}

TEST_F(GraphMemoryTest, UploadTakesMemory) {
  CUdeviceptr p;
  CUgraphNode a = AddAlloc(8 * kMiB, &p);
  AddFree(p, {a});
  CUgraphExec exec;
  CUDA_GRAPH_INSTANTIATE_PARAMS params{};
  params.flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
  params.hUploadStream = free_;
  ASSERT_EQ(cu().cuGraphInstantiateWithParams(&exec, graph_, &params), CUDA_SUCCESS);
  EXPECT_EQ(Reserved(), 8 * kMiB);
  EXPECT_EQ(cu().cuGraphExecDestroy(exec), CUDA_SUCCESS);
}

// An allocation that a graph frees makes room for its next one; one stream's graphs share memory.
TEST_F(GraphMemoryTest, MemoryIsReused) {
  CUdeviceptr p, q;
  CUgraphNode n = AddAlloc(16 * kMiB, &p);
  n = AddFree(p, {n});
  n = AddAlloc(16 * kMiB, &q, {n});
  AddFree(q, {n});
  EXPECT_NE(p, q);
  CUgraphExec first = Instantiate();
  ASSERT_EQ(cu().cuGraphLaunch(first, free_), CUDA_SUCCESS);
  EXPECT_EQ(Reserved(), 16 * kMiB);
  ASSERT_EQ(cu().cuGraphCreate(&graph_, 0), CUDA_SUCCESS);
  n = AddAlloc(12 * kMiB, &p);
  AddFree(p, {n});
  CUgraphExec second = Instantiate();
  ASSERT_EQ(cu().cuGraphLaunch(second, free_), CUDA_SUCCESS);
  EXPECT_EQ(Reserved(), 16 * kMiB);
  ASSERT_EQ(cu().cuGraphLaunch(second, blocking_), CUDA_SUCCESS);  // may run beside the first
  EXPECT_EQ(Reserved(), 28 * kMiB);
  ASSERT_EQ(cu().cuGraphExecDestroy(first), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphExecDestroy(second), CUDA_SUCCESS);
}

// "If any allocations ... remain unfreed (from a previous launch) ... the launch will fail with
// CUDA_ERROR_INVALID_VALUE."
TEST_F(GraphMemoryTest, UnfreedAllocations) {
  CUdeviceptr p;
  AddAlloc(4 * kMiB, &p);
  CUgraphExec exec = Instantiate();
  ASSERT_EQ(cu().cuGraphLaunch(exec, free_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuGraphLaunch(exec, free_), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(cu().cuMemsetD32Async(p, 3, 1, free_), CUDA_SUCCESS);  // usable after the graph
  EXPECT_EQ(Load(p), 3u);
  ASSERT_EQ(cu().cuMemFree_v2(p), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemFree_v2(p), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(Used(), 0u);
  ASSERT_EQ(cu().cuGraphLaunch(exec, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemFreeAsync(p, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphLaunch(exec, free_), CUDA_SUCCESS);
  // It outlives its graphs, and a trim.
  ASSERT_EQ(cu().cuGraphExecDestroy(exec), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphDestroy(graph_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuCtxSynchronize(), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuDeviceGraphMemTrim(0), CUDA_SUCCESS);
  EXPECT_EQ(Reserved(), 4 * kMiB);
  ASSERT_EQ(cu().cuMemFree_v2(p), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuDeviceGraphMemTrim(0), CUDA_SUCCESS);
  EXPECT_EQ(Reserved(), 0u);
}

TEST_F(GraphMemoryTest, AutoFreeOnLaunch) {
  CUdeviceptr p;
  AddAlloc(4 * kMiB, &p);
  CUgraphExec exec = Instantiate(CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
  ASSERT_EQ(cu().cuGraphLaunch(exec, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphLaunch(exec, free_), CUDA_SUCCESS);
  EXPECT_EQ(Reserved(), 4 * kMiB);
  ASSERT_EQ(cu().cuMemFree_v2(p), CUDA_SUCCESS);
}

// Freed by another graph's free node.
TEST_F(GraphMemoryTest, FreedInAnotherGraph) {
  CUdeviceptr p;
  AddAlloc(4 * kMiB, &p);
  CUgraphExec alloc = Instantiate();
  CUgraph owner = graph_;
  CUgraphNode n;
  ASSERT_EQ(cu().cuGraphCreate(&graph_, 0), CUDA_SUCCESS);
  n = AddFree(p, {});
  CUgraphExec release = Instantiate();
  EXPECT_EQ(cu().cuGraphLaunch(release, free_), CUDA_ERROR_INVALID_VALUE);  // not allocated yet
  ASSERT_EQ(cu().cuGraphLaunch(alloc, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphLaunch(release, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphLaunch(alloc, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphLaunch(release, free_), CUDA_SUCCESS);
  // "If the allocation is freed in another graph, a free node can no longer be added to the owning
  // graph"; nor twice in one graph, nor for other addresses.
  EXPECT_EQ(cu().cuGraphAddMemFreeNode(&n, owner, nullptr, 0, p), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cu().cuGraphAddMemFreeNode(&n, graph_, nullptr, 0, p), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cu().cuGraphAddMemFreeNode(&n, graph_, nullptr, 0, words_), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(GraphMemoryTest, OutOfMemoryAtLaunch) {
  CUdeviceptr p, q;
  size_t free = Free();
  CUgraphNode n = AddAlloc(free / 2 + 64 * kMiB, &p);
  n = AddAlloc(free / 2 + 64 * kMiB, &q, {n});
  CUgraphExec exec = Instantiate();
  EXPECT_EQ(cu().cuGraphLaunch(exec, free_), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(Free(), free);
  EXPECT_EQ(Reserved(), 0u);
  EXPECT_EQ(cu().cuGraphExecDestroy(exec), CUDA_SUCCESS);
}

// What a pool keeps for graphs that do not run is given up before a launch is refused.
TEST_F(GraphMemoryTest, IdleMemoryGoesToOthers) {
  CUdeviceptr p;
  size_t most = (Free() / 3) * 2;
  CUgraphNode n = AddAlloc(most, &p);
  AddFree(p, {n});
  CUgraphExec first = Instantiate();
  ASSERT_EQ(cu().cuGraphLaunch(first, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuCtxSynchronize(), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphCreate(&graph_, 0), CUDA_SUCCESS);
  n = AddAlloc(most, &p);
  AddFree(p, {n});
  CUgraphExec second = Instantiate();
  EXPECT_EQ(cu().cuGraphLaunch(second, blocking_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuCtxSynchronize(), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphExecDestroy(first), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphExecDestroy(second), CUDA_SUCCESS);
}

// The end of the device's last context takes its graph memory along, allocations and all.
TEST_F(GraphMemoryTest, ContextEndGivesItBack) {
  CUdeviceptr p;
  AddAlloc(64 * kMiB, &p);
  CUgraphExec exec = Instantiate();
  ASSERT_EQ(cu().cuGraphLaunch(exec, free_), CUDA_SUCCESS);
  EXPECT_EQ(Reserved(), 64 * kMiB);
  ASSERT_EQ(cu().cuDevicePrimaryCtxReset_v2(0), CUDA_SUCCESS);
  EXPECT_EQ(Reserved(), 0u);
  DriverTest::SetUp();
  EXPECT_EQ(cu().cuGraphExecDestroy(exec), CUDA_SUCCESS);
}

// "Nodes and edges of the graph cannot be deleted. ... Only one instantiation of the graph may
// exist at any point in time. The graph cannot be cloned."
TEST_F(GraphMemoryTest, Restrictions) {
  CUdeviceptr p;
  CUgraphNode a = AddAlloc(kMiB, &p);
  CUgraphNode f = AddFree(p, {a});
  CUgraph clone, parent;
  CUgraphNode child;
  EXPECT_EQ(cu().cuGraphDestroyNode(f), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cu().cuGraphRemoveDependencies(graph_, &a, &f, 1), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cu().cuGraphClone(&clone, graph_), CUDA_ERROR_NOT_SUPPORTED);
  ASSERT_EQ(cu().cuGraphCreate(&parent, 0), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuGraphAddChildGraphNode(&child, parent, nullptr, 0, graph_),
            CUDA_ERROR_NOT_SUPPORTED);
  CUgraphExec first = Instantiate(), second;
  EXPECT_EQ(cu().cuGraphInstantiateWithFlags(&second, graph_, 0), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(cu().cuGraphExecDestroy(first), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphInstantiateWithFlags(&second, graph_, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphExecDestroy(second), CUDA_SUCCESS);
  // "... can only be used in a child node if the ownership is moved to the parent."
  CUgraphNodeParams params{};
  params.type = CU_GRAPH_NODE_TYPE_GRAPH;
  params.graph = {graph_, CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE};
  ASSERT_EQ(cu().cuGraphAddNode_v2(&child, parent, nullptr, nullptr, 0, &params), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuGraphDestroy(graph_), CUDA_ERROR_INVALID_VALUE);
  graph_ = parent;
  first = Instantiate();
  EXPECT_EQ(cu().cuGraphLaunch(first, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuGraphExecDestroy(first), CUDA_SUCCESS);
}

// In a capture, stream-ordered allocation makes memory nodes; the memory of pools cannot be freed
// there.
TEST_F(GraphMemoryTest, Captured) {
  CUdeviceptr pooled, p;
  ASSERT_EQ(cu().cuMemAllocAsync(&pooled, kMiB, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamBeginCapture_v2(free_, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemAllocAsync(&p, 4 * kMiB, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemsetD32Async(p, 2, 1, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamEndCapture(free_, &graph_), CUDA_SUCCESS);
  CUgraphExec exec = Instantiate();
  ASSERT_EQ(cu().cuGraphLaunch(exec, free_), CUDA_SUCCESS);
  EXPECT_EQ(Load(p), 2u);
  EXPECT_EQ(Reserved(), 4 * kMiB);
  ASSERT_EQ(cu().cuMemFreeAsync(p, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamBeginCapture_v2(free_, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemFreeAsync(pooled, free_), CUDA_ERROR_INVALID_VALUE);
  CUgraph none;
  EXPECT_EQ(cu().cuStreamEndCapture(free_, &none), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
  EXPECT_EQ(cu().cuMemFreeAsync(pooled, free_), CUDA_SUCCESS);
}

}  // namespace
}  // namespace divvy::sim
