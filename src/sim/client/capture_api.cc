// The calls that begin, end and inspect stream captures (CUDA Driver API, "Stream Management").
#include "src/sim/client/capture_state.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

bool ValidMode(CUstreamCaptureMode mode) {
  return mode >= CU_STREAM_CAPTURE_MODE_GLOBAL && mode <= CU_STREAM_CAPTURE_MODE_RELAXED;
}

// `graph` null: a fresh one.
CUresult Begin(Stream* s, CUstreamCaptureMode mode, std::shared_ptr<Graph> graph,
               std::vector<Edge> from) {
  CaptureBook& book = CaptureBook::Get();
  // "Capture may not be initiated if stream is CU_STREAM_LEGACY."
  if (s->legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (book.Find(s) != nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  auto sequence = std::make_shared<CaptureSequence>();
  sequence->id = book.next_id++;
  sequence->own_graph = graph == nullptr;
  sequence->graph = graph != nullptr ? std::move(graph) : std::make_shared<Graph>();
  sequence->graph->capturing = true;
  sequence->mode = mode;
  sequence->thread = ThisThread();
  sequence->origin = s;
  book.streams[s] = {sequence, s, std::move(from), {}, {}};
  book.Open(sequence);
  return CUDA_SUCCESS;
}

// Work forked to other streams must be reachable from the origin.
bool Joined(const CaptureSequence& sequence, const std::vector<Edge>& origin) {
  for (auto& [stream, c] : CaptureBook::Get().streams) {
    if (c.sequence.get() != &sequence || stream == sequence.origin) continue;
    for (const Edge& e : c.next_from) {
      if (!Reaches(e.node, origin)) return false;
    }
  }
  return true;
}

struct Info {
  CUstreamCaptureStatus* status;
  cuuint64_t* id;
  CUgraph* graph;
  const CUgraphNode** dependencies;
  const CUgraphEdgeData** data;
  size_t* count;
};

CUresult GetInfo(CUstream handle, const Info& out) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  if (out.status == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (out.data != nullptr && out.dependencies == nullptr) return CUDA_ERROR_INVALID_VALUE;
  GraphLock lock(GraphMutex());
  CaptureBook& book = CaptureBook::Get();
  // "If called on CU_STREAM_LEGACY while a stream not created with CU_STREAM_NON_BLOCKING is
  // capturing, returns CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"; the capture stays valid.
  if (s->legacy && book.BlockingCapture(s->context)) return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  CapturingStream* c = book.Find(s);
  if (c == nullptr || c->sequence->invalid) {
    *out.status =
        c == nullptr ? CU_STREAM_CAPTURE_STATUS_NONE : CU_STREAM_CAPTURE_STATUS_INVALIDATED;
    return CUDA_SUCCESS;
  }
  if (out.dependencies != nullptr && out.data == nullptr) {
    for (const Edge& e : c->next_from) {
      if (!IsDefault(e.data)) return CUDA_ERROR_LOSSY_QUERY;
    }
  }
  *out.status = CU_STREAM_CAPTURE_STATUS_ACTIVE;
  if (out.id != nullptr) *out.id = c->sequence->id;
  if (out.graph != nullptr) *out.graph = c->sequence->graph->handle();
  c->shown_nodes.clear();
  c->shown_data.clear();
  for (const Edge& e : c->next_from) {
    c->shown_nodes.push_back(e.node->handle());
    c->shown_data.push_back(e.data);
  }
  if (out.dependencies != nullptr) *out.dependencies = c->shown_nodes.data();
  if (out.data != nullptr) *out.data = c->shown_data.data();
  if (out.count != nullptr) *out.count = c->shown_nodes.size();
  return CUDA_SUCCESS;
}

}  // namespace

CUresult sim_cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  if (!ValidMode(mode)) return CUDA_ERROR_INVALID_VALUE;
  GraphLock lock(GraphMutex());
  return Begin(s, mode, nullptr, {});
}

CUresult sim_cuStreamBeginCapture(CUstream handle) {
  return sim_cuStreamBeginCapture_v2(handle, CU_STREAM_CAPTURE_MODE_GLOBAL);
}

CUresult sim_cuStreamBeginCaptureToGraph(CUstream handle, CUgraph graph,
                                         const CUgraphNode* dependencies,
                                         const CUgraphEdgeData* data, size_t count,
                                         CUstreamCaptureMode mode) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  if (!ValidMode(mode)) return CUDA_ERROR_INVALID_VALUE;
  GraphLock lock(GraphMutex());
  std::shared_ptr<Graph> g = Graph::Shared(Graph::From(graph));
  if (g == nullptr || g->capturing) return CUDA_ERROR_INVALID_VALUE;
  std::vector<Edge> from;
  if (CUresult r = CheckDependencies(g.get(), dependencies, data, count, &from)) return r;
  return Begin(s, mode, std::move(g), std::move(from));
}

CUresult sim_cuStreamEndCapture(CUstream handle, CUgraph* out) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  GraphLock lock(GraphMutex());
  CaptureBook& book = CaptureBook::Get();
  CapturingStream* c = book.Find(s);
  if (c == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  SequencePtr sequence = c->sequence;
  *out = nullptr;
  if (sequence->origin != s) {
    sequence->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  }
  // "If the mode argument to cuStreamBeginCapture was not RELAXED, this call must be from the same
  // thread as cuStreamBeginCapture."
  if (sequence->mode != CU_STREAM_CAPTURE_MODE_RELAXED && sequence->thread != ThisThread()) {
    sequence->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  }
  CUresult answer = CUDA_SUCCESS;
  if (sequence->invalid) {
    answer = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  } else if (!Joined(*sequence, c->next_from)) {
    answer = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  }
  book.Close(sequence);
  std::shared_ptr<Graph> graph = std::move(sequence->graph);
  if (answer != CUDA_SUCCESS) return answer;
  *out = graph->handle();
  if (sequence->own_graph) Graph::Keep(std::move(graph));
  return CUDA_SUCCESS;
}

CUresult sim_cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
  return GetInfo(handle, {status, nullptr, nullptr, nullptr, nullptr, nullptr});
}

CUresult sim_cuStreamGetCaptureInfo(CUstream handle, CUstreamCaptureStatus* status,
                                    cuuint64_t* id) {
  return GetInfo(handle, {status, id, nullptr, nullptr, nullptr, nullptr});
}

CUresult sim_cuStreamGetCaptureInfo_v2(CUstream handle, CUstreamCaptureStatus* status,
                                       cuuint64_t* id, CUgraph* graph,
                                       const CUgraphNode** dependencies, size_t* count) {
  return GetInfo(handle, {status, id, graph, dependencies, nullptr, count});
}

CUresult sim_cuStreamGetCaptureInfo_v3(CUstream handle, CUstreamCaptureStatus* status,
                                       cuuint64_t* id, CUgraph* graph,
                                       const CUgraphNode** dependencies,
                                       const CUgraphEdgeData** data, size_t* count) {
  return GetInfo(handle, {status, id, graph, dependencies, data, count});
}

CUresult sim_cuStreamUpdateCaptureDependencies_v2(CUstream handle, CUgraphNode* dependencies,
                                                  const CUgraphEdgeData* data, size_t count,
                                                  unsigned int flags) {
  Stream* s;
  if (CUresult r = EnterStream(handle, &s)) return r;
  if (flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES) return CUDA_ERROR_INVALID_VALUE;
  GraphLock lock(GraphMutex());
  CapturingStream* c = CaptureBook::Get().Find(s);
  if (c == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  if (c->sequence->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  std::vector<Edge> edges;
  if (CUresult r = CheckDependencies(c->sequence->graph.get(), dependencies, data, count, &edges)) {
    return r;
  }
  if (flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES) c->next_from.clear();
  AddEdges(&c->next_from, edges);
  return CUDA_SUCCESS;
}

CUresult sim_cuStreamUpdateCaptureDependencies(CUstream handle, CUgraphNode* dependencies,
                                               size_t count, unsigned int flags) {
  return sim_cuStreamUpdateCaptureDependencies_v2(handle, dependencies, nullptr, count, flags);
}

CUresult sim_cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (mode == nullptr || !ValidMode(*mode)) return CUDA_ERROR_INVALID_VALUE;
  std::swap(*mode, ThreadCaptureMode());
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
