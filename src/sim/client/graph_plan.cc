// From a graph to steps in lanes: pure. Branches get lanes of their own, so that they can run side
// by side; what crosses lanes is waited for.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "src/sim/client/graph_exec.h"
#include "src/sim/client/graph_params.h"

namespace divvy::sim {
namespace {

constexpr size_t kMostLanes = 16;  // per context; more branches take turns

class Planner {
 public:
  explicit Planner(Plan* plan) : plan_(plan) {}

  // Adds the graph's steps behind `entry`; false with *bad when it has a cycle. *exits: the steps
  // that end it.
  bool Add(const Graph& graph, const std::vector<unsigned>& entry, std::vector<unsigned>* exits,
           Node** bad) {
    std::vector<Node*> order;
    if (!graph.Sorted(&order)) {
      *bad = OnCycle(graph, order);
      return false;
    }
    std::unordered_map<const Node*, std::vector<unsigned>> ends;
    for (Node* n : order) {
      std::vector<unsigned> after;
      if (n->from.empty()) after = entry;
      for (const Edge& e : n->from) Merge(ends[e.node], &after);
      if (auto* child = std::get_if<ChildNode>(&n->params)) {
        if (!Add(*child->graph, after, &ends[n], bad)) return false;
      } else if (std::holds_alternative<EmptyNode>(n->params)) {
        ends[n] = std::move(after);
      } else {
        ends[n] = {Put(n, after)};
      }
      if (n->to.empty()) Merge(ends[n], exits);
    }
    if (order.empty()) *exits = entry;
    return true;
  }

 private:
  // Every node that could not be sorted has one such dependency; following them ends in a cycle.
  static Node* OnCycle(const Graph& graph, const std::vector<Node*>& sorted) {
    std::unordered_set<const Node*> done(sorted.begin(), sorted.end());
    Node* at = nullptr;
    for (const auto& n : graph.nodes) {
      if (done.count(n.get()) == 0) at = n.get();
    }
    while (done.insert(at).second) {
      for (const Edge& e : at->from) {
        bool sorted_before = std::find(sorted.begin(), sorted.end(), e.node) != sorted.end();
        if (!sorted_before) {
          at = e.node;
          break;
        }
      }
    }
    return at;
  }

  static void Merge(const std::vector<unsigned>& more, std::vector<unsigned>* into) {
    for (unsigned step : more) {
      if (std::find(into->begin(), into->end(), step) == into->end()) into->push_back(step);
    }
  }

  unsigned Put(Node* n, const std::vector<unsigned>& after) {
    unsigned me = unsigned(plan_->steps.size());
    Context* context = ContextOf(n->params);
    unsigned lane = ChooseLane(after, context);
    Lane& l = plan_->lanes[lane];
    if (l.context == nullptr) l.context = context;
    Step step{n, lane, {}};
    for (unsigned a : after) {
      if (plan_->steps[a].lane != lane) step.after.push_back(a);
    }
    plan_->steps.push_back(std::move(step));
    l.last = me;
    return me;
  }

  bool Fits(const Lane& lane, Context* context) const {
    return context == nullptr || lane.context == nullptr || lane.context == context;
  }

  // A predecessor's lane that nothing has followed in yet, else a fresh one, else one that is
  // there.
  unsigned ChooseLane(const std::vector<unsigned>& after, Context* context) {
    for (unsigned a : after) {
      unsigned lane = plan_->steps[a].lane;
      if (plan_->lanes[lane].last == a && Fits(plan_->lanes[lane], context)) return lane;
    }
    size_t of_context = 0;
    for (const Lane& l : plan_->lanes) of_context += Fits(l, context);
    if (of_context < kMostLanes) {
      plan_->lanes.push_back({context, 0});
      return unsigned(plan_->lanes.size() - 1);
    }
    for (;;) {
      turn_ = (turn_ + 1) % plan_->lanes.size();
      if (Fits(plan_->lanes[turn_], context)) return unsigned(turn_);
    }
  }

  Plan* plan_;
  size_t turn_ = 0;
};

}  // namespace

CUresult MakePlan(const Graph& graph, Plan* plan, Node** bad) {
  std::vector<unsigned> exits;
  *plan = {};
  return Planner(plan).Add(graph, {}, &exits, bad) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace divvy::sim
