// Graphs and the memory their nodes allocate. A memory node takes nothing when it is added: the
// driver takes it when the graph is launched or uploaded and keeps it in the device's graph memory.
// So an executable graph remembers how much its nodes may need at most, and its launch is charged
// like an allocation from a pool. Graphs without memory nodes pay one load for this.
#include "src/shim/hooks/hook.h"
#include "src/shim/pages.h"
#include "src/shim/pools.h"

namespace divvy::shim {
namespace {

constexpr unsigned kDeepestChild = 8;
constexpr uint64_t kGraphStep = 2 << 20;  // what the driver rounds an allocation in a graph up to

bool MemorySeen() noexcept {
  return __builtin_expect(g_process.graph_memory_seen.load(std::memory_order_relaxed) != 0, 0);
}

struct Need {
  uint64_t bytes = 0;
  int device = -1;
};

void AddNode(CUgraphNode node, unsigned depth, Need* need) noexcept;

// Sum over all memory nodes, child graphs included.
void AddGraph(CUgraph graph, unsigned depth, Need* need) noexcept {
  size_t count = 0;
  if (depth > kDeepestChild || g_driver.cuGraphGetNodes(graph, nullptr, &count) != CUDA_SUCCESS ||
      count == 0)
    return;
  const size_t bytes = count * sizeof(CUgraphNode);
  auto* nodes = static_cast<CUgraphNode*>(MapPages(bytes));
  if (nodes == nullptr) return Degrade(6);
  if (g_driver.cuGraphGetNodes(graph, nodes, &count) == CUDA_SUCCESS)
    for (size_t i = 0; i < count; ++i) AddNode(nodes[i], depth, need);
  UnmapPages(nodes, bytes);
}

void AddNode(CUgraphNode node, unsigned depth, Need* need) noexcept {
  CUgraphNodeType type;
  if (g_driver.cuGraphNodeGetType(node, &type) != CUDA_SUCCESS) return;
  if (type == CU_GRAPH_NODE_TYPE_GRAPH) {
    CUgraph child;
    if (g_driver.cuGraphChildGraphNodeGetGraph(node, &child) == CUDA_SUCCESS)
      AddGraph(child, depth + 1, need);
  } else if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
    CUDA_MEM_ALLOC_NODE_PARAMS params;
    if (g_driver.cuGraphMemAllocNodeGetParams(node, &params) != CUDA_SUCCESS ||
        params.poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
      return;
    const uint64_t rounded = (params.bytesize + kGraphStep - 1) & ~(kGraphStep - 1);
    need->bytes = need->bytes + rounded < need->bytes ? UINT64_MAX : need->bytes + rounded;
    if (need->device < 0) need->device = LocalOf(params.poolProps.location.id);
  }
}

CUresult Instantiated(CUresult r, CUgraphExec* exec, CUgraph graph) noexcept {
  if (r != CUDA_SUCCESS || !MemorySeen() || exec == nullptr) return r;
  const RelaxedCapture relaxed;
  Need need;
  AddGraph(graph, 0, &need);
  if (need.bytes == 0 || need.device < 0) return r;
  if (!g_process.live.Insert({reinterpret_cast<uint64_t>(*exec), Family::kGraphExec,
                              static_cast<uint8_t>(need.device), static_cast<uint8_t>(Kind::kGraph),
                              0, 0, region::UnitsOf(need.bytes), 0}))
    Degrade(2);
  return r;
}

// The shape of launch and upload of a graph that may take memory.
template <typename Submit>
CUresult WithGraphMemory(DriverSymbol symbol, CUgraphExec exec, CUstream stream, bool per_thread,
                         const Submit& submit) noexcept {
  LiveEntry entry;
  if (!g_process.live.Find(Family::kGraphExec, reinterpret_cast<uint64_t>(exec), &entry) ||
      IsCapturing(stream, per_thread))
    return submit();
  const uint32_t pool = GraphPool(entry.device);
  if (pool == kNoPool) return submit();
  if (GraphHolds(pool, entry.key)) {
    const CUresult r = submit();
    PollPool(pool);
    return r;
  }
  if (const Verdict v = PoolAsk(pool, entry.units, symbol); v != Verdict::kGranted)
    return CodeOf(v);
  const CUresult r = submit();
  if (r != CUDA_SUCCESS) {
    PoolNotTaken(pool, entry.units);
    return r;
  }
  GraphTook(pool, entry.key);
  // What runs cannot be taken back: should the driver have needed more than the nodes' sum, it
  // stands as overhead, and is told.
  if (PoolTaken(pool, entry.units) != Verdict::kGranted)
    Report(region::EventCause::kOutOfShare, entry.device, entry.units * region::kUnitBytes, symbol);
  return r;
}

bool NodeDeviceAllowed(const CUmemPoolProps& props, DriverSymbol symbol) noexcept {
  return props.location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
         DeviceAllowed(props.location.id, symbol);
}

// A node that allocates was asked for: from now on executable graphs are looked into.
bool AdmitNode(const CUgraphNodeParams* params, DriverSymbol symbol) noexcept {
  if (params == nullptr) return true;
  if (params->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
    if (!NodeDeviceAllowed(params->alloc.poolProps, symbol)) return false;
    g_process.graph_memory_seen.store(1, std::memory_order_relaxed);
  }
  return true;
}

}  // namespace

CUresult hook_cuGraphAddMemAllocNode(CUgraphNode* phGraphNode, CUgraph hGraph,
                                     const CUgraphNode* dependencies, size_t numDependencies,
                                     CUDA_MEM_ALLOC_NODE_PARAMS* nodeParams) noexcept {
  DIVVY_ENTER(cuGraphAddMemAllocNode,
              (phGraphNode, hGraph, dependencies, numDependencies, nodeParams));
  if (nodeParams != nullptr &&
      !NodeDeviceAllowed(nodeParams->poolProps, DriverSymbol::cuGraphAddMemAllocNode))
    return CUDA_ERROR_INVALID_DEVICE;
  g_process.graph_memory_seen.store(1, std::memory_order_relaxed);
  return g_driver.cuGraphAddMemAllocNode(phGraphNode, hGraph, dependencies, numDependencies,
                                         nodeParams);
}

DIVVY_FORWARDED(cuGraphAddMemFreeNode,
                (CUgraphNode * phGraphNode, CUgraph hGraph, const CUgraphNode* dependencies,
                 size_t numDependencies, CUdeviceptr dptr),
                (phGraphNode, hGraph, dependencies, numDependencies, dptr))

CUresult hook_cuGraphAddNode(CUgraphNode* phGraphNode, CUgraph hGraph,
                             const CUgraphNode* dependencies, size_t numDependencies,
                             CUgraphNodeParams* nodeParams) noexcept {
  DIVVY_ENTER(cuGraphAddNode, (phGraphNode, hGraph, dependencies, numDependencies, nodeParams));
  if (!AdmitNode(nodeParams, DriverSymbol::cuGraphAddNode)) return CUDA_ERROR_INVALID_DEVICE;
  return g_driver.cuGraphAddNode(phGraphNode, hGraph, dependencies, numDependencies, nodeParams);
}

CUresult hook_cuGraphAddNode_v2(CUgraphNode* phGraphNode, CUgraph hGraph,
                                const CUgraphNode* dependencies,
                                const CUgraphEdgeData* dependencyData, size_t numDependencies,
                                CUgraphNodeParams* nodeParams) noexcept {
  DIVVY_ENTER(cuGraphAddNode_v2,
              (phGraphNode, hGraph, dependencies, dependencyData, numDependencies, nodeParams));
  if (!AdmitNode(nodeParams, DriverSymbol::cuGraphAddNode_v2)) return CUDA_ERROR_INVALID_DEVICE;
  return g_driver.cuGraphAddNode_v2(phGraphNode, hGraph, dependencies, dependencyData,
                                    numDependencies, nodeParams);
}

DIVVY_FORWARDED(cuGraphDestroy, (CUgraph hGraph), (hGraph))

CUresult hook_cuGraphInstantiate(CUgraphExec* phGraphExec, CUgraph hGraph, CUgraphNode* phErrorNode,
                                 char* logBuffer, size_t bufferSize) noexcept {
  DIVVY_ENTER(cuGraphInstantiate, (phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize));
  return Instantiated(
      g_driver.cuGraphInstantiate(phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize),
      phGraphExec, hGraph);
}

CUresult hook_cuGraphInstantiate_v2(CUgraphExec* phGraphExec, CUgraph hGraph,
                                    CUgraphNode* phErrorNode, char* logBuffer,
                                    size_t bufferSize) noexcept {
  DIVVY_ENTER(cuGraphInstantiate_v2, (phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize));
  return Instantiated(
      g_driver.cuGraphInstantiate_v2(phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize),
      phGraphExec, hGraph);
}

CUresult hook_cuGraphInstantiateWithFlags(CUgraphExec* phGraphExec, CUgraph hGraph,
                                          unsigned long long flags) noexcept {
  DIVVY_ENTER(cuGraphInstantiateWithFlags, (phGraphExec, hGraph, flags));
  return Instantiated(g_driver.cuGraphInstantiateWithFlags(phGraphExec, hGraph, flags), phGraphExec,
                      hGraph);
}

namespace {
// Instantiation may upload in the same call: then the need is asked for before.
template <typename Instantiate>
CUresult WithParams(DriverSymbol symbol, CUgraphExec* exec, CUgraph graph,
                    const CUDA_GRAPH_INSTANTIATE_PARAMS* params, bool per_thread,
                    const Instantiate& instantiate) noexcept {
  const bool uploads =
      params != nullptr && (params->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) != 0;
  if (!uploads || !MemorySeen()) return Instantiated(instantiate(), exec, graph);
  Need need;
  {
    const RelaxedCapture relaxed;
    AddGraph(graph, 0, &need);
  }
  const uint32_t pool =
      need.bytes != 0 && need.device >= 0 ? GraphPool(static_cast<unsigned>(need.device)) : kNoPool;
  if (pool == kNoPool || IsCapturing(params->hUploadStream, per_thread))
    return Instantiated(instantiate(), exec, graph);
  const uint64_t units = region::UnitsOf(need.bytes);
  if (const Verdict v = PoolAsk(pool, units, symbol); v != Verdict::kGranted) return CodeOf(v);
  const CUresult r = instantiate();
  if (r == CUDA_SUCCESS)
    PoolTaken(pool, units);
  else
    PoolNotTaken(pool, units);
  return Instantiated(r, exec, graph);
}
}  // namespace

CUresult hook_cuGraphInstantiateWithParams(
    CUgraphExec* phGraphExec, CUgraph hGraph,
    CUDA_GRAPH_INSTANTIATE_PARAMS* instantiateParams) noexcept {
  DIVVY_ENTER(cuGraphInstantiateWithParams, (phGraphExec, hGraph, instantiateParams));
  return WithParams(DriverSymbol::cuGraphInstantiateWithParams, phGraphExec, hGraph,
                    instantiateParams, false, [&] {
                      return g_driver.cuGraphInstantiateWithParams(phGraphExec, hGraph,
                                                                   instantiateParams);
                    });
}

CUresult hook_cuGraphInstantiateWithParams_ptsz(
    CUgraphExec* phGraphExec, CUgraph hGraph,
    CUDA_GRAPH_INSTANTIATE_PARAMS* instantiateParams) noexcept {
  DIVVY_ENTER(cuGraphInstantiateWithParams_ptsz, (phGraphExec, hGraph, instantiateParams));
  return WithParams(DriverSymbol::cuGraphInstantiateWithParams_ptsz, phGraphExec, hGraph,
                    instantiateParams, true, [&] {
                      return g_driver.cuGraphInstantiateWithParams_ptsz(phGraphExec, hGraph,
                                                                        instantiateParams);
                    });
}

CUresult hook_cuGraphExecDestroy(CUgraphExec hGraphExec) noexcept {
  DIVVY_ENTER(cuGraphExecDestroy, (hGraphExec));
  if (!MemorySeen()) return g_driver.cuGraphExecDestroy(hGraphExec);
  LiveEntry entry;
  const auto key = reinterpret_cast<uint64_t>(hGraphExec);
  const bool ours = g_process.live.Take(Family::kGraphExec, key, &entry);
  const CUresult r = g_driver.cuGraphExecDestroy(hGraphExec);
  if (!ours) return r;
  if (r != CUDA_SUCCESS)
    g_process.live.Insert(entry);
  else if (const uint32_t pool = GraphPool(entry.device); pool != kNoPool) {
    if (GraphHolds(pool, key)) GraphTook(pool, 0);
    PoolFreed(pool, 0);
  }
  return r;
}

CUresult hook_cuGraphLaunch(CUgraphExec hGraph, CUstream hStream) noexcept {
  return Submitted(GraphOperation(hGraph, StreamOr(hStream, CU_STREAM_LEGACY)), [&] {
    if (!MemorySeen()) return g_driver.cuGraphLaunch(hGraph, hStream);
    return WithGraphMemory(DriverSymbol::cuGraphLaunch, hGraph, hStream, false,
                           [&] { return g_driver.cuGraphLaunch(hGraph, hStream); });
  });
}

CUresult hook_cuGraphLaunch_ptsz(CUgraphExec hGraphExec, CUstream hStream) noexcept {
  return Submitted(GraphOperation(hGraphExec, StreamOr(hStream, CU_STREAM_PER_THREAD)), [&] {
    if (!MemorySeen()) return g_driver.cuGraphLaunch_ptsz(hGraphExec, hStream);
    return WithGraphMemory(DriverSymbol::cuGraphLaunch_ptsz, hGraphExec, hStream, true,
                           [&] { return g_driver.cuGraphLaunch_ptsz(hGraphExec, hStream); });
  });
}

CUresult hook_cuGraphUpload(CUgraphExec hGraph, CUstream hStream) noexcept {
  DIVVY_ENTER(cuGraphUpload, (hGraph, hStream));
  if (!MemorySeen()) return g_driver.cuGraphUpload(hGraph, hStream);
  return WithGraphMemory(DriverSymbol::cuGraphUpload, hGraph, hStream, false,
                         [&] { return g_driver.cuGraphUpload(hGraph, hStream); });
}

CUresult hook_cuGraphUpload_ptsz(CUgraphExec hGraphExec, CUstream hStream) noexcept {
  DIVVY_ENTER(cuGraphUpload_ptsz, (hGraphExec, hStream));
  if (!MemorySeen()) return g_driver.cuGraphUpload_ptsz(hGraphExec, hStream);
  return WithGraphMemory(DriverSymbol::cuGraphUpload_ptsz, hGraphExec, hStream, true,
                         [&] { return g_driver.cuGraphUpload_ptsz(hGraphExec, hStream); });
}

CUresult hook_cuDeviceGraphMemTrim(CUdevice device) noexcept {
  DIVVY_ENTER(cuDeviceGraphMemTrim, (device));
  if (!DeviceAllowed(device, DriverSymbol::cuDeviceGraphMemTrim)) return CUDA_ERROR_INVALID_DEVICE;
  const CUresult r = g_driver.cuDeviceGraphMemTrim(device);
  const int local = LocalOf(device);
  if (r == CUDA_SUCCESS && local >= 0 && MemorySeen())
    if (const uint32_t pool = GraphPool(static_cast<unsigned>(local)); pool != kNoPool) {
      GraphTook(pool, 0);
      PollPool(pool);
    }
  return r;
}

}  // namespace divvy::shim
