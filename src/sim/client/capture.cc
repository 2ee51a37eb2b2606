// The rules of stream capture. See capture.h.
//
// Sources: CUDA C++ Programming Guide, "Cross-stream Dependencies and Events", "Prohibited and
// Unhandled Operations", "Invalidation" (quoted below); cuThreadExchangeStreamCaptureMode. Where
// these leave the code open, AMD's hip-tests, which also run on NVIDIA's driver, say what it is
// (catch/unit/graph/hipStreamBeginCapture.cc and hipStreamEndCapture.cc).
#include "src/sim/client/capture.h"

#include <algorithm>

#include "src/sim/client/capture_state.h"
#include "src/sim/client/graph_memory.h"
#include "src/sim/client/pools.h"

namespace divvy::sim {
namespace {

// "When an invalid operation is attempted during stream capture, any associated capture graphs are
// invalidated."
CUresult Invalidate(const SequencePtr& sequence, CUresult answer) {
  sequence->invalid = true;
  return answer;
}

// "Any attempted use of the legacy stream is invalid" while a blocking stream of its context
// captures.
CUresult LegacyUse(Stream* s) {
  if (!s->legacy) return CUDA_SUCCESS;
  SequencePtr hit = CaptureBook::Get().BlockingCapture(s->context);
  return hit ? Invalidate(hit, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT) : CUDA_SUCCESS;
}

CUresult UnsafeCall() {
  CUstreamCaptureMode mode = ThreadCaptureMode();
  if (mode == CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_SUCCESS;
  CUresult answer = CUDA_SUCCESS;
  for (const SequencePtr& c : CaptureBook::Get().open) {
    bool mine = c->thread == ThisThread() && c->mode != CU_STREAM_CAPTURE_MODE_RELAXED;
    bool other = mode == CU_STREAM_CAPTURE_MODE_GLOBAL && c->thread != ThisThread() &&
                 c->mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
    if (mine || other) answer = Invalidate(c, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  return answer;
}

// What an enqueueing call meets: the capture that its stream is in, null when it executes. The
// graph lock is held.
CUresult Entered(Stream* s, CapturingStream** out) {
  *out = nullptr;
  if (CUresult r = LegacyUse(s)) return r;
  CapturingStream* c = CaptureBook::Get().Find(s);
  if (c != nullptr && c->sequence->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  *out = c;
  return CUDA_SUCCESS;
}

}  // namespace

CaptureBook& CaptureBook::Get() {
  static CaptureBook& b = *new CaptureBook;
  return b;
}

namespace {
// A graph may be launched anywhere: what is captured stays in its stream's context.
struct Bind {
  Context* context;
  int priority;
  // "priorities ... are copied from stream priority during stream capture"
  void operator()(KernelNode& n) const {
    if (!n.has_priority) n.priority = priority;
    n.has_priority = true;
  }
  void operator()(CopyNode& n) const { n.context = context; }
  void operator()(MemsetNode& n) const { n.context = context; }
  void operator()(MemOpNode& n) const { n.context = context; }
  template <typename T>
  void operator()(T&) const {}
};
}  // namespace

Node* CapturingStream::Append(NodeParams params) {
  std::visit(Bind{stream->context, stream->priority}, params);
  Node* n = sequence->graph->Add(std::move(params), next_from);
  next_from = {{n, CUgraphEdgeData{}}};
  return n;
}

CapturingStream* CaptureBook::Find(Stream* stream) {
  auto it = streams.find(stream);
  return it == streams.end() ? nullptr : &it->second;
}

SequencePtr CaptureBook::BlockingCapture(Context* context) {
  for (auto& [stream, s] : streams) {
    if (stream->context == context && stream->blocking()) return s.sequence;
  }
  return nullptr;
}

void CaptureBook::Open(SequencePtr sequence) {
  open.push_back(std::move(sequence));
  open_captures.store(int(open.size()), std::memory_order_relaxed);
}

void CaptureBook::Close(const SequencePtr& sequence) {
  std::erase_if(streams, [&](const auto& entry) { return entry.second.sequence == sequence; });
  sequence->ended = true;
  sequence->graph->capturing = false;
  std::erase(open, sequence);
  open_captures.store(int(open.size()), std::memory_order_relaxed);
}

void AddEdges(std::vector<Edge>* to, const std::vector<Edge>& edges) {
  for (const Edge& e : edges) {
    auto same = [&](const Edge& t) { return t.node == e.node; };
    if (std::none_of(to->begin(), to->end(), same)) to->push_back(e);
  }
}

uint64_t ThisThread() {
  static std::atomic<uint64_t> last{0};
  thread_local uint64_t mine = ++last;
  return mine;
}

CUstreamCaptureMode& ThreadCaptureMode() {
  thread_local CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  return mode;
}

RelaxedCapture::RelaxedCapture() : before_(ThreadCaptureMode()) {
  ThreadCaptureMode() = CU_STREAM_CAPTURE_MODE_RELAXED;
}
RelaxedCapture::~RelaxedCapture() { ThreadCaptureMode() = before_; }

CUresult RefuseUnsafeCall() {
  if (!AnyCapture()) return CUDA_SUCCESS;
  GraphLock lock(GraphMutex());
  return UnsafeCall();
}

CUresult RefuseSyncOfStream(Stream* s) {
  if (!AnyCapture()) return CUDA_SUCCESS;
  GraphLock lock(GraphMutex());
  CapturingStream* c;
  if (CUresult r = Entered(s, &c)) return r;
  // "It is invalid to synchronize or query the execution status of a stream which is being
  // captured."
  if (c != nullptr) return Invalidate(c->sequence, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  return UnsafeCall();
}

CUresult RefuseSyncOfContext(Context* context) {
  if (!AnyCapture()) return CUDA_SUCCESS;
  GraphLock lock(GraphMutex());
  // "It is also invalid to query the execution status of or synchronize a broader handle which
  // encompasses an active stream capture, such as a device or context handle": in any mode and from
  // any thread.
  CUresult answer = CUDA_SUCCESS;
  for (auto& [stream, c] : CaptureBook::Get().streams) {
    if (stream->context == context) {
      answer = Invalidate(c.sequence, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
  }
  return answer != CUDA_SUCCESS ? answer : UnsafeCall();
}

CUresult RefuseTimeOfEvent(Event* event) {
  if (!event->captured.load(std::memory_order_acquire)) return CUDA_SUCCESS;  // pairs with Record
  GraphLock lock(GraphMutex());
  auto it = CaptureBook::Get().events.find(event);
  if (it == CaptureBook::Get().events.end()) return CUDA_SUCCESS;
  if (!it->second.sequence->ended) it->second.sequence->invalid = true;
  return CUDA_ERROR_CAPTURED_EVENT;
}

CUresult RefuseSyncOfEvent(Event* event) {
  if (CUresult r = RefuseTimeOfEvent(event)) return r;
  {
    // An event that was never recorded answers without a look at the device.
    std::lock_guard lock(event->mu);
    if (event->recorded.stream == nullptr && event->ipc == nullptr) return CUDA_SUCCESS;
  }
  return RefuseUnsafeCall();
}

CUresult RefuseCaptured(Stream* s) {
  if (!AnyCapture()) return CUDA_SUCCESS;
  GraphLock lock(GraphMutex());
  CapturingStream* c;
  if (CUresult r = Entered(s, &c)) return r;
  if (c != nullptr) return Invalidate(c->sequence, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  return CUDA_SUCCESS;
}

CUresult RecordOrCapture(Stream* s, Event* event, unsigned flags) {
  bool external = (flags & CU_EVENT_RECORD_EXTERNAL) != 0;
  if (AnyCapture()) {
    GraphLock lock(GraphMutex());
    CapturingStream* c;
    if (CUresult r = Entered(s, &c)) return r;
    if (c != nullptr && external) {
      c->Append(EventRecordNode{event});
      return CUDA_SUCCESS;
    }
    if (c != nullptr) {
      // "When an event is recorded in a stream that is in capture mode, it results in a captured
      // event. A captured event represents a set of nodes in a capture graph."
      CaptureBook::Get().events[event] = {c->sequence, c->next_from};
      event->captured.store(true, std::memory_order_release);  // pairs with RefuseTimeOfEvent
      return CUDA_SUCCESS;
    }
  }
  // CU_EVENT_RECORD_EXTERNAL: "This flag is invalid outside of stream capture."
  if (external) return CUDA_ERROR_INVALID_VALUE;
  RecordEvent(event, s);
  return CUDA_SUCCESS;
}

void ForgetCaptured(Event* event) {
  GraphLock lock(GraphMutex());
  event->captured.store(false, std::memory_order_relaxed);
  CaptureBook::Get().events.erase(event);
}

CUresult WaitOrCapture(Stream* s, Event* event, unsigned flags) {
  bool external = (flags & CU_EVENT_WAIT_EXTERNAL) != 0;
  bool captured_event = event->captured.load(std::memory_order_acquire);  // pairs with the record
  if (AnyCapture() || captured_event) {
    GraphLock lock(GraphMutex());
    CaptureBook& book = CaptureBook::Get();
    CapturingStream* c;
    if (CUresult r = Entered(s, &c)) return r;
    if (c != nullptr && external) {
      c->Append(EventWaitNode{event});
      return CUDA_SUCCESS;
    }
    auto it = book.events.find(event);
    if (external) {
      // falls through to the answer outside of captures
    } else if (it != book.events.end()) {
      const CapturedEvent& e = it->second;
      if (e.sequence->ended) {
        if (c == nullptr) return CUDA_ERROR_CAPTURED_EVENT;
        return Invalidate(c->sequence, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
      }
      if (e.sequence->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
      if (s->legacy) return Invalidate(e.sequence, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
      if (c == nullptr) {
        // "When a captured event is waited on by a stream, it places the stream in capture mode if
        // it is not already."
        book.streams[s] = {e.sequence, s, e.nodes, {}, {}};
      } else if (c->sequence != e.sequence) {
        // "It is invalid to merge two separate capture graphs by waiting on a captured event from
        // a stream which is being captured and is associated with a different capture graph."
        Invalidate(e.sequence, CUDA_ERROR_STREAM_CAPTURE_MERGE);
        return Invalidate(c->sequence, CUDA_ERROR_STREAM_CAPTURE_MERGE);
      } else {
        AddEdges(&c->next_from, e.nodes);
      }
      return CUDA_SUCCESS;
    } else if (c != nullptr) {
      std::lock_guard event_lock(event->mu);
      if (event->recorded.stream == nullptr && event->ipc == nullptr) return CUDA_SUCCESS;
      // "It is invalid to wait on a non-captured event from a stream which is being captured
      // without specifying the cudaEventWaitExternal flag."
      return Invalidate(c->sequence, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    }
  }
  // CU_EVENT_WAIT_EXTERNAL: "This flag is invalid outside of stream capture."
  if (external) return CUDA_ERROR_INVALID_VALUE;
  WaitEvent(s, event);
  return CUDA_SUCCESS;
}

CUresult IsCaptured(Stream* s, bool* captured) {
  *captured = false;
  if (!AnyCapture()) return CUDA_SUCCESS;
  GraphLock lock(GraphMutex());
  CapturingStream* c;
  CUresult r = Entered(s, &c);
  *captured = c != nullptr;
  return r;
}

CUresult SubmitOrCapture(Stream* s, NodeParams params) {
  if (AnyCapture()) {
    GraphLock lock(GraphMutex());
    CapturingStream* c;
    if (CUresult r = Entered(s, &c)) return r;
    if (c != nullptr) {
      // cuStreamAddCallback: "not supported with cuStreamBeginCapture and cuStreamEndCapture".
      if (std::holds_alternative<CallbackNode>(params)) {
        return Invalidate(c->sequence, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
      }
      c->Append(std::move(params));
      return CUDA_SUCCESS;
    }
  }
  SubmitNode(s, params);
  return CUDA_SUCCESS;
}

CUresult CaptureAlloc(Stream* s, size_t bytes, Pool* pool, CUdeviceptr* out) {
  GraphLock lock(GraphMutex());
  CapturingStream* c;
  if (CUresult r = Entered(s, &c)) return r;
  // Its capture was ended by another thread in between.
  if (c == nullptr) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  CUDA_MEM_ALLOC_NODE_PARAMS p{};
  p.poolProps = pool->props();
  p.bytesize = bytes;
  NodeParams params;
  if (CUresult r = MakeAllocNode(&p, s->context, &params)) return r;
  c->Append(std::move(params));
  *out = p.dptr;
  return CUDA_SUCCESS;
}

CUresult CaptureFree(Stream* s, CUdeviceptr ptr) {
  GraphLock lock(GraphMutex());
  CapturingStream* c;
  if (CUresult r = Entered(s, &c)) return r;
  if (c == nullptr) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  // "During stream capture, this function results in the creation of a free node and must therefore
  // be passed the address of a graph allocation."
  NodeParams params;
  if (CUresult r = MakeFreeNode(ptr, c->sequence->graph.get(), &params)) {
    return Invalidate(c->sequence, r);
  }
  c->Append(std::move(params));
  return CUDA_SUCCESS;
}

void DropCapture(Stream* stream) {
  if (!AnyCapture()) return;
  GraphLock lock(GraphMutex());
  CaptureBook& book = CaptureBook::Get();
  CapturingStream* c = book.Find(stream);
  if (c == nullptr) return;
  SequencePtr sequence = c->sequence;
  sequence->invalid = true;
  if (sequence->origin != stream) {
    book.streams.erase(stream);
    return;
  }
  book.Close(sequence);  // without its origin nobody could end it
  sequence->graph.reset();
}

}  // namespace divvy::sim
