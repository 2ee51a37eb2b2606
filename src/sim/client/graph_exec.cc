// Making and keeping executable graphs. See graph_exec.h.
#include "src/sim/client/graph_exec.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "src/sim/client/graph_params.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

struct Registry {
  std::unordered_map<CUgraphExec, std::shared_ptr<GraphExec>> live;
  uint64_t next_id = 1;
};
Registry& Execs() {
  static Registry& r = *new Registry;
  return r;
}

constexpr uint64_t kKnownFlags =
    CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD |
    CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;

// What cuGraphInstantiate demands of graphs that the device may launch.
CUgraphInstantiateResult CheckDeviceLaunch(const Plan& plan, Node** bad) {
  Context* context = nullptr;
  for (const Step& s : plan.steps) {
    *bad = s.node;
    switch (TypeOf(s.node->params)) {
      case CU_GRAPH_NODE_TYPE_KERNEL:
      case CU_GRAPH_NODE_TYPE_MEMCPY:
      case CU_GRAPH_NODE_TYPE_MEMSET:
        break;
      default:
        return CUDA_GRAPH_INSTANTIATE_NODE_OPERATION_NOT_SUPPORTED;
    }
    Context* c = ContextOf(s.node->params);
    if (context != nullptr && c != context) {
      return CUDA_GRAPH_INSTANTIATE_MULTIPLE_CTXS_NOT_SUPPORTED;
    }
    context = c;
  }
  *bad = nullptr;
  return plan.steps.empty() ? CUDA_GRAPH_INSTANTIATE_ERROR : CUDA_GRAPH_INSTANTIATE_SUCCESS;
}

// The node with this number, in the graph or in a child's.
CUgraphNode OriginalOf(const Graph& graph, uint64_t id) {
  for (const auto& n : graph.nodes) {
    if (n->id == id) return n->handle();
    if (auto* child = std::get_if<ChildNode>(&n->params)) {
      if (CUgraphNode found = OriginalOf(*child->graph, id)) return found;
    }
  }
  return nullptr;
}

CUresult InstantiateAndKeep(CUgraphExec* out, CUgraph handle, uint64_t flags, CUgraphNode* bad,
                            CUgraphInstantiateResult* why) {
  GraphLock lock(GraphMutex());
  Graph* graph = Graph::From(handle);
  *why = CUDA_GRAPH_INSTANTIATE_ERROR;
  if (out == nullptr || graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::shared_ptr<GraphExec> exec;
  uint64_t node = 0;
  if (CUresult r = Instantiate(graph, flags, &exec, &node, why)) {
    if (bad != nullptr) *bad = OriginalOf(*graph, node);
    return r;
  }
  *out = exec->handle();
  Execs().live[exec->handle()] = std::move(exec);
  return CUDA_SUCCESS;
}

}  // namespace

GraphExec::~GraphExec() {
  for (Stream* s : streams) {
    if (s != nullptr && !s->destroyed) DestroyStream(s);
  }
}

std::shared_ptr<GraphExec> GraphExec::From(CUgraphExec handle) {
  auto it = Execs().live.find(handle);
  return it == Execs().live.end() ? nullptr : it->second;
}

std::shared_ptr<GraphExec> TakeExec(CUgraphExec handle) {
  auto it = Execs().live.find(handle);
  if (it == Execs().live.end()) return nullptr;
  auto exec = std::move(it->second);
  Execs().live.erase(it);
  return exec;
}

Node* GraphExec::Find(CUgraphNode original) {
  Node* n = Node::From(original);
  return n != nullptr ? body->FindBySource(n->id) : nullptr;
}

CUresult Instantiate(Graph* graph, uint64_t flags, std::shared_ptr<GraphExec>* out, uint64_t* bad,
                     CUgraphInstantiateResult* why) {
  *bad = 0;
  Node* node = nullptr;
  *why = CUDA_GRAPH_INSTANTIATE_ERROR;
  bool auto_free = (flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH) != 0;
  bool device_launch = (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH) != 0;
  if ((flags & ~kKnownFlags) != 0 || (auto_free && device_launch)) return CUDA_ERROR_INVALID_VALUE;
  // "The graph will not be instantiable until the user calls cuStreamEndCapture."
  if (graph->capturing) return CUDA_ERROR_INVALID_VALUE;
  // "If hGraph contains any allocation or free nodes, there can be at most one executable graph in
  // existence for that graph at a time."
  if (graph->has_memory_nodes && !graph->only_exec.expired()) return CUDA_ERROR_INVALID_VALUE;
  auto exec = std::make_shared<GraphExec>();
  exec->body = graph->Clone();
  if (CUresult r = MakePlan(*exec->body, &exec->plan, &node)) {
    *why = CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE;
    *bad = node->source_id;
    return r;
  }
  if (device_launch) {
    *why = CheckDeviceLaunch(exec->plan, &node);
    if (node != nullptr) *bad = node->source_id;
    if (*why != CUDA_GRAPH_INSTANTIATE_SUCCESS) return CUDA_ERROR_INVALID_VALUE;
  }
  exec->id = Execs().next_id++;
  exec->flags = flags;
  if (graph->has_memory_nodes) graph->only_exec = exec;
  *why = CUDA_GRAPH_INSTANTIATE_SUCCESS;
  *out = std::move(exec);
  return CUDA_SUCCESS;
}

CUresult sim_cuGraphInstantiateWithFlags(CUgraphExec* out, CUgraph graph,
                                         unsigned long long flags) {
  if (CUresult r = Process::Get().Ready()) return r;
  // The upload flag needs a stream, which only cuGraphInstantiateWithParams takes.
  if ((flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) != 0) return CUDA_ERROR_INVALID_VALUE;
  CUgraphInstantiateResult why;
  return InstantiateAndKeep(out, graph, flags, nullptr, &why);
}

// The form before CUDA 12: what is wrong comes as a node and a text.
CUresult sim_cuGraphInstantiate_v2(CUgraphExec* out, CUgraph graph, CUgraphNode* bad, char* log,
                                   size_t bytes) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (bad != nullptr) *bad = nullptr;
  if (log != nullptr && bytes > 0) log[0] = 0;
  CUgraphInstantiateResult why;
  CUresult r = InstantiateAndKeep(out, graph, 0, bad, &why);
  if (r != CUDA_SUCCESS && log != nullptr && bytes > 0) {
    const char* text = why == CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE
                           ? "the graph has a cycle"
                           : "the graph cannot be instantiated";
    strncpy(log, text, bytes - 1);
    log[bytes - 1] = 0;
  }
  return r;
}
CUresult sim_cuGraphInstantiate(CUgraphExec* out, CUgraph graph, CUgraphNode* bad, char* log,
                                size_t bytes) {
  return sim_cuGraphInstantiate_v2(out, graph, bad, log, bytes);
}

CUresult sim_cuGraphInstantiateWithParams(CUgraphExec* out, CUgraph graph,
                                          CUDA_GRAPH_INSTANTIATE_PARAMS* params) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (params == nullptr) return CUDA_ERROR_INVALID_VALUE;
  params->hErrNode_out = nullptr;
  bool upload = (params->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) != 0;
  CUresult r =
      InstantiateAndKeep(out, graph, params->flags, &params->hErrNode_out, &params->result_out);
  if (r != CUDA_SUCCESS || !upload) return r;
  r = sim_cuGraphUpload(*out, params->hUploadStream);
  if (r != CUDA_SUCCESS) {
    (void)sim_cuGraphExecDestroy(*out);
    params->result_out = CUDA_GRAPH_INSTANTIATE_ERROR;
  }
  return r;
}

CUresult sim_cuGraphExecGetFlags(CUgraphExec handle, cuuint64_t* flags) {
  GraphLock lock(GraphMutex());
  auto exec = GraphExec::From(handle);
  if (exec == nullptr || flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *flags = exec->flags & ~uint64_t(CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD);
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
