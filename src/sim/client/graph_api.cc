// Graphs as wholes: creation, destruction, clones, nodes and edges (CUDA Driver API, "Graph
// Management").
#include <algorithm>

#include "src/sim/client/graph.h"
#include "src/sim/client/graph_params.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

// The convention of all listing calls: null array: only the count; more room than needed: the rest
// is set to null, the count to what there is.
CUresult List(const std::vector<CUgraphNode>& from, CUgraphNode* out, size_t* count) {
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (out != nullptr) {
    for (size_t i = 0; i < *count; ++i) out[i] = i < from.size() ? from[i] : nullptr;
    *count = std::min(*count, from.size());
  } else {
    *count = from.size();
  }
  return CUDA_SUCCESS;
}

CUresult ListEdges(const std::vector<Edge>& edges, CUgraphNode* nodes, CUgraphEdgeData* data,
                   size_t* count) {
  if (count == nullptr || (data != nullptr && nodes == nullptr)) return CUDA_ERROR_INVALID_VALUE;
  std::vector<CUgraphNode> ends;
  for (size_t i = 0; i < edges.size(); ++i) {
    bool wanted = nodes != nullptr && i < *count;
    if (wanted && data == nullptr && !IsDefault(edges[i].data)) return CUDA_ERROR_LOSSY_QUERY;
    if (wanted && data != nullptr) data[i] = edges[i].data;
    ends.push_back(edges[i].node->handle());
  }
  return List(ends, nodes, count);
}

CUresult CheckPairs(Graph* g, const CUgraphNode* from, const CUgraphNode* to, size_t count) {
  if (count > 0 && (from == nullptr || to == nullptr)) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; ++i) {
    Node *a = Node::From(from[i]), *b = Node::From(to[i]);
    if (a == nullptr || b == nullptr || a->graph != g || b->graph != g || a == b) {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  return CUDA_SUCCESS;
}

void RemoveEdge(Node* from, Node* to, const CUgraphEdgeData& data) {
  std::erase_if(from->to,
                [&](const Edge& e) { return e.node == to && SameEdgeData(e.data, data); });
  std::erase_if(to->from,
                [&](const Edge& e) { return e.node == from && SameEdgeData(e.data, data); });
}

}  // namespace

CUresult sim_cuGraphCreate(CUgraph* out, unsigned int flags) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (out == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  GraphLock lock(GraphMutex());
  auto g = std::make_shared<Graph>();
  *out = g->handle();
  Graph::Keep(std::move(g));
  return CUDA_SUCCESS;
}

CUresult sim_cuGraphDestroy(CUgraph handle) {
  GraphLock lock(GraphMutex());
  Graph* g = Graph::From(handle);
  // A child's graph belongs to its node, one that is captured into to its capture: "All operations
  // other than destroy and node removal are permitted on the graph while the capture is in
  // progress".
  if (g == nullptr || Graph::Shared(g) == nullptr || g->capturing) return CUDA_ERROR_INVALID_VALUE;
  Graph::Drop(g);
  return CUDA_SUCCESS;
}

CUresult sim_cuGraphClone(CUgraph* out, CUgraph handle) {
  GraphLock lock(GraphMutex());
  Graph* g = Graph::From(handle);
  if (out == nullptr || g == nullptr) return CUDA_ERROR_INVALID_VALUE;
  // "Cloning is not supported for graphs which contain memory allocation nodes, memory free nodes".
  if (g->has_memory_nodes) return CUDA_ERROR_NOT_SUPPORTED;
  auto copy = g->Clone();
  *out = copy->handle();
  Graph::Keep(std::move(copy));
  return CUDA_SUCCESS;
}

CUresult sim_cuGraphNodeFindInClone(CUgraphNode* out, CUgraphNode original, CUgraph clone) {
  GraphLock lock(GraphMutex());
  Graph* g = Graph::From(clone);
  Node* n = Node::From(original);
  if (out == nullptr || g == nullptr || n == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Node* found = g->FindBySource(n->id);
  if (found == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = found->handle();
  return CUDA_SUCCESS;
}

CUresult sim_cuGraphGetNodes(CUgraph handle, CUgraphNode* nodes, size_t* count) {
  GraphLock lock(GraphMutex());
  Graph* g = Graph::From(handle);
  if (g == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::vector<CUgraphNode> all;
  for (const auto& n : g->nodes) all.push_back(n->handle());
  return List(all, nodes, count);
}

CUresult sim_cuGraphGetRootNodes(CUgraph handle, CUgraphNode* nodes, size_t* count) {
  GraphLock lock(GraphMutex());
  Graph* g = Graph::From(handle);
  if (g == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::vector<CUgraphNode> roots;
  for (const auto& n : g->nodes) {
    if (n->from.empty()) roots.push_back(n->handle());
  }
  return List(roots, nodes, count);
}

CUresult sim_cuGraphGetEdges_v2(CUgraph handle, CUgraphNode* from, CUgraphNode* to,
                                CUgraphEdgeData* data, size_t* count) {
  GraphLock lock(GraphMutex());
  Graph* g = Graph::From(handle);
  if (g == nullptr || count == nullptr || (from == nullptr) != (to == nullptr) ||
      (data != nullptr && from == nullptr)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::vector<CUgraphNode> starts, ends;
  for (const auto& n : g->nodes) {
    for (const Edge& e : n->to) {
      bool wanted = from != nullptr && starts.size() < *count;
      if (wanted && data == nullptr && !IsDefault(e.data)) return CUDA_ERROR_LOSSY_QUERY;
      if (wanted && data != nullptr) data[starts.size()] = e.data;
      starts.push_back(n->handle());
      ends.push_back(e.node->handle());
    }
  }
  size_t room = *count;
  (void)List(starts, from, count);
  return List(ends, to, from != nullptr ? &room : count);
}
CUresult sim_cuGraphGetEdges(CUgraph graph, CUgraphNode* from, CUgraphNode* to, size_t* count) {
  return sim_cuGraphGetEdges_v2(graph, from, to, nullptr, count);
}

CUresult sim_cuGraphNodeGetDependencies_v2(CUgraphNode handle, CUgraphNode* nodes,
                                           CUgraphEdgeData* data, size_t* count) {
  GraphLock lock(GraphMutex());
  Node* n = Node::From(handle);
  return n == nullptr ? CUDA_ERROR_INVALID_VALUE : ListEdges(n->from, nodes, data, count);
}
CUresult sim_cuGraphNodeGetDependencies(CUgraphNode node, CUgraphNode* nodes, size_t* count) {
  return sim_cuGraphNodeGetDependencies_v2(node, nodes, nullptr, count);
}

CUresult sim_cuGraphNodeGetDependentNodes_v2(CUgraphNode handle, CUgraphNode* nodes,
                                             CUgraphEdgeData* data, size_t* count) {
  GraphLock lock(GraphMutex());
  Node* n = Node::From(handle);
  return n == nullptr ? CUDA_ERROR_INVALID_VALUE : ListEdges(n->to, nodes, data, count);
}
CUresult sim_cuGraphNodeGetDependentNodes(CUgraphNode node, CUgraphNode* nodes, size_t* count) {
  return sim_cuGraphNodeGetDependentNodes_v2(node, nodes, nullptr, count);
}

CUresult sim_cuGraphNodeGetType(CUgraphNode handle, CUgraphNodeType* type) {
  GraphLock lock(GraphMutex());
  Node* n = Node::From(handle);
  if (n == nullptr || type == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *type = TypeOf(n->params);
  return CUDA_SUCCESS;
}

CUresult sim_cuGraphAddDependencies_v2(CUgraph handle, const CUgraphNode* from,
                                       const CUgraphNode* to, const CUgraphEdgeData* data,
                                       size_t count) {
  GraphLock lock(GraphMutex());
  Graph* g = Graph::From(handle);
  if (g == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult r = CheckPairs(g, from, to, count)) return r;
  // "Specifying an existing dependency will return an error"; then nothing is added.
  for (size_t i = 0; i < count; ++i) {
    std::vector<Edge> checked;
    if (CUresult r = CheckDependencies(g, from + i, data ? data + i : nullptr, 1, &checked))
      return r;
    Node* b = Node::From(to[i]);
    for (const Edge& e : b->from) {
      if (e.node == checked[0].node && SameEdgeData(e.data, checked[0].data)) {
        return CUDA_ERROR_INVALID_VALUE;
      }
    }
  }
  for (size_t i = 0; i < count; ++i) {
    AddEdge(Node::From(from[i]), Node::From(to[i]), data ? data[i] : CUgraphEdgeData{});
  }
  return CUDA_SUCCESS;
}
CUresult sim_cuGraphAddDependencies(CUgraph graph, const CUgraphNode* from, const CUgraphNode* to,
                                    size_t count) {
  return sim_cuGraphAddDependencies_v2(graph, from, to, nullptr, count);
}

CUresult sim_cuGraphRemoveDependencies_v2(CUgraph handle, const CUgraphNode* from,
                                          const CUgraphNode* to, const CUgraphEdgeData* data,
                                          size_t count) {
  GraphLock lock(GraphMutex());
  Graph* g = Graph::From(handle);
  // "Dependencies cannot be removed from graphs which contain allocation or free nodes."
  if (g == nullptr || g->has_memory_nodes) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult r = CheckPairs(g, from, to, count)) return r;
  for (size_t i = 0; i < count; ++i) {
    Node *a = Node::From(from[i]), *b = Node::From(to[i]);
    CUgraphEdgeData d = data ? data[i] : CUgraphEdgeData{};
    auto same = [&](const Edge& e) { return e.node == b && SameEdgeData(e.data, d); };
    if (std::none_of(a->to.begin(), a->to.end(), same)) return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0; i < count; ++i) {
    RemoveEdge(Node::From(from[i]), Node::From(to[i]), data ? data[i] : CUgraphEdgeData{});
  }
  return CUDA_SUCCESS;
}
CUresult sim_cuGraphRemoveDependencies(CUgraph graph, const CUgraphNode* from,
                                       const CUgraphNode* to, size_t count) {
  return sim_cuGraphRemoveDependencies_v2(graph, from, to, nullptr, count);
}

CUresult sim_cuGraphDestroyNode(CUgraphNode handle) {
  GraphLock lock(GraphMutex());
  Node* n = Node::From(handle);
  // "Nodes which belong to a graph which contains allocation or free nodes cannot be destroyed."
  if (n == nullptr || n->graph->has_memory_nodes || n->graph->capturing) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  n->graph->Remove(n);
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
