// Graphs: nodes with their parameters and edges, and who may still use them. One lock guards every
// graph, node, executable graph and capture of the process (the real driver leaves graphs to the
// caller: "Graph objects are not threadsafe"; capture makes them shared). Handles are checked
// against the set of live objects. No driver call is made while the lock is held.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "src/sim/client/node.h"

namespace divvy::sim {

struct GraphExec;
struct UserObject;

struct Node;
struct Edge {
  Node* node;
  CUgraphEdgeData data;
};

struct Node {
  Graph* graph = nullptr;
  uint64_t id = 0;
  uint64_t source_id = 0;  // of the node it was cloned from
  NodeParams params;
  std::vector<Edge> from, to;  // dependencies; dependents
  // What Get...Params handed out pointers to: valid until the node's parameters change.
  std::vector<void*> shown_args;

  CUgraphNode handle() { return reinterpret_cast<CUgraphNode>(this); }
  // Null unless it is a live node.
  static Node* From(CUgraphNode handle);
};

struct Graph {
  Graph();
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  uint64_t id;
  uint64_t source_id = 0;                    // of the graph it was cloned from
  std::vector<std::unique_ptr<Node>> nodes;  // in the order they were added
  Node* parent = nullptr;                    // the child-graph node that owns it
  bool capturing = false;                    // a capture is writing into it
  bool has_memory_nodes = false;             // own ones, or a child's
  std::weak_ptr<GraphExec> only_exec;        // with memory nodes: the one instantiation
  std::map<UserObject*, unsigned> user_objects;

  CUgraph handle() { return reinterpret_cast<CUgraph>(this); }
  static Graph* From(CUgraph handle);
  // A user's graph lives from Keep to Drop; Shared is null for a child's graph, which its node
  // owns.
  static void Keep(std::shared_ptr<Graph> graph);
  static std::shared_ptr<Graph> Shared(Graph* graph);
  static void Drop(Graph* graph);

  // Adds a node behind `from`. The edges are checked by the caller (CheckDependencies).
  Node* Add(NodeParams params, const std::vector<Edge>& from);
  void Remove(Node* node);  // and its edges
  std::shared_ptr<Graph> Clone() const;
  Node* FindBySource(uint64_t source_id) const;  // children included
  // Dependencies before dependents; ties in the order of adding. False when there is a cycle.
  bool Sorted(std::vector<Node*>* out) const;
};

std::mutex& GraphMutex();
using GraphLock = std::lock_guard<std::mutex>;

bool SameEdgeData(const CUgraphEdgeData& a, const CUgraphEdgeData& b);
bool IsDefault(const CUgraphEdgeData& data);

// The edges a caller named: nodes of `graph`, no node twice, valid data. INVALID_VALUE otherwise.
CUresult CheckDependencies(Graph* graph, const CUgraphNode* nodes, const CUgraphEdgeData* data,
                           size_t count, std::vector<Edge>* out);
bool AddEdge(Node* from, Node* to, const CUgraphEdgeData& data);  // false: it was there
// Whether `node` is one of `targets` or comes before one of them.
bool Reaches(const Node* node, const std::vector<Edge>& targets);

}  // namespace divvy::sim
