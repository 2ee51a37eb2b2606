// Direct submission of a piece of work to a stream. See node.h.
#include "src/sim/client/node.h"

#include "src/sim/client/stream.h"

namespace divvy::sim {
namespace {

struct Submitter {
  Stream* s;

  Ticket operator()(const EmptyNode&) const { return Submit(s, {}); }
  Ticket operator()(const EventRecordNode& n) const { return RecordEvent(n.event, s); }
  Ticket operator()(const EventWaitNode& n) const {
    WaitEvent(s, n.event);
    return LastOf(s);
  }
  Ticket operator()(const MemOpNode& n) const {
    Ticket last;
    for (Work& w : WorksOf(n, s->context)) last = Submit(s, std::move(w));
    return last;
  }
  // Graph memory nodes and child graphs are the graph's to launch.
  Ticket operator()(const AllocNode&) const { return LastOf(s); }
  Ticket operator()(const FreeNode&) const { return LastOf(s); }
  Ticket operator()(const ChildNode&) const { return LastOf(s); }
  template <typename T>
  Ticket operator()(const T& n) const {
    return Submit(s, WorkOf(n, s->context));
  }
};

}  // namespace

Ticket SubmitNode(Stream* stream, const NodeParams& params) {
  return std::visit(Submitter{stream}, params);
}

}  // namespace divvy::sim
