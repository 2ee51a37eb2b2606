// Changing executable graphs: node by node and as a whole (CUDA Driver API,
// cuGraphExec...SetParams, cuGraphExecUpdate), enabling nodes, kernel node attributes.
#include "src/sim/client/graph_exec.h"
#include "src/sim/client/graph_params.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

// Attributes are not among a kernel node's parameters.
void KeepAttributes(const NodeParams& from, NodeParams* to) {
  auto* a = std::get_if<KernelNode>(&from);
  auto* b = std::get_if<KernelNode>(to);
  if (a == nullptr || b == nullptr) return;
  b->cooperative = a->cooperative;
  b->priority = a->priority;
  b->has_priority = a->has_priority;
  b->attributes = a->attributes;
}

CUresult SetOne(CUgraphExec handle, CUgraphNode original, CUresult checked, NodeParams params) {
  if (checked != CUDA_SUCCESS) return checked;
  GraphLock lock(GraphMutex());
  auto exec = GraphExec::From(handle);
  Node* n = exec != nullptr ? exec->Find(original) : nullptr;
  if (n == nullptr) return CUDA_ERROR_INVALID_VALUE;
  KeepAttributes(n->params, &params);
  if (MayBecome(n->params, params) != CU_GRAPH_EXEC_UPDATE_SUCCESS) return CUDA_ERROR_INVALID_VALUE;
  n->params = std::move(params);
  return CUDA_SUCCESS;
}

struct Difference {
  CUgraphExecUpdateResult result = CU_GRAPH_EXEC_UPDATE_SUCCESS;
  Node* node = nullptr;
  Node* from = nullptr;
};

// Nodes are paired in the order they were added, their dependencies in the order of their edges.
Difference Compare(const Graph& exec, const Graph& now) {
  if (exec.nodes.size() != now.nodes.size()) {
    return {CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED, nullptr, nullptr};
  }
  auto index = [](const Graph& g, const Node* n) {
    for (size_t i = 0; i < g.nodes.size(); ++i) {
      if (g.nodes[i].get() == n) return i;
    }
    return g.nodes.size();
  };
  for (size_t i = 0; i < now.nodes.size(); ++i) {
    Node *a = exec.nodes[i].get(), *b = now.nodes[i].get();
    if (a->from.size() != b->from.size()) {
      return {CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED, b, nullptr};
    }
    for (size_t e = 0; e < b->from.size(); ++e) {
      if (index(exec, a->from[e].node) != index(now, b->from[e].node) ||
          !SameEdgeData(a->from[e].data, b->from[e].data)) {
        return {CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED, b, b->from[e].node};
      }
    }
    CUgraphExecUpdateResult r = MayBecome(a->params, b->params);
    if (r != CU_GRAPH_EXEC_UPDATE_SUCCESS) return {r, b, nullptr};
    if (auto* child = std::get_if<ChildNode>(&a->params)) {
      Difference d = Compare(*child->graph, *std::get<ChildNode>(b->params).graph);
      if (d.result != CU_GRAPH_EXEC_UPDATE_SUCCESS) return d;
    }
  }
  return {};
}

void Assign(const Graph& exec, const Graph& now) {
  for (size_t i = 0; i < now.nodes.size(); ++i) {
    Node *a = exec.nodes[i].get(), *b = now.nodes[i].get();
    if (auto* child = std::get_if<ChildNode>(&a->params)) {
      Assign(*child->graph, *std::get<ChildNode>(b->params).graph);
    } else if (!std::holds_alternative<AllocNode>(a->params) &&
               !std::holds_alternative<FreeNode>(a->params)) {
      a->params = b->params;
    }
  }
}

// Kernel node attributes that NodeParams keep as fields of their own.
CUresult SetAttribute(KernelNode* k, CUlaunchAttributeID id, const CUlaunchAttributeValue& value) {
  switch (id) {
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
      if (value.cooperative != 0 && value.cooperative != 1) return CUDA_ERROR_INVALID_VALUE;
      k->cooperative = value.cooperative != 0;
      break;
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
      k->has_priority = true;
      k->priority = value.priority;
      break;
    case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      break;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  k->attributes[id] = value;
  return CUDA_SUCCESS;
}

KernelNode* Kernel(CUgraphNode handle) {
  Node* n = Node::From(handle);
  return n != nullptr ? std::get_if<KernelNode>(&n->params) : nullptr;
}

}  // namespace

CUresult sim_cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node,
                                               const CUDA_KERNEL_NODE_PARAMS_v2* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(Widen(*p), &params);
  return SetOne(exec, node, r, std::move(params));
}
CUresult sim_cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                            const CUDA_KERNEL_NODE_PARAMS_v1* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(Widen(*p), &params);
  return SetOne(exec, node, r, std::move(params));
}
CUresult sim_cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                            const CUDA_MEMCPY3D_v2* p, CUcontext ctx) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(*p, ctx, &params);
  return SetOne(exec, node, r, std::move(params));
}
CUresult sim_cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                            const CUDA_MEMSET_NODE_PARAMS_v1* p, CUcontext ctx) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(Widen(*p, ctx), &params);
  return SetOne(exec, node, r, std::move(params));
}
CUresult sim_cuGraphExecHostNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                          const CUDA_HOST_NODE_PARAMS_v1* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(*p, &params);
  return SetOne(exec, node, r, std::move(params));
}
CUresult sim_cuGraphExecEventRecordNodeSetEvent(CUgraphExec exec, CUgraphNode node, CUevent event) {
  NodeParams params;
  CUresult r = RecordFromApi(event, &params);
  return SetOne(exec, node, r, std::move(params));
}
CUresult sim_cuGraphExecEventWaitNodeSetEvent(CUgraphExec exec, CUgraphNode node, CUevent event) {
  NodeParams params;
  CUresult r = WaitFromApi(event, &params);
  return SetOne(exec, node, r, std::move(params));
}
CUresult sim_cuGraphExecBatchMemOpNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                const CUDA_BATCH_MEM_OP_NODE_PARAMS* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  NodeParams params;
  CUresult r = FromApi(*p, &params);
  return SetOne(exec, node, r, std::move(params));
}

CUresult sim_cuGraphExecChildGraphNodeSetParams(CUgraphExec handle, CUgraphNode node,
                                                CUgraph child) {
  GraphLock lock(GraphMutex());
  auto exec = GraphExec::From(handle);
  Graph* g = Graph::From(child);
  Node* n = exec != nullptr ? exec->Find(node) : nullptr;
  auto* c = n != nullptr ? std::get_if<ChildNode>(&n->params) : nullptr;
  if (c == nullptr || g == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (Compare(*c->graph, *g).result != CU_GRAPH_EXEC_UPDATE_SUCCESS)
    return CUDA_ERROR_INVALID_VALUE;
  Assign(*c->graph, *g);
  return CUDA_SUCCESS;
}

CUresult sim_cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraphNodeParams* p) {
  if (p == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (p->type == CU_GRAPH_NODE_TYPE_GRAPH) {
    return sim_cuGraphExecChildGraphNodeSetParams(exec, node, p->graph.graph);
  }
  NodeParams params;
  CUresult r = FromApi(*p, &params);
  return SetOne(exec, node, r, std::move(params));
}

CUresult sim_cuGraphExecUpdate_v2(CUgraphExec handle, CUgraph graph,
                                  CUgraphExecUpdateResultInfo* info) {
  GraphLock lock(GraphMutex());
  auto exec = GraphExec::From(handle);
  Graph* g = Graph::From(graph);
  if (info == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *info = {CU_GRAPH_EXEC_UPDATE_ERROR, nullptr, nullptr};
  if (exec == nullptr || g == nullptr || g->capturing) return CUDA_ERROR_INVALID_VALUE;
  Difference d = Compare(*exec->body, *g);
  info->result = d.result;
  info->errorNode = d.node != nullptr ? d.node->handle() : nullptr;
  info->errorFromNode = d.from != nullptr ? d.from->handle() : nullptr;
  if (d.result != CU_GRAPH_EXEC_UPDATE_SUCCESS) return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
  Assign(*exec->body, *g);
  return CUDA_SUCCESS;
}
CUresult sim_cuGraphExecUpdate(CUgraphExec exec, CUgraph graph, CUgraphNode* error_node,
                               CUgraphExecUpdateResult* result) {
  if (result == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUgraphExecUpdateResultInfo info;
  CUresult r = sim_cuGraphExecUpdate_v2(exec, graph, &info);
  *result = info.result;
  if (error_node != nullptr) *error_node = info.errorNode;
  return r;
}

CUresult sim_cuGraphNodeSetEnabled(CUgraphExec handle, CUgraphNode node, unsigned int enabled) {
  GraphLock lock(GraphMutex());
  auto exec = GraphExec::From(handle);
  Node* n = exec != nullptr ? exec->Find(node) : nullptr;
  if (n == nullptr) return CUDA_ERROR_INVALID_VALUE;
  // "Currently only kernel, memset and memcpy nodes are supported."
  if (!std::holds_alternative<KernelNode>(n->params) &&
      !std::holds_alternative<MemsetNode>(n->params) &&
      !std::holds_alternative<CopyNode>(n->params)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (enabled != 0) {
    exec->disabled.erase(n);
  } else {
    exec->disabled.insert(n);
  }
  return CUDA_SUCCESS;
}

CUresult sim_cuGraphNodeGetEnabled(CUgraphExec handle, CUgraphNode node, unsigned int* enabled) {
  GraphLock lock(GraphMutex());
  auto exec = GraphExec::From(handle);
  Node* n = exec != nullptr ? exec->Find(node) : nullptr;
  if (n == nullptr || enabled == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *enabled = exec->disabled.count(n) == 0;
  return CUDA_SUCCESS;
}

CUresult sim_cuGraphKernelNodeSetAttribute(CUgraphNode node, CUkernelNodeAttrID id,
                                           const CUkernelNodeAttrValue* value) {
  GraphLock lock(GraphMutex());
  KernelNode* k = Kernel(node);
  if (k == nullptr || value == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return SetAttribute(k, id, *value);
}

CUresult sim_cuGraphKernelNodeGetAttribute(CUgraphNode node, CUkernelNodeAttrID id,
                                           CUkernelNodeAttrValue* out) {
  GraphLock lock(GraphMutex());
  KernelNode* k = Kernel(node);
  if (k == nullptr || out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = {};
  auto it = k->attributes.find(id);
  if (it != k->attributes.end()) *out = it->second;
  if (id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE) out->cooperative = k->cooperative;
  if (id == CU_LAUNCH_ATTRIBUTE_PRIORITY) out->priority = k->priority;
  return CUDA_SUCCESS;
}

CUresult sim_cuGraphKernelNodeCopyAttributes(CUgraphNode dst, CUgraphNode src) {
  GraphLock lock(GraphMutex());
  KernelNode *to = Kernel(dst), *from = Kernel(src);
  if (to == nullptr || from == nullptr) return CUDA_ERROR_INVALID_VALUE;
  to->cooperative = from->cooperative;
  to->priority = from->priority;
  to->has_priority = from->has_priority;
  to->attributes = from->attributes;
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
