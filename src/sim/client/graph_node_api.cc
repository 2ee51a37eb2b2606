// Nodes of graphs, typed and generic: adding, reading and changing them (CUDA Driver API, "Graph
// Management"). Parameters are checked and copied before the graph lock is taken.
#include "src/sim/client/graph_memory.h"
#include "src/sim/client/graph_params.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

struct Place {
  CUgraphNode* out;
  CUgraph graph;
  const CUgraphNode* dependencies;
  const CUgraphEdgeData* data;
  size_t count;
};

// The graph lock is held. `make` may still refuse (memory nodes need the graph).
template <typename Make>
CUresult AddLocked(const Place& at, Make make) {
  Graph* g = Graph::From(at.graph);
  if (g == nullptr || at.out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::vector<Edge> from;
  if (CUresult r = CheckDependencies(g, at.dependencies, at.data, at.count, &from)) return r;
  NodeParams params;
  if (CUresult r = make(g, &params)) return r;
  *at.out = g->Add(std::move(params), from)->handle();
  return CUDA_SUCCESS;
}

CUresult Add(const Place& at, CUresult checked, NodeParams params) {
  if (checked != CUDA_SUCCESS) return checked;
  GraphLock lock(GraphMutex());
  return AddLocked(at, [&](Graph*, NodeParams* out) {
    *out = std::move(params);
    return CUDA_SUCCESS;
  });
}

CUresult AddAlloc(const Place& at, CUDA_MEM_ALLOC_NODE_PARAMS* p) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  GraphLock lock(GraphMutex());
  return AddLocked(at, [&](Graph*, NodeParams* out) { return MakeAllocNode(p, c, out); });
}

CUresult AddFree(const Place& at, CUdeviceptr ptr) {
  if (CUresult r = Process::Get().Ready()) return r;
  GraphLock lock(GraphMutex());
  return AddLocked(at, [&](Graph* g, NodeParams* out) { return MakeFreeNode(ptr, g, out); });
}

CUresult AddChild(const Place& at, CUgraph child, CUgraphChildGraphNodeOwnership ownership) {
  if (CUresult r = Process::Get().Ready()) return r;
  GraphLock lock(GraphMutex());
  return AddLocked(at, [&](Graph* g, NodeParams* out) {
    Graph* c = Graph::From(child);
    if (c == nullptr || c == g || c->capturing) return CUDA_ERROR_INVALID_VALUE;
    if (ownership == CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE) {
      auto owned = Graph::Shared(c);
      if (owned == nullptr || !c->only_exec.expired()) return CUDA_ERROR_INVALID_VALUE;
      Graph::Drop(c);
      *out = ChildNode{std::move(owned)};
      return CUDA_SUCCESS;
    }
    if (ownership != CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE) return CUDA_ERROR_INVALID_VALUE;
    // "The graph can only be used in a child node if the ownership is moved to the parent."
    if (c->has_memory_nodes) return CUDA_ERROR_NOT_SUPPORTED;
    *out = ChildNode{c->Clone()};
    return CUDA_SUCCESS;
  });
}

// The node when it is of that type.
template <typename T>
T* As(CUgraphNode handle, Node** node = nullptr) {
  Node* n = Node::From(handle);
  if (node != nullptr) *node = n;
  return n != nullptr ? std::get_if<T>(&n->params) : nullptr;
}

template <typename T>
CUresult Set(CUgraphNode handle, CUresult checked, NodeParams params) {
  if (checked != CUDA_SUCCESS) return checked;
  GraphLock lock(GraphMutex());
  T* now = As<T>(handle);
  if (now == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if constexpr (std::is_same_v<T, KernelNode>) {
    // Attributes are set by calls of their own.
    auto& k = std::get<KernelNode>(params);
    k.cooperative = now->cooperative;
    k.priority = now->priority;
    k.has_priority = now->has_priority;
    k.attributes = now->attributes;
  }
  *now = std::get<T>(std::move(params));
  return CUDA_SUCCESS;
}

}  // namespace

CUresult sim_cuGraphAddKernelNode_v2(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps,
                                     size_t count, const CUDA_KERNEL_NODE_PARAMS_v2* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(Widen(*p), &params);
  return Add({out, graph, deps, nullptr, count}, r, std::move(params));
}
CUresult sim_cuGraphAddKernelNode(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps,
                                  size_t count, const CUDA_KERNEL_NODE_PARAMS_v1* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(Widen(*p), &params);
  return Add({out, graph, deps, nullptr, count}, r, std::move(params));
}
CUresult sim_cuGraphAddMemcpyNode(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps,
                                  size_t count, const CUDA_MEMCPY3D_v2* p, CUcontext ctx) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(*p, ctx, &params);
  return Add({out, graph, deps, nullptr, count}, r, std::move(params));
}
CUresult sim_cuGraphAddMemsetNode(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps,
                                  size_t count, const CUDA_MEMSET_NODE_PARAMS_v1* p,
                                  CUcontext ctx) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(Widen(*p, ctx), &params);
  return Add({out, graph, deps, nullptr, count}, r, std::move(params));
}
CUresult sim_cuGraphAddHostNode(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps,
                                size_t count, const CUDA_HOST_NODE_PARAMS_v1* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(*p, &params);
  return Add({out, graph, deps, nullptr, count}, r, std::move(params));
}
CUresult sim_cuGraphAddEmptyNode(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps,
                                 size_t count) {
  return Add({out, graph, deps, nullptr, count}, Process::Get().Ready(), EmptyNode{});
}
CUresult sim_cuGraphAddEventRecordNode(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps,
                                       size_t count, CUevent event) {
  NodeParams params;
  CUresult r = RecordFromApi(event, &params);
  return Add({out, graph, deps, nullptr, count}, r, std::move(params));
}
CUresult sim_cuGraphAddEventWaitNode(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps,
                                     size_t count, CUevent event) {
  NodeParams params;
  CUresult r = WaitFromApi(event, &params);
  return Add({out, graph, deps, nullptr, count}, r, std::move(params));
}
CUresult sim_cuGraphAddBatchMemOpNode(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps,
                                      size_t count, const CUDA_BATCH_MEM_OP_NODE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(*p, &params);
  return Add({out, graph, deps, nullptr, count}, r, std::move(params));
}
CUresult sim_cuGraphAddMemAllocNode(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps,
                                    size_t count, CUDA_MEM_ALLOC_NODE_PARAMS* p) {
  return AddAlloc({out, graph, deps, nullptr, count}, p);
}
CUresult sim_cuGraphAddMemFreeNode(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps,
                                   size_t count, CUdeviceptr ptr) {
  return AddFree({out, graph, deps, nullptr, count}, ptr);
}
CUresult sim_cuGraphAddChildGraphNode(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps,
                                      size_t count, CUgraph child) {
  return AddChild({out, graph, deps, nullptr, count}, child, CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE);
}

CUresult sim_cuGraphAddNode_v2(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps,
                               const CUgraphEdgeData* data, size_t count, CUgraphNodeParams* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Place at{out, graph, deps, data, count};
  switch (p->type) {
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC: {
      CUDA_MEM_ALLOC_NODE_PARAMS alloc{p->alloc.poolProps, p->alloc.accessDescs,
                                       p->alloc.accessDescCount, p->alloc.bytesize, 0};
      CUresult r = AddAlloc(at, &alloc);
      if (r == CUDA_SUCCESS) p->alloc.dptr = alloc.dptr;
      return r;
    }
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
      return AddFree(at, p->free.dptr);
    case CU_GRAPH_NODE_TYPE_GRAPH:
      return AddChild(at, p->graph.graph, p->graph.ownership);
    default: {
      if (CUresult r = Process::Get().Ready()) return r;
      NodeParams params;
      CUresult r = FromApi(*p, &params);
      return Add(at, r, std::move(params));
    }
  }
}
CUresult sim_cuGraphAddNode(CUgraphNode* out, CUgraph graph, const CUgraphNode* deps, size_t count,
                            CUgraphNodeParams* p) {
  return sim_cuGraphAddNode_v2(out, graph, deps, nullptr, count, p);
}

CUresult sim_cuGraphKernelNodeGetParams_v2(CUgraphNode handle, CUDA_KERNEL_NODE_PARAMS_v2* out) {
  GraphLock lock(GraphMutex());
  Node* n;
  auto* k = As<KernelNode>(handle, &n);
  if (k == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = Narrow(ToApi(n, *k));
  return CUDA_SUCCESS;
}
CUresult sim_cuGraphKernelNodeGetParams(CUgraphNode handle, CUDA_KERNEL_NODE_PARAMS_v1* out) {
  CUDA_KERNEL_NODE_PARAMS_v2 p;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult r = sim_cuGraphKernelNodeGetParams_v2(handle, &p)) return r;
  *out = {p.func,      p.gridDimX,  p.gridDimY,       p.gridDimZ,     p.blockDimX,
          p.blockDimY, p.blockDimZ, p.sharedMemBytes, p.kernelParams, p.extra};
  return CUDA_SUCCESS;
}
CUresult sim_cuGraphKernelNodeSetParams_v2(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v2* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(Widen(*p), &params);
  return Set<KernelNode>(node, r, std::move(params));
}
CUresult sim_cuGraphKernelNodeSetParams(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(Widen(*p), &params);
  return Set<KernelNode>(node, r, std::move(params));
}
CUresult sim_cuGraphMemcpyNodeGetParams(CUgraphNode handle, CUDA_MEMCPY3D_v2* out) {
  GraphLock lock(GraphMutex());
  auto* c = As<CopyNode>(handle);
  if (c == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = ToApi(*c);
  return CUDA_SUCCESS;
}
CUresult sim_cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D_v2* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(*p, ContextHandleOf(node), &params);
  return Set<CopyNode>(node, r, std::move(params));
}
CUresult sim_cuGraphMemsetNodeGetParams(CUgraphNode handle, CUDA_MEMSET_NODE_PARAMS_v1* out) {
  GraphLock lock(GraphMutex());
  auto* m = As<MemsetNode>(handle);
  if (m == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = {m->dst, m->pitch, m->value, m->element_bytes, m->width, m->height};
  return CUDA_SUCCESS;
}
CUresult sim_cuGraphMemsetNodeSetParams(CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS_v1* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(Widen(*p, ContextHandleOf(node)), &params);
  return Set<MemsetNode>(node, r, std::move(params));
}
CUresult sim_cuGraphHostNodeGetParams(CUgraphNode handle, CUDA_HOST_NODE_PARAMS_v1* out) {
  GraphLock lock(GraphMutex());
  auto* h = As<HostNode>(handle);
  if (h == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = {h->fn, h->data};
  return CUDA_SUCCESS;
}
CUresult sim_cuGraphHostNodeSetParams(CUgraphNode node, const CUDA_HOST_NODE_PARAMS_v1* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(*p, &params);
  return Set<HostNode>(node, r, std::move(params));
}
CUresult sim_cuGraphEventRecordNodeGetEvent(CUgraphNode handle, CUevent* out) {
  GraphLock lock(GraphMutex());
  auto* e = As<EventRecordNode>(handle);
  if (e == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = e->event->handle();
  return CUDA_SUCCESS;
}
CUresult sim_cuGraphEventRecordNodeSetEvent(CUgraphNode node, CUevent event) {
  NodeParams params;
  CUresult r = RecordFromApi(event, &params);
  return Set<EventRecordNode>(node, r, std::move(params));
}
CUresult sim_cuGraphEventWaitNodeGetEvent(CUgraphNode handle, CUevent* out) {
  GraphLock lock(GraphMutex());
  auto* e = As<EventWaitNode>(handle);
  if (e == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = e->event->handle();
  return CUDA_SUCCESS;
}
CUresult sim_cuGraphEventWaitNodeSetEvent(CUgraphNode node, CUevent event) {
  NodeParams params;
  CUresult r = WaitFromApi(event, &params);
  return Set<EventWaitNode>(node, r, std::move(params));
}
CUresult sim_cuGraphBatchMemOpNodeGetParams(CUgraphNode handle,
                                            CUDA_BATCH_MEM_OP_NODE_PARAMS* out) {
  GraphLock lock(GraphMutex());
  auto* m = As<MemOpNode>(handle);
  if (m == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = ToApi(*m);
  return CUDA_SUCCESS;
}
CUresult sim_cuGraphBatchMemOpNodeSetParams(CUgraphNode node,
                                            const CUDA_BATCH_MEM_OP_NODE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(*p, &params);
  return Set<MemOpNode>(node, r, std::move(params));
}
CUresult sim_cuGraphChildGraphNodeGetGraph(CUgraphNode handle, CUgraph* out) {
  GraphLock lock(GraphMutex());
  auto* c = As<ChildNode>(handle);
  if (c == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = c->graph->handle();
  return CUDA_SUCCESS;
}

// The generic form: the type must be the node's.
CUresult sim_cuGraphNodeSetParams(CUgraphNode node, CUgraphNodeParams* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  if (CUresult r = FromApi(*p, &params)) return r;
  return std::visit(
      [&](auto& of_type) {
        using T = std::decay_t<decltype(of_type)>;
        return Set<T>(node, CUDA_SUCCESS, std::move(params));
      },
      params);
}

}  // namespace divvy::sim
