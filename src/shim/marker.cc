// How markers get to the GPU; see marker.h.
#include "src/shim/marker.h"

#include "src/shim/attach.h"
#include "src/shim/capture.h"
#include "src/shim/contexts.h"
#include "src/shim/driver.h"
#include "src/shim/events.h"

namespace divvy::shim {
namespace {

enum : uint32_t { kNotRegistered = 0, kRegistering = 1, kRegistered = 2 };

// The first marker registers the pages of this process's slot, all devices at once. Others go
// without a marker meanwhile.
bool Ready(const DeviceMeter& meter) noexcept {
  MarkerPages& pages = g_process.marker_pages;
  if (pages.by_event.load(std::memory_order_relaxed) != 0) return true;
  // Acquire: partner of the registering thread's release.
  const uint32_t state = pages.state.load(std::memory_order_acquire);
  if (state == kRegistered && pages.generation.load(std::memory_order_relaxed) == meter.generation)
    return true;
  uint32_t expected = state == kRegistering ? kNotRegistered : state;
  Session* session = CurrentSession();
  if (session == nullptr || session->generation != meter.generation ||
      !pages.state.compare_exchange_strong(expected, kRegistering))
    return false;
  const RelaxedCapture relaxed;
  void* host = session->usage->meter + session->slot;
  CUdeviceptr device = 0;
  CUresult r = g_driver.cuMemHostRegister_v2(
      host, sizeof(region::MeterPages), CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP);
  if (r == CUDA_SUCCESS || r == CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED)
    r = g_driver.cuMemHostGetDevicePointer_v2(&device, host, 0);
  if (r == CUDA_SUCCESS) {
    session->pinned = true;
    pages.device_offset.store(device - reinterpret_cast<uint64_t>(host), std::memory_order_relaxed);
    pages.context.store(CurrentPlace().context, std::memory_order_relaxed);
    pages.generation.store(meter.generation, std::memory_order_relaxed);
  } else {
    pages.by_event.store(1, std::memory_order_relaxed);
  }
  pages.state.store(r == CUDA_SUCCESS ? kRegistered : kNotRegistered, std::memory_order_release);
  return true;
}

bool Unsupported(CUresult r) noexcept {
  return r == CUDA_ERROR_NOT_SUPPORTED || r == CUDA_ERROR_NOT_FOUND ||
         r == CUDA_ERROR_NOT_PERMITTED;
}

void Push(LaneState& lane, const QueuedMarker& marker) noexcept {
  int probe = -1, event = -1;
  if (lane.ring_lock.Lock()) {
    // Full: it takes the newest one's place, what that stood for ends with it.
    const bool full = lane.head - lane.tail == kQueuedMarkers;
    QueuedMarker& at = lane.ring[(full ? lane.head - 1 : lane.head) % kQueuedMarkers];
    if (full) {
      probe = at.probe;
      event = at.event;
    } else {
      ++lane.head;
    }
    at = marker;
    lane.ring_lock.Unlock();
  }
  GiveProbe(probe);
  GiveEvent(event);
}

// Queued or not; nobody else is at this lane's markers.
CUresult Queue(DeviceMeter& meter, LaneState& lane, CUstream stream, uint64_t word, uint64_t ns,
               int probe) noexcept {
  MarkerPages& pages = g_process.marker_pages;
  region::Lane& shared = SharedOf(meter, lane);
  if (probe >= 0) {
    const CUresult r = g_driver.cuEventRecord(EventOf(ProbeAt(probe).end), stream);
    if (r != CUDA_SUCCESS) {
      GiveProbe(probe);
      probe = -1;
    }
  }
  const auto probe16 = static_cast<int16_t>(probe);
  if (pages.by_event.load(std::memory_order_relaxed) == 0) {
    // In the queue before the GPU can have written it.
    Push(lane, {word, ns, probe16, -1});
    const CUresult r =
        g_driver.cuStreamWriteValue64_v2(stream,
                                         reinterpret_cast<uint64_t>(&shared.marker) +
                                             pages.device_offset.load(std::memory_order_relaxed),
                                         word, CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER);
    if (!Unsupported(r)) return r;
    pages.by_event.store(1, std::memory_order_relaxed);
    return r;
  }
  const int event = TakeEvent(lane.context.load(std::memory_order_relaxed), false);
  if (event < 0) {
    GiveProbe(probe);
    return CUDA_ERROR_NOT_READY;  // the next one stands for this one, too
  }
  const CUresult r = g_driver.cuEventRecord(EventOf(event), stream);
  if (r != CUDA_SUCCESS) {
    GiveEvent(event);
    GiveProbe(probe);
    return r;
  }
  Push(lane, {word, ns, probe16, static_cast<int16_t>(event)});
  return r;
}

}  // namespace

bool PutMarker(DeviceMeter& meter, LaneState& lane, CUstream stream, MarkerKind kind,
               int probe) noexcept {
  if (!Ready(meter)) {
    GiveProbe(probe);
    return false;
  }
  uint32_t free = 0;
  // Acquire, release: the words of one lane are queued in their order.
  if (!lane.marking.compare_exchange_strong(free, 1)) {
    uint32_t taken = 1;
    if (kind == MarkerKind::kDone && lane.sort == LaneStream::kNamed)
      lane.marking.compare_exchange_strong(taken, 2, std::memory_order_relaxed);
    GiveProbe(probe);
    return false;
  }
  region::Lane& shared = SharedOf(meter, lane);
  CUresult r;
  for (;;) {
    // The context stays while this thread is inside; before the look at the key, which its end
    // takes away. 0: the shared lane, which only submitting threads mark, each its own stream.
    const uint32_t context = lane.context.load(std::memory_order_relaxed);
    const ContextUse use(context);
    // Seq_cst, as taking `marking` is: partner of who takes the key away and then waits for
    // `marking`. Past this the stream may be gone.
    if (const uint64_t key = lane.key.load(); key == kOrphan || key == kNoStream) {
      GiveProbe(probe);
      lane.marking.store(0, std::memory_order_release);
      return false;
    }
    // What returns between these two is in neither, or stands in the count alone: it is off what is
    // in flight one marker later.
    const uint64_t ns = lane.returned_ns.load(std::memory_order_relaxed);
    const uint64_t before = ReturnedOf(lane);
    const uint64_t word = MarkerWord(before, kind);
    if (kind != MarkerKind::kPaused) lane.held.store(0, std::memory_order_relaxed);
    // Release: the daemon, which reads `issued` last, finds it no smaller.
    if (kind == MarkerKind::kStart) shared.start.store(before, std::memory_order_release);
    if (use || context == 0) {
      r = Queue(meter, lane, stream, word, ns, probe);
    } else {
      GiveProbe(probe);
      r = CUDA_ERROR_NOT_READY;  // it is being destroyed: its end settles what is unmarked
    }
    if (r == CUDA_SUCCESS) {
      lane.last_word.store(word, std::memory_order_relaxed);
      lane.marked_ns.store(ns, std::memory_order_relaxed);
      shared.marked.store(before, std::memory_order_release);
    }
    uint32_t taken = 1;
    if (lane.marking.compare_exchange_strong(taken, 0, std::memory_order_release)) break;
    lane.marking.store(1, std::memory_order_relaxed);
    kind = MarkerKind::kDone;
    probe = -1;
  }
  // A stream that takes no marker: what is in flight on it is not known, so it counts as nothing.
  if (r != CUDA_SUCCESS && r != CUDA_ERROR_NOT_READY) Settle(meter, lane);
  return r == CUDA_SUCCESS;
}

bool OthersBusy(DeviceMeter& meter, const LaneState& lane) noexcept {
  const uint32_t used = meter.used.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i) {
    const LaneState& other = meter.lane[i];
    if (&other != &lane && (!QueueReached(meter, other) || Unmarked(meter, other))) return true;
  }
  return false;
}

bool MayMark(DeviceMeter& meter, const LaneState& lane) noexcept {
  const bool captures = g_process.open_captures.load(std::memory_order_relaxed) != 0;
  if (lane.key.load(std::memory_order_relaxed) == kSharedByAll) return false;
  if (lane.sort == LaneStream::kNamed) return !captures || !IsCapturing(lane.stream, false);
  if (NameOf(lane.stream).key != lane.key.load(std::memory_order_relaxed)) return false;
  if (lane.sort == LaneStream::kPerThread) return !captures || !IsCapturing(lane.stream, false);
  return !captures && !OthersBusy(meter, lane);
}

void MarkersLoseContext(uint32_t context) noexcept {
  MarkerPages& pages = g_process.marker_pages;
  uint32_t registered = kRegistered;
  if (context != 0 && pages.context.load(std::memory_order_relaxed) == context)
    pages.state.compare_exchange_strong(registered, kNotRegistered);
}

}  // namespace divvy::shim
