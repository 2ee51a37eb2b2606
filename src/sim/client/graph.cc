// Graphs as data: life, edges, order, clones. See graph.h.
#include "src/sim/client/graph.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <unordered_set>

#include "src/sim/client/graph_memory.h"
#include "src/sim/client/user_object.h"

namespace divvy::sim {
namespace {

struct Registry {
  std::unordered_set<const void*> nodes, graphs;
  std::unordered_map<const Graph*, std::shared_ptr<Graph>> kept;
  uint64_t next_id = 1;
};
Registry& Live() {
  static Registry& r = *new Registry;
  return r;
}

void SetParent(Node* node) {
  if (auto* child = std::get_if<ChildNode>(&node->params)) child->graph->parent = node;
}

}  // namespace

std::mutex& GraphMutex() {
  static std::mutex& m = *new std::mutex;
  return m;
}

Node* Node::From(CUgraphNode handle) {
  return Live().nodes.count(handle) != 0 ? reinterpret_cast<Node*>(handle) : nullptr;
}

Graph::Graph() : id(Live().next_id++) { Live().graphs.insert(this); }

Graph::~Graph() {
  Live().graphs.erase(this);
  for (auto& n : nodes) Live().nodes.erase(n.get());
  for (auto [object, count] : user_objects) ReleaseUserObject(object, count);
}

Graph* Graph::From(CUgraph handle) {
  return Live().graphs.count(handle) != 0 ? reinterpret_cast<Graph*>(handle) : nullptr;
}

void Graph::Keep(std::shared_ptr<Graph> graph) {
  const Graph* key = graph.get();
  Live().kept[key] = std::move(graph);
}

std::shared_ptr<Graph> Graph::Shared(Graph* graph) {
  auto it = Live().kept.find(graph);
  return it == Live().kept.end() ? nullptr : it->second;
}

void Graph::Drop(Graph* graph) { Live().kept.erase(graph); }

Node* Graph::Add(NodeParams params, const std::vector<Edge>& from) {
  auto node = std::make_unique<Node>();
  Node* n = node.get();
  n->graph = this;
  n->id = Live().next_id++;
  n->params = std::move(params);
  SetParent(n);
  bool memory =
      std::holds_alternative<AllocNode>(n->params) || std::holds_alternative<FreeNode>(n->params);
  if (auto* child = std::get_if<ChildNode>(&n->params)) memory = child->graph->has_memory_nodes;
  for (Graph* g = this; memory && g != nullptr; g = g->parent ? g->parent->graph : nullptr) {
    g->has_memory_nodes = true;
  }
  OwnMemoryNode(this, n->params);
  Live().nodes.insert(n);
  nodes.push_back(std::move(node));
  for (const Edge& e : from) AddEdge(e.node, n, e.data);
  return n;
}

void Graph::Remove(Node* node) {
  for (const Edge& e : node->from) {
    std::erase_if(e.node->to, [&](const Edge& back) { return back.node == node; });
  }
  for (const Edge& e : node->to) {
    std::erase_if(e.node->from, [&](const Edge& back) { return back.node == node; });
  }
  Live().nodes.erase(node);
  std::erase_if(nodes, [&](const auto& n) { return n.get() == node; });
}

std::shared_ptr<Graph> Graph::Clone() const {
  auto copy = std::make_shared<Graph>();
  copy->source_id = id;
  std::unordered_map<const Node*, Node*> image;
  for (const auto& n : nodes) {
    NodeParams params = n->params;
    if (auto* child = std::get_if<ChildNode>(&params)) child->graph = child->graph->Clone();
    Node* c = copy->Add(std::move(params), {});
    c->source_id = n->id;
    image[n.get()] = c;
  }
  for (const auto& n : nodes) {
    for (const Edge& e : n->from) image[n.get()]->from.push_back({image[e.node], e.data});
    for (const Edge& e : n->to) image[n.get()]->to.push_back({image[e.node], e.data});
  }
  copy->user_objects = user_objects;
  for (auto [object, count] : user_objects) RetainUserObject(object, count);
  return copy;
}

Node* Graph::FindBySource(uint64_t source) const {
  for (const auto& n : nodes) {
    if (n->source_id == source) return n.get();
    if (auto* child = std::get_if<ChildNode>(&n->params)) {
      if (Node* found = child->graph->FindBySource(source)) return found;
    }
  }
  return nullptr;
}

bool Graph::Sorted(std::vector<Node*>* out) const {
  out->clear();
  std::unordered_map<const Node*, size_t> waits;
  for (const auto& n : nodes) {
    waits[n.get()] = n->from.size();
    if (n->from.empty()) out->push_back(n.get());
  }
  for (size_t i = 0; i < out->size(); ++i) {
    for (const Edge& e : (*out)[i]->to) {
      if (--waits[e.node] == 0) out->push_back(e.node);
    }
  }
  return out->size() == nodes.size();
}

bool SameEdgeData(const CUgraphEdgeData& a, const CUgraphEdgeData& b) {
  return memcmp(&a, &b, sizeof a) == 0;
}

bool IsDefault(const CUgraphEdgeData& data) { return SameEdgeData(data, CUgraphEdgeData{}); }

CUresult CheckDependencies(Graph* graph, const CUgraphNode* nodes, const CUgraphEdgeData* data,
                           size_t count, std::vector<Edge>* out) {
  if (count > 0 && nodes == nullptr) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; ++i) {
    Node* n = Node::From(nodes[i]);
    if (n == nullptr || n->graph != graph) return CUDA_ERROR_INVALID_VALUE;
    for (const Edge& e : *out) {
      if (e.node == n) return CUDA_ERROR_INVALID_VALUE;
    }
    CUgraphEdgeData d = data != nullptr ? data[i] : CUgraphEdgeData{};
    // Ports other than 0 are defined for kernel nodes only (CUgraphEdgeData_st).
    bool kernel = std::holds_alternative<KernelNode>(n->params);
    if (d.type > CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC ||
        d.from_port > CU_GRAPH_KERNEL_NODE_PORT_LAUNCH_ORDER || d.to_port != 0 ||
        ((d.from_port != 0 || d.type != 0) && !kernel)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    out->push_back({n, d});
  }
  return CUDA_SUCCESS;
}

bool AddEdge(Node* from, Node* to, const CUgraphEdgeData& data) {
  for (const Edge& e : to->from) {
    if (e.node == from && SameEdgeData(e.data, data)) return false;
  }
  from->to.push_back({to, data});
  to->from.push_back({from, data});
  return true;
}

bool Reaches(const Node* node, const std::vector<Edge>& targets) {
  std::unordered_set<const Node*> seen;
  std::vector<const Node*> todo;
  for (const Edge& e : targets) todo.push_back(e.node);
  while (!todo.empty()) {
    const Node* n = todo.back();
    todo.pop_back();
    if (n == node) return true;
    if (!seen.insert(n).second) continue;
    for (const Edge& e : n->from) todo.push_back(e.node);
  }
  return false;
}

}  // namespace divvy::sim
