// The meter; see meter.h.
#include "src/shim/meter.h"

#include <sched.h>

#include "src/shim/attach.h"
#include "src/shim/capture.h"
#include "src/shim/contexts.h"
#include "src/shim/driver.h"
#include "src/shim/events.h"
#include "src/shim/marker.h"
#include "src/shim/pages.h"
#include "src/shim/record.h"

namespace divvy::shim {
namespace {

constexpr uint64_t kLongestMarkNs = 1000000000;

constexpr uint64_t kUnknownInFlight = 4;
constexpr uint64_t kShortCopy = 64 << 10;

EstimateTable* Estimates() noexcept {
  EstimateTable* table = g_process.estimates.load(std::memory_order_acquire);
  if (__builtin_expect(table != nullptr, 1)) return table;
  auto* made = static_cast<EstimateTable*>(MapPages(sizeof(EstimateTable)));
  if (made == nullptr) return nullptr;
  if (g_process.estimates.compare_exchange_strong(table, made)) return made;
  UnmapPages(made, sizeof(EstimateTable));
  return table;
}

void Add(region::U64& counter, uint64_t n) noexcept {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

// Runs `body(meter)` for each device that is metered now.
template <typename Body>
void EachMetered(const Body& body) noexcept {
  for (uint32_t bits = g_process.metering.load(std::memory_order_relaxed); bits != 0;
       bits &= bits - 1)
    if (DeviceMeter* m = MeterIfAny(static_cast<unsigned>(__builtin_ctz(bits)))) body(*m);
}

// Of the device that the thread works on; nullptr if that is not metered now.
DeviceMeter* MeterHere() noexcept {
  const uint32_t only = g_process.only_device.load(std::memory_order_relaxed);
  const int local = only != 0 ? static_cast<int>(only) - 1 : CurrentPlace().device;
  const uint32_t bits = g_process.metering.load(std::memory_order_relaxed);
  return local >= 0 && (bits >> local & 1) != 0 ? MeterIfAny(static_cast<unsigned>(local))
                                                : nullptr;
}

// The lane of a stream that has one already, on whatever device; entered.
template <typename Body>
void InLaneOf(CUstream stream, const Body& body) noexcept {
  const StreamName name = NameOf(stream);
  EachMetered([&](DeviceMeter& meter) {
    LaneState* lane = FindLane(meter, name);
    if (lane == nullptr || !EnterLane(*lane, name.key)) return;
    body(meter, *lane);
    LeaveLane(*lane);
  });
}

// The lane of a stream, entered; made if need be. nullptr: there is none to be had.
[[gnu::always_inline]] inline LaneState* EnterLaneFor(DeviceMeter& meter, CUstream stream,
                                                      uint64_t* key) noexcept {
  const StreamName name = NameOf(stream);
  *key = name.key;
  LaneState* lane = &meter.lane[meter.newest.load(std::memory_order_relaxed)];
  while (lane->key.load(std::memory_order_acquire) != *key || !EnterLane(*lane, *key)) {
    lane = ClaimLane(meter, name, stream, key);
    if (lane == nullptr) return nullptr;
    meter.newest.store(static_cast<uint32_t>(lane - meter.lane), std::memory_order_relaxed);
  }
  return lane;
}

// Operations that are with the driver already, on this stream or others; `issued` has them.
void CountReturned(LaneState& lane, uint64_t operations, uint64_t ns) noexcept {
  lane.returned_ns.fetch_add(ns, std::memory_order_relaxed);
  lane.inside.fetch_add(operations << 16, std::memory_order_release);
}

// A done marker behind what the lane has unmarked. For whoever is inside it.
void MarkTail(DeviceMeter& meter, LaneState& lane) noexcept {
  if (Unmarked(meter, lane) && MayMark(meter, lane))
    PutMarker(meter, lane, lane.stream, MarkerKind::kDone, -1);
}

// The same for whoever is not.
void MarkLane(DeviceMeter& meter, LaneState& lane, bool legacy_only = false) noexcept {
  const uint64_t key = lane.key.load(std::memory_order_acquire);
  if (key == kNoStream || key == kOrphan || key == kSharedByAll || !Unmarked(meter, lane) ||
      !EnterLane(lane, key))
    return;
  if (!legacy_only || lane.sort == LaneStream::kLegacy) MarkTail(meter, lane);
  LeaveLane(lane);
}

// Into whose hands does work come that finds its lane idle?
Timed::Start ComesHere(DeviceMeter& meter, uint64_t own_ns) noexcept {
  const uint64_t before = meter.here_ns.load(std::memory_order_relaxed);
  meter.here_ns.store(MonotonicNs(), std::memory_order_relaxed);
  const bool alone = meter.in_flight_ns.load(std::memory_order_relaxed) == own_ns;
  return alone && meter.gate->company_ns.load(std::memory_order_relaxed) > before
             ? Timed::kFromOthers
             : Timed::kIdle;
}

// The context's own end, or what follows an error that ends it: no marker in it will be written.
bool EndsContext(CUresult r) noexcept {
  switch (r) {
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_UNKNOWN:
      return true;
    default:
      return false;
  }
}

void SettleContext(DeviceMeter& meter, uint32_t context, bool for_good) noexcept {
  const uint32_t used = meter.used.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i) {
    LaneState& lane = meter.lane[i];
    if (lane.context.load(std::memory_order_relaxed) != context ||
        lane.key.load(std::memory_order_acquire) == kNoStream)
      continue;
    Settle(meter, lane);
    if (for_good) lane.key.store(kOrphan, std::memory_order_release);
  }
}

}  // namespace

DeviceMeter* MakeMeter(const Session& session, unsigned local) noexcept {
  if (session.policy_index[local] < 0) return nullptr;
  const auto index = static_cast<unsigned>(session.policy_index[local]);
  if (!g_process.meters_lock.Lock()) return nullptr;
  DeviceMeter* meter = g_process.meter[local].load(std::memory_order_acquire);
  if (meter == nullptr || meter->generation != session.generation) {
    // The old one stays: threads may be inside, the GPU may still write what it knows of.
    meter = static_cast<DeviceMeter*>(MapPages(sizeof(DeviceMeter)));
    if (meter != nullptr) {
      meter->generation = session.generation;
      meter->gate = &session.policy->device[index].gate;
      meter->shared = &session.usage->meter[session.slot].device[index];
      meter->index = static_cast<uint8_t>(index);
      meter->local = static_cast<uint8_t>(local);
      if (g_process.only_device.load(std::memory_order_relaxed) != 0)
        meter->accounted.store(session.Slot().launches.load(std::memory_order_relaxed),
                               std::memory_order_relaxed);
      // Release: partner of MeterOf.
      g_process.meter[local].store(meter, std::memory_order_release);
    } else {
      Degrade(9);
    }
  }
  g_process.meters_lock.Unlock();
  return meter;
}

// All of plain and metering is seq_cst here: whoever comes second sees the other's.
void ChangeMetering(uint32_t bit, bool on) noexcept {
  if (on) {
    g_process.metering.fetch_or(bit);
    g_process.plain.store(0);
  } else {
    g_process.metering.fetch_and(~bit);
  }
}

void EnterSlow() noexcept {
  EnsureDriver();
  if (!DriverBound() || Metering()) return;
  g_process.plain.store(1);
  if (g_process.metering.load() != 0) g_process.plain.store(0);
}

uint64_t EstimateOf(DeviceMeter& meter, const Operation& op, uint64_t bound_ns,
                    bool* learn) noexcept {
  uint64_t mean = meter.mean_ns.load(std::memory_order_relaxed);
  EstimateTable* table = Estimates();
  const Estimate known = table != nullptr ? table->Use(op.key) : Estimate{0, false};
  *learn = known.learn;
  // Until one has ended it may be anything: a few of them are all there is room for.
  if (known.ns == 0) return bound_ns / kUnknownInFlight + 1;
  mean = mean == 0 ? known.ns : mean - mean / 16 + known.ns / 16;
  meter.mean_ns.store(mean, std::memory_order_relaxed);
  return known.ns;
}

void BeginOperation(DeviceMeter& meter, const Operation& op, const Pace& pace, uint64_t estimate_ns,
                    bool learn, uint64_t batch, uint64_t earlier_ns, Submission* out) noexcept {
  out->meter = &meter;
  out->lane = nullptr;
  out->stream = op.stream;
  out->estimate_ns = estimate_ns;
  out->probe = -1;
  out->each_op = pace.each_op;
  uint64_t key;
  LaneState* lane = EnterLaneFor(meter, op.stream, &key);
  if (lane == nullptr) {
    meter.in_flight_ns.fetch_sub(estimate_ns + earlier_ns, std::memory_order_relaxed);
    return;
  }
  out->lane = lane;
  region::Lane& shared = SharedOf(meter, *lane);

  // First `issued`: no marker may ever claim more than it says.
  const uint64_t before = shared.issued.fetch_add(batch, std::memory_order_release) + batch - 1;
  if (batch > 1) CountReturned(*lane, batch - 1, earlier_ns);
  Add(meter.shared->operations, batch);

  Look(meter, *lane);
  const bool alone_inside = lane->inside.load(std::memory_order_relaxed) == (before << 16 | 1);
  const bool reached = QueueReached(meter, *lane);
  const uint64_t last = lane->last_word.load(std::memory_order_relaxed);
  const bool shared_by_all = key == kSharedByAll;
  // The default stream beside a capture: the call will fail or was told to be careful; no marker.
  const bool silent =
      op.stream == CU_STREAM_LEGACY && g_process.open_captures.load(std::memory_order_relaxed) != 0;
  const bool idle = alone_inside && reached && !shared_by_all &&
                    shared.marked.load(std::memory_order_relaxed) == before - (batch - 1);
  // Of a stretch that a copy's end, or a wait's, has begun or will.
  const bool first = last == MarkerWord(before, MarkerKind::kStart);
  const bool begins = idle && !first;
  const Timed::Start start = idle ? ComesHere(meter, estimate_ns + earlier_ns) : Timed::kQueued;
  if (!silent && !(shared_by_all && !reached)) {
    if (begins || pace.each_op ||
        (lane->held.load(std::memory_order_relaxed) != 0 && !shared_by_all))
      PutMarker(meter, *lane, op.stream, MarkerKind::kStart, -1);
    out->mark = idle || first || pace.lone || pace.each_op || learn;
  } else {
    out->mark = false;
  }
  const uint32_t context = lane->context.load(std::memory_order_relaxed);
  if ((learn || pace.each_op) && out->mark && context != 0) {
    out->probe = TakeProbe(context);
    if (out->probe >= 0) {
      Probe& probe = ProbeAt(out->probe);
      probe.key = op.key;
      probe.assumed_ns = estimate_ns;
      probe.begun_ns = MonotonicNs();
      probe.start_of = start;
      probe.device = meter.index;
      probe.kind = static_cast<uint8_t>(op.kind);
      probe.record = pace.each_op;
      if (pace.each_op) {
        const Gap gap = TakeGap();
        // The program's own: how long it was held says something of the others.
        probe.gap_ns = gap.ns > pace.held_ns ? gap.ns - pace.held_ns : 0;
        probe.synced = gap.synced;
      }
      if (g_driver.cuEventRecord(EventOf(probe.start), op.stream) != CUDA_SUCCESS) {
        GiveProbe(out->probe);
        out->probe = -1;
      }
    }
  }
  if (!out->mark && !silent && !(shared_by_all && !reached)) {
    const uint64_t unmarked = lane->returned_ns.load(std::memory_order_relaxed) -
                              lane->marked_ns.load(std::memory_order_relaxed) + estimate_ns;
    out->mark = reached || unmarked >= pace.space_ns ||
                (lane->sort == LaneStream::kLegacy && OthersBusy(meter, *lane));
  }
}

[[gnu::noinline, gnu::cold]] void AccountEarlier(DeviceMeter& meter, CUstream stream,
                                                 uint64_t batch, uint64_t earlier_ns) noexcept {
  uint64_t key;
  LaneState* lane = EnterLaneFor(meter, stream, &key);
  if (lane == nullptr) {
    meter.in_flight_ns.fetch_sub(earlier_ns, std::memory_order_relaxed);
    return;
  }
  if (!MayMark(meter, *lane)) {
    meter.in_flight_ns.fetch_sub(earlier_ns, std::memory_order_relaxed);
    earlier_ns = 0;
  }
  SharedOf(meter, *lane).issued.fetch_add(batch, std::memory_order_release);
  CountReturned(*lane, batch, earlier_ns);
  Add(meter.shared->operations, batch);
  MarkTail(meter, *lane);
  LeaveLane(*lane);
}

void EndOperation(Submission* s, CUresult answer) noexcept {
  if (s->lane == nullptr) return;
  DeviceMeter& meter = *s->meter;
  LaneState& lane = *s->lane;
  lane.returned_ns.fetch_add(s->estimate_ns, std::memory_order_relaxed);
  const bool ended = answer == CUDA_SUCCESS;
  if (ended && !s->mark) {
    // One operation more has returned, and this thread is out.
    lane.inside.fetch_add((1 << 16) - 1, std::memory_order_release);
    return;
  }
  lane.inside.fetch_add(1 << 16, std::memory_order_release);
  if (ended) {
    PutMarker(meter, lane, s->stream, MarkerKind::kDone, s->probe);
  } else {
    GiveProbe(s->probe);
    if (!EndsContext(answer)) {
      if (s->mark) PutMarker(meter, lane, s->stream, MarkerKind::kDone, -1);
    } else if (const uint32_t context = lane.context.load(std::memory_order_relaxed)) {
      SettleContext(meter, context, false);
    } else {
      Settle(meter, lane);
    }
  }
  LeaveLane(lane);
  if (s->each_op) SubmissionEnded();
}

void MarkAll(DeviceMeter& meter, bool legacy_only) noexcept {
  const uint32_t used = meter.used.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < used; ++i) MarkLane(meter, meter.lane[i], legacy_only);
}

void MeterBeforeWait(CUstream stream) noexcept {
  if (stream == nullptr || stream == CU_STREAM_LEGACY) {
    // The legacy stream's end is the end of what blocking streams have.
    EachMetered([](DeviceMeter& meter) { MarkAll(meter); });
    return;
  }
  InLaneOf(stream, MarkTail);
}

void MeterAfterWait() noexcept {
  EachMetered([](DeviceMeter& meter) {
    if (ObserveAll(meter)) meter.here_ns.store(MonotonicNs(), std::memory_order_relaxed);
    MarkAll(meter, true);  // what could not be marked beside other streams' work
  });
  ThreadSynced();
}

void MeterBeforeHold(CUstream stream) noexcept {
  if (stream == nullptr) return MeterBeforeWait(nullptr);
  InLaneOf(stream, MarkTail);
}

void MeterHeld(CUstream stream) noexcept {
  if (stream == nullptr) return;
  InLaneOf(stream,
           [](DeviceMeter&, LaneState& lane) { lane.held.store(1, std::memory_order_relaxed); });
}

void MeterBeforeCopy(CUstream stream, uint64_t bytes, CopyMark* mark) noexcept {
  if (IsCapturing(stream, false)) return;
  const StreamName name = NameOf(stream);
  mark->stream = stream;
  LaneState* lane = nullptr;  // entered
  DeviceMeter* meter = nullptr;
  EachMetered([&](DeviceMeter& m) {
    LaneState* its = lane == nullptr ? FindLane(m, name) : nullptr;
    if (its == nullptr || !EnterLane(*its, name.key)) return;
    meter = &m;
    lane = its;
  });
  if (lane == nullptr) {
    // A stream that has only copied so far.
    meter = MeterHere();
    if (meter == nullptr) return;
    uint64_t key = name.key;
    if (bytes >= kShortCopy) lane = ClaimLane(*meter, name, stream, &key);
    if (key == kSharedByAll || (lane != nullptr && !EnterLane(*lane, key))) lane = nullptr;
  }
  Add(meter->shared->copies, 1);
  Add(meter->shared->copied_bytes, bytes);
  if (lane == nullptr) return;
  if (bytes < kShortCopy || !MayMark(*meter, *lane) ||
      !PutMarker(*meter, *lane, stream, MarkerKind::kPaused, -1)) {
    LeaveLane(*lane);
    return;
  }
  mark->meter = meter;
  mark->lane = lane;
}

void MeterAfterCopy(CopyMark* mark) noexcept {
  if (mark->lane == nullptr) return;
  PutMarker(*mark->meter, *mark->lane, mark->stream, MarkerKind::kStart, -1);
  LeaveLane(*mark->lane);
}

uint64_t MeterBlockingCopy(CUstream stream, uint64_t bytes) noexcept {
  MeterBeforeWait(stream);
  if (DeviceMeter* meter = MeterHere()) {
    Add(meter->shared->copies, 1);
    Add(meter->shared->copied_bytes, bytes);
  }
  return MonotonicNs();
}

void MeterAfterBlockingCopy(uint64_t began_ns) noexcept {
  if (DeviceMeter* meter = MeterHere()) Add(meter->shared->copy_ns, MonotonicNs() - began_ns);
  MeterAfterWait();
}

void MeterStreamEnds(CUstream stream) noexcept {
  if (stream == nullptr) return;
  const StreamName name = NameOf(stream);
  for (unsigned local = 0; local < kLocalDevices; ++local) {
    DeviceMeter* meter = MeterIfAny(local);
    LaneState* lane = meter != nullptr ? FindLane(*meter, name) : nullptr;
    if (lane == nullptr) continue;
    MarkLane(*meter, *lane);
    uint64_t key = name.key;
    if (!lane->key.compare_exchange_strong(key, kOrphan)) continue;
    // Another thread may be putting a marker on it: the handle has to live until that returns,
    // which takes the driver microseconds.
    for (const uint64_t start = MonotonicNs();
         lane->marking.load() != 0 && MonotonicNs() - start < kLongestMarkNs;)
      sched_yield();
  }
}

void MeterContextGone(uint32_t context) noexcept {
  if (context == 0) return;
  for (unsigned local = 0; local < kLocalDevices; ++local)
    if (DeviceMeter* meter = MeterIfAny(local)) SettleContext(*meter, context, true);
  MarkersLoseContext(context);
  ForgetEvents(context);
}

}  // namespace divvy::shim
