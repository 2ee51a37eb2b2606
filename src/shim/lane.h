// Lanes: a stream with metered work has one, in the tenant's usage segment for the daemon and the
// GPU to see (region::Lane) and here for what only the shim needs. Everything is counted, nothing
// is named: a marker says "so many of this lane's operations are done", and may be put by any
// thread, because only calls that have returned from the driver are counted in it.
//
// Threads: any. A lane belongs to a stream until it is idle and another stream wants it; a thread
// that is `inside` keeps it. No lock is held across a driver call but `marking`, which nobody waits
// for: who finds it taken leaves the marker to the one that has it.
#pragma once

#include <atomic>
#include <cstdint>

#include "src/arbiter/progress.h"
#include "src/region/layout.h"
#include "src/shim/lock.h"
#include "src/shim/process.h"

namespace divvy::shim {

using arbiter::MarkerKind;
using arbiter::MarkerWord;

struct QueuedMarker {
  uint64_t word;
  uint64_t ns;    // estimated work of the lane before it, ever
  int16_t probe;  // ends with it; -1: none
  int16_t event;  // stands for the GPU's write where there is none; -1: there is
};
constexpr unsigned kQueuedMarkers = 16;

enum class LaneStream : uint8_t {
  kNamed,      // a handle: any thread may put markers
  kLegacy,     // of one context; orders all its blocking streams
  kPerThread,  // of one context and thread: only that thread can name it
};

struct alignas(64) LaneState {
  std::atomic<uint64_t> key;          // whose; kNoStream, or kOrphan once the stream is destroyed
  std::atomic<uint64_t> inside;       // threads between Begin and End; operations returned << 16
  std::atomic<uint64_t> returned_ns;  // estimated, of what has returned
  std::atomic<uint64_t> marked_ns;    // of that, before the newest marker
  std::atomic<uint64_t> last_word;    // newest marker queued
  std::atomic<uint64_t> seen;         // newest marker observed
  std::atomic<uint32_t> marking;      // 0 free, 1 taken, 2 taken and one more is wanted
  std::atomic<uint32_t> held;         // what was queued last may hold the stream back

  BoundedLock ring_lock;
  uint32_t head, tail;  // queued and reached, ever
  uint64_t done_ns;     // estimated work known to be done, ever
  QueuedMarker ring[kQueuedMarkers];

  // Slot; 0: not known, or the lane of all that came too late.
  std::atomic<uint32_t> context;
  // Written under DeviceMeter::claim_lock before `key`, read by those inside.
  CUstream stream;
  LaneStream sort;
};
// No key of a stream: those are handles, or end in two ones.
constexpr uint64_t kNoStream = 0, kOrphan = 1, kSharedByAll = 5;

// One device of one generation of the region. In pages of its own; never freed, for threads may be
// inside.
struct DeviceMeter {
  uint64_t generation;
  const region::PolicyGate* gate;
  region::Meter* shared;
  uint8_t index;  // in the policy
  uint8_t local;

  std::atomic<uint64_t> in_flight_ns;
  std::atomic<uint64_t> progress;         // markers reached, ever
  std::atomic<uint64_t> mean_ns;          // running average over operations
  std::atomic<int64_t> ran_owed_ns;       // that Meter::ran_ns is ahead by; never above 0
  std::atomic<uint64_t> here_ns;          // the device was last known to be in this process's hands
  std::atomic<uint64_t> accounted;        // launches that stand in a lane, or never will
  std::atomic<uint64_t> count, meter_at;  // as the process's, where it has several devices
  std::atomic<uint32_t> rung;             // the gate's word that the bell was rung for
  std::atomic<uint32_t> forced_running;   // waits that ended by time since the last progress
  std::atomic<uint32_t> free_passes;      // that these have bought

  BoundedLock claim_lock;
  std::atomic<uint32_t> used;    // lanes ever given out
  std::atomic<uint32_t> newest;  // lane of the newest operation: probably the next one's, too
  LaneState lane[region::kLanes];
};

// The stream as a lane's key; default streams need the current context.
struct StreamName {
  uint64_t key;
  LaneStream sort;
};
StreamName NameOfDefault(CUstream stream) noexcept;
inline StreamName NameOf(CUstream stream) noexcept {
  if (__builtin_expect(stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD, 0))
    return NameOfDefault(stream);
  return {reinterpret_cast<uint64_t>(stream), LaneStream::kNamed};
}

// nullptr if the stream has no lane.
LaneState* FindLane(DeviceMeter& meter, const StreamName& name) noexcept;
// Gives it one if need be; the last lane is for all that come too late. `key`: to enter it with.
LaneState* ClaimLane(DeviceMeter& meter, const StreamName& name, CUstream stream,
                     uint64_t* key) noexcept;

inline region::Lane& SharedOf(DeviceMeter& meter, const LaneState& lane) noexcept {
  return meter.shared->lane[&lane - meter.lane];
}
inline uint64_t ReturnedOf(const LaneState& lane) noexcept {
  // Acquire: partner of a returning thread, which has issued what it counts here.
  return lane.inside.load(std::memory_order_acquire) >> 16;
}
// All that was queued has been reached.
inline bool QueueReached(DeviceMeter& meter, const LaneState& lane) noexcept {
  // Acquire: partner of the GPU.
  return SharedOf(meter, lane).marker.load(std::memory_order_acquire) ==
         lane.last_word.load(std::memory_order_relaxed);
}
// Work that no marker stands behind yet.
inline bool Unmarked(DeviceMeter& meter, const LaneState& lane) noexcept {
  const region::Lane& shared = SharedOf(meter, lane);
  return shared.issued.load(std::memory_order_relaxed) !=
         shared.marked.load(std::memory_order_relaxed);
}

// Enters if the lane is still the stream's.
inline bool EnterLane(LaneState& lane, uint64_t key) noexcept {
  // Both seq_cst: partner of the claimer, who takes the key away first and then looks who is
  // inside.
  lane.inside.fetch_add(1);
  if (lane.key.load() == key) return true;
  lane.inside.fetch_sub(1);
  return false;
}
inline void LeaveLane(LaneState& lane) noexcept {
  lane.inside.fetch_sub(1, std::memory_order_release);
}

// Looks at what the GPU has written; true if there was something new.
bool Observe(DeviceMeter& meter, LaneState& lane) noexcept;
bool ObserveAll(DeviceMeter& meter) noexcept;
// The same, where that there is nothing new is the common case.
inline void Look(DeviceMeter& meter, LaneState& lane) noexcept {
  // Relaxed: Observe looks again.
  if (g_process.marker_pages.by_event.load(std::memory_order_relaxed) != 0 ||
      SharedOf(meter, lane).marker.load(std::memory_order_relaxed) !=
          lane.seen.load(std::memory_order_relaxed))
    Observe(meter, lane);
}
// Nothing will come of what is queued any more: everything that has returned counts as done.
void Settle(DeviceMeter& meter, LaneState& lane) noexcept;

// Tails that no marker can be put behind (of a shared lane, of another thread's default stream):
// counts those as done whose queue has been reached. For a caller that has waited long enough.
bool SettleTails(DeviceMeter& meter) noexcept;

}  // namespace divvy::shim
