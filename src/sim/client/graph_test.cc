// Graphs: nodes, edges, clones, executable graphs, updates. Documented in the CUDA Driver API,
// "Graph Management", and the CUDA C++ Programming Guide, "CUDA Graphs".
#include <atomic>
#include <fstream>
#include <sstream>

#include "src/sim/client/test_driver.h"

namespace divvy::sim {
namespace {

class GraphTest : public DriverTest {
 protected:
  void SetUp() override {
    DriverTest::SetUp();
    ASSERT_EQ(cu().cuGraphCreate(&graph_, 0), CUDA_SUCCESS);
  }

  CUgraphNode AddStore(CUdeviceptr to, uint32_t value, std::vector<CUgraphNode> deps = {}) {
    void* args[] = {&to, &value};
    CUDA_KERNEL_NODE_PARAMS_v2 p{store_, 1, 1, 1, 1, 1, 1, 0, args, nullptr, nullptr, nullptr};
    CUgraphNode n = nullptr;
    EXPECT_EQ(cu().cuGraphAddKernelNode_v2(&n, graph_, deps.data(), deps.size(), &p), CUDA_SUCCESS);
    return n;
  }
  CUgraphNode AddSpin(uint64_t ns, std::vector<CUgraphNode> deps = {}) {
    void* args[] = {&ns};
    CUDA_KERNEL_NODE_PARAMS_v2 p{spin_, 1, 1, 1, 1, 1, 1, 0, args, nullptr, nullptr, nullptr};
    CUgraphNode n = nullptr;
    EXPECT_EQ(cu().cuGraphAddKernelNode_v2(&n, graph_, deps.data(), deps.size(), &p), CUDA_SUCCESS);
    return n;
  }
  CUgraphNode AddCopy(CUdeviceptr to, CUdeviceptr from, std::vector<CUgraphNode> deps = {}) {
    CUDA_MEMCPY3D p{};
    p.srcMemoryType = p.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    p.srcDevice = from;
    p.dstDevice = to;
    p.WidthInBytes = 4;
    p.Height = p.Depth = 1;
    CUgraphNode n = nullptr;
    EXPECT_EQ(cu().cuGraphAddMemcpyNode(&n, graph_, deps.data(), deps.size(), &p, context_),
              CUDA_SUCCESS);
    return n;
  }
  CUgraphNode AddEmpty(std::vector<CUgraphNode> deps = {}) {
    CUgraphNode n = nullptr;
    EXPECT_EQ(cu().cuGraphAddEmptyNode(&n, graph_, deps.data(), deps.size()), CUDA_SUCCESS);
    return n;
  }
  CUgraphExec Instantiate(unsigned long long flags = 0) {
    CUgraphExec exec = nullptr;
    EXPECT_EQ(cu().cuGraphInstantiateWithFlags(&exec, graph_, flags), CUDA_SUCCESS);
    return exec;
  }
  void Launch(CUgraphExec exec, CUstream stream) {
    ASSERT_EQ(cu().cuGraphLaunch(exec, stream), CUDA_SUCCESS);
  }

  CUgraph graph_ = nullptr;
};

TEST_F(GraphTest, NodesRunInTheOrderOfTheirEdges) {
  // a -> {b, c} -> d: each branch must wait for what is slow before it in another one.
  CUgraphNode a = AddStore(words_, 1, {AddSpin(200'000)});
  CUgraphNode b = AddCopy(words_ + 4, words_, {AddSpin(200'000, {a})});
  CUgraphNode c = AddCopy(words_ + 8, words_, {a});
  CUgraphNode d = AddCopy(words_ + 12, words_ + 4, {c, b});
  AddStore(words_, 2, {d});
  CUgraphExec exec = Instantiate();
  for (CUstream stream : {blocking_, free_, CUstream(nullptr)}) {
    ASSERT_EQ(cu().cuMemsetD32_v2(words_, 0, 8), CUDA_SUCCESS);
    Launch(exec, stream);
    EXPECT_EQ(Load(words_ + 12), 1u);
    EXPECT_EQ(Load(words_ + 8), 1u);
    EXPECT_EQ(Load(words_), 2u);
  }
}

// "Each launch is ordered behind both any previous work in hStream and any previous launches", and
// what follows in the stream waits for all branches.
TEST_F(GraphTest, LaunchesAreOrdered) {
  AddStore(words_ + 16, 1);  // the copy is in a branch of its own
  CUgraphNode copy = AddCopy(words_ + 4, words_);
  AddStore(words_, 5, {AddSpin(200'000, {copy})});
  CUgraphExec exec = Instantiate();
  ASSERT_EQ(Spin(free_, 100'000), CUDA_SUCCESS);
  ASSERT_EQ(Store(free_, words_, 1), CUDA_SUCCESS);
  Launch(exec, free_);
  ASSERT_EQ(cu().cuMemcpyDtoDAsync_v2(words_ + 8, words_ + 4, 4, free_), CUDA_SUCCESS);
  EXPECT_EQ(Load(words_ + 8), 1u);  // behind the stream's earlier work
  ASSERT_EQ(cu().cuMemsetD32_v2(words_, 0, 8), CUDA_SUCCESS);
  Launch(exec, free_);
  Launch(exec, blocking_);
  EXPECT_EQ(Load(words_ + 4), 5u);  // behind the launch in the other stream
}

// What follows a launch in its stream waits for all branches.
TEST_F(GraphTest, BranchesAreJoined) {
  AddStore(words_, 1);
  AddStore(words_ + 4, 2, {AddSpin(200'000)});
  CUgraphExec exec = Instantiate();
  for (CUstream stream : {blocking_, free_, CUstream(nullptr)}) {
    ASSERT_EQ(cu().cuMemsetD32_v2(words_, 0, 8), CUDA_SUCCESS);
    ASSERT_EQ(cu().cuCtxSynchronize(), CUDA_SUCCESS);
    Launch(exec, stream);
    ASSERT_EQ(cu().cuMemcpyDtoDAsync_v2(words_ + 8, words_ + 4, 4, stream), CUDA_SUCCESS);
    EXPECT_EQ(Load(words_ + 8), 2u);
  }
}

// Branches run side by side: the first waits for what the second writes.
TEST_F(GraphTest, BranchesRunSideBySide) {
  CUdeviceptr at = words_;
  uint32_t value = 3;
  void* args[] = {&at, &value};
  CUDA_KERNEL_NODE_PARAMS_v2 p{wait_value_, 1, 1, 1, 1, 1, 1, 0, args, nullptr, nullptr, nullptr};
  CUgraphNode wait;
  ASSERT_EQ(cu().cuGraphAddKernelNode_v2(&wait, graph_, nullptr, 0, &p), CUDA_SUCCESS);
  AddStore(words_, 3);
  CUgraphExec exec = Instantiate();
  Launch(exec, free_);
  EXPECT_EQ(Load(words_), 3u);
}

TEST_F(GraphTest, NodesAndEdgesAreListed) {
  CUgraphNode a = AddEmpty(), b = AddEmpty({a}), c = AddEmpty({a, b});
  size_t count = 0;
  CUgraphNode nodes[4] = {};
  ASSERT_EQ(cu().cuGraphGetNodes(graph_, nullptr, &count), CUDA_SUCCESS);
  EXPECT_EQ(count, 3u);
  count = 4;  // more than there are: the rest is null
  nodes[3] = a;
  ASSERT_EQ(cu().cuGraphGetNodes(graph_, nodes, &count), CUDA_SUCCESS);
  EXPECT_EQ(count, 3u);
  EXPECT_EQ(nodes[3], nullptr);
  count = 4;
  ASSERT_EQ(cu().cuGraphGetRootNodes(graph_, nodes, &count), CUDA_SUCCESS);
  EXPECT_EQ(count, 1u);
  EXPECT_EQ(nodes[0], a);
  CUgraphNode from[4], to[4];
  count = 4;
  ASSERT_EQ(cu().cuGraphGetEdges(graph_, from, to, &count), CUDA_SUCCESS);
  EXPECT_EQ(count, 3u);
  ASSERT_EQ(cu().cuGraphRemoveDependencies(graph_, &a, &c, 1), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuGraphRemoveDependencies(graph_, &a, &c, 1), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(cu().cuGraphAddDependencies(graph_, &a, &c, 1), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuGraphAddDependencies(graph_, &a, &c, 1), CUDA_ERROR_INVALID_VALUE);
  count = 4;
  ASSERT_EQ(cu().cuGraphNodeGetDependentNodes(a, nodes, &count), CUDA_SUCCESS);
  EXPECT_EQ(count, 2u);
  ASSERT_EQ(cu().cuGraphDestroyNode(b), CUDA_SUCCESS);
  count = 4;
  ASSERT_EQ(cu().cuGraphNodeGetDependencies(c, nodes, &count), CUDA_SUCCESS);
  EXPECT_EQ(count, 1u);
  CUgraphNodeType type;
  EXPECT_EQ(cu().cuGraphNodeGetType(b, &type), CUDA_ERROR_INVALID_VALUE);  // a stale handle
}

// "Attempting a lossy query via NULL edgeData will result in CUDA_ERROR_LOSSY_QUERY."
TEST_F(GraphTest, EdgeData) {
  CUgraphNode a = AddSpin(1000), b = AddSpin(1000);
  CUgraphEdgeData data{};
  data.type = CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC;
  data.from_port = CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC;
  ASSERT_EQ(cu().cuGraphAddDependencies_v2(graph_, &a, &b, &data, 1), CUDA_SUCCESS);
  CUgraphNode from, to;
  CUgraphEdgeData read{};
  size_t count = 1;
  EXPECT_EQ(cu().cuGraphGetEdges(graph_, &from, &to, &count), CUDA_ERROR_LOSSY_QUERY);
  count = 1;
  ASSERT_EQ(cu().cuGraphGetEdges_v2(graph_, &from, &to, &read, &count), CUDA_SUCCESS);
  EXPECT_EQ(read.from_port, CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC);
  EXPECT_EQ(cu().cuGraphNodeGetDependencies(b, &from, &count), CUDA_ERROR_LOSSY_QUERY);
}

TEST_F(GraphTest, ACycleCannotBeInstantiated) {
  CUgraphNode a = AddEmpty(), b = AddEmpty({a});
  ASSERT_EQ(cu().cuGraphAddDependencies(graph_, &b, &a, 1), CUDA_SUCCESS);
  AddEmpty({b});  // behind the cycle, not on it
  CUgraphExec exec;
  CUDA_GRAPH_INSTANTIATE_PARAMS p{};
  EXPECT_EQ(cu().cuGraphInstantiateWithParams(&exec, graph_, &p), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(p.result_out, CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE);
  EXPECT_TRUE(p.hErrNode_out == a || p.hErrNode_out == b);
  char log[64];
  CUgraphNode bad = nullptr;
  EXPECT_EQ(cu().cuGraphInstantiate_v2(&exec, graph_, &bad, log, sizeof log),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_NE(bad, nullptr);
  EXPECT_STRNE(log, "");
}

TEST_F(GraphTest, ParametersAreCopiedAndChanged) {
  CUgraphNode n = AddStore(words_, 1);
  CUDA_KERNEL_NODE_PARAMS_v2 p{};
  ASSERT_EQ(cu().cuGraphKernelNodeGetParams_v2(n, &p), CUDA_SUCCESS);
  EXPECT_EQ(p.func, store_);
  EXPECT_EQ(*static_cast<CUdeviceptr*>(p.kernelParams[0]), words_);
  EXPECT_EQ(*static_cast<uint32_t*>(p.kernelParams[1]), 1u);
  CUgraphExec exec = Instantiate();
  uint32_t value = 2;
  CUdeviceptr to = words_;
  void* args[] = {&to, &value};
  p.kernelParams = args;
  // The executable graph and its graph are changed apart.
  ASSERT_EQ(cu().cuGraphExecKernelNodeSetParams_v2(exec, n, &p), CUDA_SUCCESS);
  Launch(exec, free_);
  EXPECT_EQ(Load(words_), 2u);
  CUgraphExec second = Instantiate();
  Launch(second, free_);
  EXPECT_EQ(Load(words_), 1u);
  p.gridDimX = 0;
  EXPECT_EQ(cu().cuGraphKernelNodeSetParams_v2(n, &p), CUDA_ERROR_INVALID_VALUE);
  CUDA_MEMCPY3D copy;
  EXPECT_EQ(cu().cuGraphMemcpyNodeGetParams(n, &copy), CUDA_ERROR_INVALID_VALUE);  // another type
}

TEST_F(GraphTest, GenericNodes) {
  CUgraphNode n;
  CUgraphNodeParams p{};
  p.type = CU_GRAPH_NODE_TYPE_MEMSET;
  p.memset = {words_, 0, 6, 4, 2, 1, nullptr};
  ASSERT_EQ(cu().cuGraphAddNode_v2(&n, graph_, nullptr, nullptr, 0, &p), CUDA_SUCCESS);
  CUDA_MEMSET_NODE_PARAMS_v1 read;
  ASSERT_EQ(cu().cuGraphMemsetNodeGetParams(n, &read), CUDA_SUCCESS);
  EXPECT_EQ(read.value, 6u);
  CUgraphExec exec = Instantiate();
  p.memset.value = 8;
  ASSERT_EQ(cu().cuGraphExecNodeSetParams(exec, n, &p), CUDA_SUCCESS);
  Launch(exec, free_);
  EXPECT_EQ(Load(words_ + 4), 8u);
  ASSERT_EQ(cu().cuGraphNodeSetParams(n, &p), CUDA_SUCCESS);
  p.memset.elementSize = 3;
  EXPECT_EQ(cu().cuGraphNodeSetParams(n, &p), CUDA_ERROR_INVALID_VALUE);
  p = {};
  p.type = CU_GRAPH_NODE_TYPE_CONDITIONAL;
  EXPECT_EQ(cu().cuGraphAddNode_v2(&n, graph_, nullptr, nullptr, 0, &p), CUDA_ERROR_NOT_SUPPORTED);
}

TEST_F(GraphTest, HostAndEventNodes) {
  static std::atomic<int> calls;
  calls = 0;
  CUgraphNode spin = AddSpin(1000), host, record, wait;
  CUDA_HOST_NODE_PARAMS h{[](void* data) { calls += int(reinterpret_cast<intptr_t>(data)); },
                          reinterpret_cast<void*>(3)};
  ASSERT_EQ(cu().cuGraphAddHostNode(&host, graph_, &spin, 1, &h), CUDA_SUCCESS);
  CUevent e, gate;
  ASSERT_EQ(cu().cuEventCreate(&e, CU_EVENT_DEFAULT), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuEventCreate(&gate, CU_EVENT_DEFAULT), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphAddEventRecordNode(&record, graph_, &host, 1, e), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphAddEventWaitNode(&wait, graph_, nullptr, 0, gate), CUDA_SUCCESS);
  CUevent read;
  ASSERT_EQ(cu().cuGraphEventWaitNodeGetEvent(wait, &read), CUDA_SUCCESS);
  EXPECT_EQ(read, gate);
  ASSERT_EQ(cu().cuEventRecord(gate, blocking_), CUDA_SUCCESS);
  CUgraphExec exec = Instantiate();
  Launch(exec, free_);
  ASSERT_EQ(cu().cuEventSynchronize(e), CUDA_SUCCESS);  // recorded by the graph
  EXPECT_EQ(calls, 3);
}

TEST_F(GraphTest, ChildGraphs) {
  CUgraph child;
  ASSERT_EQ(cu().cuGraphCreate(&child, 0), CUDA_SUCCESS);
  std::swap(graph_, child);
  CUgraphNode inner = AddStore(words_, 4);
  std::swap(graph_, child);
  CUgraphNode before = AddStore(words_, 1), node;
  ASSERT_EQ(cu().cuGraphAddChildGraphNode(&node, graph_, &before, 1, child), CUDA_SUCCESS);
  AddCopy(words_ + 4, words_, {node});
  CUgraphExec exec = Instantiate();
  Launch(exec, free_);
  EXPECT_EQ(Load(words_ + 4), 4u);
  // "The child graph is cloned": its nodes are other ones, found by the original's.
  CUgraph embedded;
  CUgraphNode found;
  ASSERT_EQ(cu().cuGraphChildGraphNodeGetGraph(node, &embedded), CUDA_SUCCESS);
  EXPECT_NE(embedded, child);
  ASSERT_EQ(cu().cuGraphNodeFindInClone(&found, inner, embedded), CUDA_SUCCESS);
  EXPECT_NE(found, inner);
  EXPECT_EQ(cu().cuGraphDestroy(embedded), CUDA_ERROR_INVALID_VALUE);  // its node's
  // The nodes of the embedded graph name those of the executable graph.
  ASSERT_EQ(cu().cuGraphNodeSetEnabled(exec, found, 0), CUDA_SUCCESS);
  Launch(exec, free_);
  EXPECT_EQ(Load(words_ + 4), 1u);
}

TEST_F(GraphTest, DisabledNodesDoNothing) {
  CUgraphNode a = AddStore(words_, 1), b = AddStore(words_, 2, {a}), e = AddEmpty({b});
  CUgraphExec exec = Instantiate();
  unsigned enabled = 1;
  ASSERT_EQ(cu().cuGraphNodeSetEnabled(exec, b, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphNodeGetEnabled(exec, b, &enabled), CUDA_SUCCESS);
  EXPECT_EQ(enabled, 0u);
  Launch(exec, free_);
  EXPECT_EQ(Load(words_), 1u);
  ASSERT_EQ(cu().cuGraphNodeSetEnabled(exec, b, 1), CUDA_SUCCESS);
  Launch(exec, free_);
  EXPECT_EQ(Load(words_), 2u);
  // "Currently only kernel, memset and memcpy nodes are supported."
  EXPECT_EQ(cu().cuGraphNodeSetEnabled(exec, e, 0), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(GraphTest, ExecUpdate) {
  CUgraphNode a = AddStore(words_, 1);
  AddCopy(words_ + 4, words_, {a});
  CUgraphExec exec = Instantiate();
  CUgraph same, old = graph_;
  ASSERT_EQ(cu().cuGraphCreate(&same, 0), CUDA_SUCCESS);
  graph_ = same;
  a = AddStore(words_, 9);
  AddCopy(words_ + 4, words_, {a});
  CUgraphExecUpdateResultInfo info;
  ASSERT_EQ(cu().cuGraphExecUpdate_v2(exec, same, &info), CUDA_SUCCESS);
  EXPECT_EQ(info.result, CU_GRAPH_EXEC_UPDATE_SUCCESS);
  Launch(exec, free_);
  EXPECT_EQ(Load(words_ + 4), 9u);
  CUgraphNode extra = AddEmpty();
  EXPECT_EQ(cu().cuGraphExecUpdate_v2(exec, same, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
  EXPECT_EQ(info.result, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED);
  EXPECT_EQ(info.errorNode, nullptr);
  ASSERT_EQ(cu().cuGraphDestroyNode(extra), CUDA_SUCCESS);
  CUgraph other;
  ASSERT_EQ(cu().cuGraphCreate(&other, 0), CUDA_SUCCESS);
  graph_ = other;
  a = AddStore(words_, 1);
  CUgraphNode e = AddEmpty({a});
  CUgraphNode bad = nullptr;
  CUgraphExecUpdateResult result;
  EXPECT_EQ(cu().cuGraphExecUpdate(exec, other, &bad, &result),
            CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
  EXPECT_EQ(result, CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED);
  EXPECT_EQ(bad, e);
  Launch(exec, free_);  // unchanged by the failures
  EXPECT_EQ(Load(words_), 9u);
  graph_ = old;
}

TEST_F(GraphTest, Clone) {
  CUgraphNode n = AddStore(words_, 1), found;
  CUgraph clone;
  ASSERT_EQ(cu().cuGraphClone(&clone, graph_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphNodeFindInClone(&found, n, clone), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuGraphNodeFindInClone(&found, found, clone), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(cu().cuGraphDestroy(graph_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuGraphDestroy(graph_), CUDA_ERROR_INVALID_VALUE);
  graph_ = clone;
  CUgraphExec exec = Instantiate();
  Launch(exec, free_);
  EXPECT_EQ(Load(words_), 1u);
}

TEST_F(GraphTest, DeviceLaunchRestrictions) {
  CUgraphExec exec;
  CUDA_GRAPH_INSTANTIATE_PARAMS p{};
  p.flags = CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH;
  EXPECT_EQ(cu().cuGraphInstantiateWithParams(&exec, graph_, &p), CUDA_ERROR_INVALID_VALUE);
  AddStore(words_, 1);
  EXPECT_EQ(cu().cuGraphInstantiateWithParams(&exec, graph_, &p), CUDA_SUCCESS);
  cuuint64_t flags;
  ASSERT_EQ(cu().cuGraphExecGetFlags(exec, &flags), CUDA_SUCCESS);
  EXPECT_EQ(flags, unsigned(CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH));
  CUDA_HOST_NODE_PARAMS h{[](void*) {}, nullptr};
  CUgraphNode host;
  ASSERT_EQ(cu().cuGraphAddHostNode(&host, graph_, nullptr, 0, &h), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuGraphInstantiateWithParams(&exec, graph_, &p), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(p.result_out, CUDA_GRAPH_INSTANTIATE_NODE_OPERATION_NOT_SUPPORTED);
  EXPECT_EQ(p.hErrNode_out, host);
}

// Nodes of two devices in one graph.
TEST_F(GraphTest, SeveralContexts) {
  CUcontext second;
  CUdeviceptr there;
  ASSERT_EQ(cu().cuDevicePrimaryCtxRetain(&second, 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuCtxPushCurrent_v2(second), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemAlloc_v2(&there, 4096), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuCtxPopCurrent_v2(nullptr), CUDA_SUCCESS);
  CUDA_MEMSET_NODE_PARAMS_v1 m{there, 0, 7, 4, 1, 1};
  CUgraphNode set;
  ASSERT_EQ(cu().cuGraphAddMemsetNode(&set, graph_, nullptr, 0, &m, second), CUDA_SUCCESS);
  AddCopy(words_, there, {set});
  CUgraphExec exec = Instantiate();
  Launch(exec, free_);
  EXPECT_EQ(Load(words_), 7u);
  EXPECT_EQ(cu().cuGraphExecDestroy(exec), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuDevicePrimaryCtxReset_v2(1), CUDA_SUCCESS);
}

TEST_F(GraphTest, KernelAttributes) {
  CUgraphNode a = AddSpin(1000), b = AddSpin(1000);
  CUkernelNodeAttrValue v{}, read{};
  v.priority = -3;
  ASSERT_EQ(cu().cuGraphKernelNodeSetAttribute(a, CU_LAUNCH_ATTRIBUTE_PRIORITY, &v), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphKernelNodeCopyAttributes(b, a), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphKernelNodeGetAttribute(b, CU_LAUNCH_ATTRIBUTE_PRIORITY, &read),
            CUDA_SUCCESS);
  EXPECT_EQ(read.priority, -3);
}

// "If the executable graph is in-flight, it will not be terminated, but rather freed
// asynchronously".
TEST_F(GraphTest, DestroyedInFlight) {
  CUgraphNode spin = AddSpin(2'000'000);
  AddStore(words_, 1, {spin});
  CUgraphExec exec = Instantiate();
  Launch(exec, free_);
  EXPECT_EQ(cu().cuGraphExecDestroy(exec), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuGraphLaunch(exec, free_), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(Load(words_), 1u);
}

// A user object lives as long as a graph or an executable graph made of it ("CUDA User Objects").
TEST_F(GraphTest, UserObjects) {
  static std::atomic<int> destroyed;
  destroyed = 0;
  CUuserObject object;
  auto destroy = [](void*) {
    ++destroyed;
    destroyed.notify_all();
  };
  EXPECT_EQ(cu().cuUserObjectCreate(&object, nullptr, destroy, 1, 0), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(
      cu().cuUserObjectCreate(&object, nullptr, destroy, 1, CU_USER_OBJECT_NO_DESTRUCTOR_SYNC),
      CUDA_SUCCESS);
  ASSERT_EQ(cu().cuGraphRetainUserObject(graph_, object, 1, CU_GRAPH_USER_OBJECT_MOVE),
            CUDA_SUCCESS);
  EXPECT_EQ(cu().cuGraphReleaseUserObject(graph_, object, 2), CUDA_ERROR_INVALID_VALUE);
  AddSpin(1000);
  CUgraphExec exec = Instantiate();
  ASSERT_EQ(cu().cuGraphDestroy(graph_), CUDA_SUCCESS);
  Launch(exec, free_);
  ASSERT_EQ(cu().cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(destroyed, 0);  // the executable graph holds it
  ASSERT_EQ(cu().cuGraphExecDestroy(exec), CUDA_SUCCESS);
  destroyed.wait(0);  // on the internal thread
  EXPECT_EQ(destroyed, 1);
  EXPECT_EQ(cu().cuUserObjectRelease(object, 1), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(GraphTest, DotFile) {
  CUgraphNode a = AddStore(words_, 1);
  AddEmpty({a});
  std::string path = testing::TempDir() + "graph.dot";
  ASSERT_EQ(cu().cuGraphDebugDotPrint(graph_, path.c_str(), CU_GRAPH_DEBUG_DOT_FLAGS_VERBOSE),
            CUDA_SUCCESS);
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_NE(text.str().find("digraph"), std::string::npos);
  EXPECT_NE(text.str().find("store"), std::string::npos);
  EXPECT_NE(text.str().find("->"), std::string::npos);
  remove(path.c_str());
}

}  // namespace
}  // namespace divvy::sim
