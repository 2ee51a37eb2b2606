// The state behind capture.h, shared by the rules (capture.cc) and the calls that begin, end and
// inspect captures (capture_api.cc). Everything is guarded by the graph lock.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "src/sim/client/capture.h"
#include "src/sim/client/graph.h"

namespace divvy::sim {

// One capture sequence: from cuStreamBeginCapture to cuStreamEndCapture on its origin stream.
struct CaptureSequence {
  uint64_t id = 0;
  std::shared_ptr<Graph> graph;
  bool own_graph = true;  // false: the user's (cuStreamBeginCaptureToGraph)
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  uint64_t thread = 0;
  Stream* origin = nullptr;
  bool invalid = false;
  bool ended = false;
};
using SequencePtr = std::shared_ptr<CaptureSequence>;

struct CapturingStream {
  SequencePtr sequence;
  Stream* stream = nullptr;
  std::vector<Edge> next_from;  // what the next captured node depends on
  // What cuStreamGetCaptureInfo handed out: valid until the next call on the stream.
  std::vector<CUgraphNode> shown_nodes;
  std::vector<CUgraphEdgeData> shown_data;

  Node* Append(NodeParams params);
};

struct CapturedEvent {
  SequencePtr sequence;  // perhaps ended
  std::vector<Edge> nodes;
};

struct CaptureBook {
  std::vector<SequencePtr> open;
  std::unordered_map<Stream*, CapturingStream> streams;
  std::unordered_map<Event*, CapturedEvent> events;
  uint64_t next_id = 1;

  static CaptureBook& Get();

  CapturingStream* Find(Stream* stream);
  // A capture that a blocking stream of the context belongs to: the legacy stream is unusable.
  SequencePtr BlockingCapture(Context* context);
  void Open(SequencePtr sequence);
  // Takes every stream of the sequence out of capture mode.
  void Close(const SequencePtr& sequence);
};

void AddEdges(std::vector<Edge>* to, const std::vector<Edge>& edges);  // without doubles

uint64_t ThisThread();  // a number that no other thread ever has
CUstreamCaptureMode& ThreadCaptureMode();

}  // namespace divvy::sim
