// Launching executable graphs: steps go to streams in order, what crosses lanes is waited for by
// tickets. The launch stream carries the first lane itself, so that a chain of nodes costs no
// waits.
#include "src/sim/client/capture.h"
#include "src/sim/client/graph_exec.h"
#include "src/sim/client/graph_memory.h"
#include "src/sim/client/user_object.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

// What a launch needs of the executable graph, taken under the graph lock: later changes "only
// affect future launches".
struct Order {
  std::vector<NodeParams> params;
  std::vector<bool> enabled;
  MemoryNodes memory;  // points into params
};

Order Snapshot(const GraphExec& exec) {
  Order o;
  o.params.reserve(exec.plan.steps.size());
  for (const Step& s : exec.plan.steps) {
    o.params.push_back(s.node->params);
    o.enabled.push_back(exec.disabled.count(s.node) == 0);
  }
  for (const NodeParams& p : o.params) {
    if (std::holds_alternative<AllocNode>(p) || std::holds_alternative<FreeNode>(p)) {
      o.memory.push_back(&p);
    }
  }
  return o;
}

// The stream of a lane that the launch stream cannot carry.
Stream* LaneStream(GraphExec* exec, unsigned lane, Context* context, int priority) {
  exec->streams.resize(exec->plan.lanes.size());
  Stream*& s = exec->streams[lane];
  if (s == nullptr || s->context != context) s = MakeStream(context, CU_STREAM_NON_BLOCKING, 0);
  s->priority = priority;
  return s;
}

void Run(GraphExec* exec, Stream* stream, const Order& order) {
  const Plan& plan = exec->plan;
  // "Each launch is ordered behind both any previous work in hStream and any previous launches."
  if (exec->last.stream != nullptr && exec->last.stream != stream) SubmitWait(stream, exec->last);
  std::vector<Stream*> lane(plan.lanes.size());
  Ticket fork;
  for (unsigned l = 0; l < lane.size(); ++l) {
    Context* context = plan.lanes[l].context != nullptr ? plan.lanes[l].context : stream->context;
    if (l == 0 && context == stream->context) {
      lane[l] = stream;
      continue;
    }
    if (fork.stream == nullptr) fork = Submit(stream, {});
    lane[l] = LaneStream(exec, l, context, stream->priority);
    SubmitWait(lane[l], fork);
  }
  std::vector<Ticket> done(plan.steps.size());
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    Stream* s = lane[plan.steps[i].lane];
    for (unsigned a : plan.steps[i].after) SubmitWait(s, done[a]);
    done[i] = order.enabled[i] ? SubmitNode(s, order.params[i]) : LastOf(s);
  }
  for (unsigned l = 0; l < lane.size(); ++l) {
    if (lane[l] != stream) SubmitWait(stream, LastOf(lane[l]));
  }
  exec->last = LastOf(stream);
}

bool Dead(const GraphExec& exec) {
  for (const Lane& l : exec.plan.lanes) {
    if (l.context != nullptr && l.context->destroyed) return true;
  }
  return false;
}

}  // namespace

CUresult Launch(const std::shared_ptr<GraphExec>& exec, Stream* stream) {
  std::lock_guard launching(exec->launch_mu);
  Order order;
  {
    GraphLock lock(GraphMutex());
    if (Dead(*exec)) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    order = Snapshot(*exec);
  }
  if (!order.memory.empty()) {
    bool auto_free = (exec->flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH) != 0;
    if (CUresult r = TakeForLaunch(exec->id, stream, order.memory, auto_free)) return r;
  }
  Run(exec.get(), stream, order);
  if (!order.memory.empty()) GraphMemoryInUse(exec->id, exec->last);
  return CUDA_SUCCESS;
}

CUresult Upload(const std::shared_ptr<GraphExec>& exec, Stream* stream) {
  std::lock_guard launching(exec->launch_mu);
  Order order;
  {
    GraphLock lock(GraphMutex());
    if (Dead(*exec)) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    order = Snapshot(*exec);
  }
  if (!order.memory.empty()) {
    if (CUresult r = TakeForUpload(exec->id, stream, order.memory)) return r;
  }
  if (exec->last.stream != nullptr && exec->last.stream != stream) SubmitWait(stream, exec->last);
  exec->last = Submit(stream, {});
  return CUDA_SUCCESS;
}

CUresult sim_cuGraphLaunch(CUgraphExec handle, CUstream h_stream) {
  Stream* s;
  if (CUresult r = EnterStream(h_stream, &s)) return r;
  std::shared_ptr<GraphExec> exec;
  NodeParams captured;
  {
    GraphLock lock(GraphMutex());
    exec = GraphExec::From(handle);
    if (exec == nullptr) return CUDA_ERROR_INVALID_VALUE;
  }
  bool capturing;
  if (CUresult r = IsCaptured(s, &capturing)) return r;
  if (!capturing) return Launch(exec, s);
  // A launch into a capturing stream becomes a child graph; graphs with memory nodes cannot be one.
  {
    GraphLock lock(GraphMutex());
    if (exec->body->has_memory_nodes) return CUDA_ERROR_NOT_SUPPORTED;
    captured = ChildNode{exec->body->Clone()};
  }
  return SubmitOrCapture(s, std::move(captured));
}

CUresult sim_cuGraphUpload(CUgraphExec handle, CUstream h_stream) {
  Stream* s;
  if (CUresult r = EnterStream(h_stream, &s)) return r;
  std::shared_ptr<GraphExec> exec;
  {
    GraphLock lock(GraphMutex());
    exec = GraphExec::From(handle);
  }
  if (exec == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult r = RefuseCaptured(s)) return r;
  return Upload(exec, s);
}

// "If the executable graph is in-flight, it will not be terminated, but rather freed asynchronously
// on completion."
CUresult sim_cuGraphExecDestroy(CUgraphExec handle) {
  std::shared_ptr<GraphExec> exec;
  {
    GraphLock lock(GraphMutex());
    exec = TakeExec(handle);
  }
  if (exec == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Ticket last;
  {
    std::lock_guard launching(exec->launch_mu);
    last = exec->last;
  }
  ForgetGraphMemory(exec->id);
  auto drop = [exec = std::move(exec)]() mutable {
    GraphLock lock(GraphMutex());
    exec.reset();
  };
  if (last.stream == nullptr || HasEnded(last)) {
    drop();
  } else {
    RunOnGraphThread([last, drop = std::move(drop)]() mutable {
      (void)Finish(last);
      drop();
    });
  }
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
