// Executable graphs: a copy of a graph, laid out once as steps in lanes and launched many times. A
// lane is a run of steps that one stream carries; lane 0 is the launch stream where its context
// allows. Guarded by the graph lock, but for what a launch uses (launch_mu).
#pragma once

#include <memory>
#include <mutex>
#include <unordered_set>
#include <vector>

#include "src/sim/client/graph.h"
#include "src/sim/client/stream.h"

namespace divvy::sim {

// One node of the flattened graph. Child graphs are expanded, empty nodes vanish.
struct Step {
  Node* node;
  unsigned lane;
  std::vector<unsigned> after;  // earlier steps of other lanes
};
struct Lane {
  Context* context;  // null: any
  unsigned last;     // its last step
};
struct Plan {
  std::vector<Step> steps;
  std::vector<Lane> lanes;
};
// CUDA_ERROR_INVALID_VALUE with `*bad` one of the nodes on a cycle.
CUresult MakePlan(const Graph& graph, Plan* plan, Node** bad);

struct GraphExec {
  ~GraphExec();

  uint64_t id = 0;
  uint64_t flags = 0;
  std::shared_ptr<Graph> body;  // a clone; node->source_id names the original
  Plan plan;
  std::unordered_set<const Node*> disabled;

  std::mutex launch_mu;          // one launch at a time; taken before the graph lock
  std::vector<Stream*> streams;  // by lane, made when first needed
  Ticket last;                   // of the latest launch

  CUgraphExec handle() { return reinterpret_cast<CUgraphExec>(this); }
  static std::shared_ptr<GraphExec> From(CUgraphExec handle);
  // The node of the body that stands for `original`.
  Node* Find(CUgraphNode original);
};

// The graph lock is held. *bad: the number of the node of `graph` (or a child's) that is wrong, or
// 0.
CUresult Instantiate(Graph* graph, uint64_t flags, std::shared_ptr<GraphExec>* out, uint64_t* bad,
                     CUgraphInstantiateResult* why);
std::shared_ptr<GraphExec> TakeExec(CUgraphExec handle);

// The graph lock is not held.
CUresult Launch(const std::shared_ptr<GraphExec>& exec, Stream* stream);
CUresult Upload(const std::shared_ptr<GraphExec>& exec, Stream* stream);

}  // namespace divvy::sim
