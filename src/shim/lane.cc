// Lanes; see lane.h.
#include "src/shim/lane.h"

#include <pthread.h>

#include "src/shim/capture.h"
#include "src/shim/contexts.h"
#include "src/shim/driver.h"
#include "src/shim/events.h"
#include "src/shim/operation.h"
#include "src/shim/record.h"

namespace divvy::shim {
namespace {

constexpr unsigned kFewLanes = 8;  // up to here a new lane rather than another stream's

// Under claim_lock: takes the lane from its stream, if that has nothing in flight.
bool TakeAway(DeviceMeter& meter, LaneState& lane, bool with_tail) noexcept {
  const uint64_t key = lane.key.load(std::memory_order_relaxed);
  if (key == kSharedByAll || !QueueReached(meter, lane) ||
      (lane.last_word.load(std::memory_order_relaxed) & 3) ==
          static_cast<uint64_t>(MarkerKind::kPaused) ||
      (!with_tail && Unmarked(meter, lane)))
    return false;
  lane.key.store(kNoStream);
  // Seq_cst: partner of EnterLane and PutMarker. A marker queued since the first look would land in
  // the next stream's counts.
  if ((lane.inside.load() & 0xffff) != 0 || lane.marking.load() != 0 ||
      !QueueReached(meter, lane)) {
    lane.key.store(key);
    return false;
  }
  Observe(meter, lane);
  if (Unmarked(meter, lane)) Settle(meter, lane);
  return true;
}

LaneState* FreeLane(DeviceMeter& meter) noexcept {
  const uint32_t used = meter.used.load(std::memory_order_relaxed);
  for (uint32_t i = 0; i < used; ++i) {
    const uint64_t key = meter.lane[i].key.load(std::memory_order_relaxed);
    if ((key == kNoStream || key == kOrphan) && TakeAway(meter, meter.lane[i], key == kOrphan))
      return &meter.lane[i];
  }
  for (unsigned with_tail = 0; with_tail < 2 && used >= kFewLanes; ++with_tail) {
    if (with_tail == 1 && used < region::kLanes - 1) break;
    for (uint32_t i = 0; i < used; ++i)
      if (TakeAway(meter, meter.lane[i], with_tail != 0)) return &meter.lane[i];
  }
  if (used >= region::kLanes - 1) return nullptr;
  meter.used.store(used + 1, std::memory_order_release);
  meter.shared->lanes.store(used + 1, std::memory_order_release);
  return &meter.lane[used];
}

uint32_t ContextOf(const StreamName& name, CUstream stream) noexcept {
  CUcontext context = nullptr;
  if (name.sort == LaneStream::kNamed &&
      g_driver.cuStreamGetCtx(stream, &context) == CUDA_SUCCESS) {
    if (const Here here = PlaceOf(context); here.context != 0) return here.context;
  }
  return CurrentPlace().context;
}

}  // namespace

StreamName NameOfDefault(CUstream stream) noexcept {
  CUcontext context = nullptr;
  g_driver.cuCtxGetCurrent(&context);
  const auto handle = reinterpret_cast<uint64_t>(context);
  // Odd keys: handles are pointers.
  if (stream == CU_STREAM_LEGACY) return {Mix(handle) | 3, LaneStream::kLegacy};
  return {Mix(handle ^ Mix(static_cast<uint64_t>(pthread_self()))) | 3, LaneStream::kPerThread};
}

LaneState* FindLane(DeviceMeter& meter, const StreamName& name) noexcept {
  const uint32_t used = meter.used.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i)
    if (meter.lane[i].key.load(std::memory_order_acquire) == name.key) return &meter.lane[i];
  return nullptr;
}

LaneState* ClaimLane(DeviceMeter& meter, const StreamName& name, CUstream stream,
                     uint64_t* key) noexcept {
  *key = name.key;
  if (LaneState* lane = FindLane(meter, name)) return lane;
  const uint32_t context = ContextOf(name, stream);
  if (!meter.claim_lock.Lock()) return nullptr;
  LaneState* lane = FindLane(meter, name);
  if (lane == nullptr) {
    lane = FreeLane(meter);
    if (lane == nullptr) {
      *key = kSharedByAll;
      lane = &meter.lane[region::kLanes - 1];
    }
    if (*key != kSharedByAll) {
      lane->stream = stream;
      lane->context.store(context, std::memory_order_relaxed);
      lane->sort = name.sort;
      lane->held.store(0, std::memory_order_relaxed);
    } else {
      meter.used.store(region::kLanes, std::memory_order_release);
      meter.shared->lanes.store(region::kLanes, std::memory_order_release);
    }
    // Release: who finds the lane by its key sees whose it is.
    lane->key.store(*key, std::memory_order_release);
  }
  meter.claim_lock.Unlock();
  return lane;
}

namespace {

// The oldest queued marker, if it is one that has to be asked for. Its word is then written for the
// GPU.
bool AskOldest(DeviceMeter& meter, LaneState& lane) noexcept {
  if (!lane.ring_lock.Lock()) return false;
  const uint32_t tail = lane.tail;
  const bool any = lane.head != tail && lane.ring[tail % kQueuedMarkers].event >= 0;
  const QueuedMarker oldest = any ? lane.ring[tail % kQueuedMarkers] : QueuedMarker{};
  lane.ring_lock.Unlock();
  if (!any) return false;
  {
    const uint32_t context = lane.context.load(std::memory_order_relaxed);
    const ContextUse use(context);
    if (!use || ContextOfEvent(oldest.event) != context) return false;
    const RelaxedCapture relaxed;
    if (g_driver.cuEventQuery(EventOf(oldest.event)) != CUDA_SUCCESS) return false;
  }
  if (!lane.ring_lock.Lock()) return false;
  const bool mine = lane.tail == tail && lane.head != tail;
  if (mine) {
    lane.ring[tail % kQueuedMarkers].event = -1;
    SharedOf(meter, lane).marker.store(oldest.word, std::memory_order_release);
  }
  lane.ring_lock.Unlock();
  if (mine) GiveEvent(oldest.event);
  return mine;
}

// What the operations that it timed, and those that it stands for, ran beyond their estimates.
int64_t Reached(const DeviceMeter& meter, const QueuedMarker& marker) noexcept {
  if (marker.event >= 0) GiveEvent(marker.event);
  if (marker.probe < 0) return 0;
  int64_t beyond_ns = 0;
  uint64_t ns;
  if (ReadProbe(marker.probe, &ns)) {
    const Probe& probe = ProbeAt(marker.probe);
    // The event before it stands before the switch, too (of a GPU that is assumed, as are turns).
    const Timed timed = {
        .ns = ns,
        .start = static_cast<Timed::Start>(probe.start_of),
        .switch_ns = meter.gate->switch_ns.load(std::memory_order_relaxed),
        .company = meter.gate->company_ns.load(std::memory_order_relaxed) > probe.begun_ns};
    if (EstimateTable* table = g_process.estimates.load(std::memory_order_acquire)) {
      const Learnt learnt = table->Learn(probe.key, timed);
      // Those that are recorded are timed one by one.
      beyond_ns = static_cast<int64_t>(learnt.ns - probe.assumed_ns) *
                      static_cast<int64_t>(probe.record ? 1 : learnt.times) -
                  static_cast<int64_t>(learnt.over_ns);
    }
    if (probe.record) WriteRecord(probe, ns);
  }
  GiveProbe(marker.probe);
  return beyond_ns;
}

// Streams with work share the device. This one has just ended some.
unsigned LanesBusyWith(const DeviceMeter& meter, const LaneState& lane) noexcept {
  unsigned busy = 1;
  const uint32_t used = meter.used.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i) {
    const LaneState& other = meter.lane[i];
    busy += &other != &lane && meter.shared->lane[i].marker.load(std::memory_order_relaxed) !=
                                   other.last_word.load(std::memory_order_relaxed);
  }
  return busy;
}

// The counter only grows: what an estimate put in too much is taken off what comes next.
void CountRan(DeviceMeter& meter, int64_t ns) noexcept {
  const int64_t sum = meter.ran_owed_ns.exchange(0, std::memory_order_relaxed) + ns;
  if (sum < 0)
    meter.ran_owed_ns.fetch_add(sum, std::memory_order_relaxed);
  else
    meter.shared->ran_ns.fetch_add(static_cast<uint64_t>(sum), std::memory_order_relaxed);
}

// Takes what is done off the queue and off what is in flight. `all`: whatever the GPU says.
bool Pop(DeviceMeter& meter, LaneState& lane, uint64_t word, bool all) noexcept {
  QueuedMarker reached[kQueuedMarkers];
  unsigned count = 0;
  if (!lane.ring_lock.Lock()) return false;
  uint64_t done_ns = lane.done_ns;
  while (lane.head != lane.tail) {
    const QueuedMarker& oldest = lane.ring[lane.tail % kQueuedMarkers];
    if (!all && (oldest.event >= 0 || oldest.word >> 2 > word >> 2)) break;
    done_ns = oldest.ns;
    reached[count++] = oldest;
    ++lane.tail;
  }
  if (all) done_ns = lane.returned_ns.load(std::memory_order_relaxed);
  const uint64_t finished_ns = done_ns > lane.done_ns ? done_ns - lane.done_ns : 0;
  lane.done_ns += finished_ns;
  lane.ring_lock.Unlock();
  if (finished_ns != 0) meter.in_flight_ns.fetch_sub(finished_ns, std::memory_order_relaxed);
  auto ran_ns = static_cast<int64_t>(finished_ns);
  for (unsigned i = 0; i < count; ++i) ran_ns += Reached(meter, reached[i]);
  if (count == 0 && finished_ns == 0) return false;
  if (ran_ns != 0) CountRan(meter, ran_ns / LanesBusyWith(meter, lane));
  meter.progress.fetch_add(1, std::memory_order_relaxed);
  meter.forced_running.store(0, std::memory_order_relaxed);
  meter.free_passes.store(0, std::memory_order_relaxed);
  meter.shared->in_flight_ns.store(meter.in_flight_ns.load(std::memory_order_relaxed),
                                   std::memory_order_relaxed);
  return true;
}

}  // namespace

bool Observe(DeviceMeter& meter, LaneState& lane) noexcept {
  bool any = false;
  for (bool asked = true; asked;) {
    asked = g_process.marker_pages.by_event.load(std::memory_order_relaxed) != 0 &&
            AskOldest(meter, lane);
    // Acquire: partner of the GPU, or of who asked for it.
    const uint64_t word = SharedOf(meter, lane).marker.load(std::memory_order_acquire);
    if (word == lane.seen.load(std::memory_order_relaxed) && !asked) break;
    lane.seen.store(word, std::memory_order_relaxed);
    any |= Pop(meter, lane, word, false);
  }
  return any;
}

bool ObserveAll(DeviceMeter& meter) noexcept {
  bool any = false;
  const uint32_t used = meter.used.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i) any |= Observe(meter, meter.lane[i]);
  return any;
}

void Settle(DeviceMeter& meter, LaneState& lane) noexcept {
  const uint64_t returned = ReturnedOf(lane);
  const uint64_t word = MarkerWord(returned, MarkerKind::kDone);
  region::Lane& shared = SharedOf(meter, lane);
  shared.marker.store(word, std::memory_order_release);
  shared.marked.store(returned, std::memory_order_relaxed);
  lane.last_word.store(word, std::memory_order_relaxed);
  lane.seen.store(word, std::memory_order_relaxed);
  lane.marked_ns.store(lane.returned_ns.load(std::memory_order_relaxed), std::memory_order_relaxed);
  Pop(meter, lane, word, true);
}

bool SettleTails(DeviceMeter& meter) noexcept {
  bool any = false;
  const uint32_t used = meter.used.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i) {
    LaneState& lane = meter.lane[i];
    if ((lane.inside.load(std::memory_order_relaxed) & 0xffff) != 0 || !Unmarked(meter, lane) ||
        !QueueReached(meter, lane))
      continue;
    Settle(meter, lane);
    any = true;
  }
  return any;
}

}  // namespace divvy::shim
