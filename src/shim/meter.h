// The meter: what a submission does beside its driver call, so that divvyd knows from counters
// alone how far this process's work is, and so that only a bounded time of it is in flight. By
// device and stream (lane.h); the GPU writes markers (marker.h); how long operations take is learnt
// (estimate.h). src/shim/README.md tells when which marker is put.
//
// Any thread. Nothing here waits, allocates after the first time on a device, or makes a system
// call; waiting is the gate's (gate.h).
#pragma once

#include "src/shim/lane.h"
#include "src/shim/operation.h"
#include "src/shim/process.h"

namespace divvy::shim {

inline DeviceMeter* MeterIfAny(unsigned local) noexcept {
  return g_process.meter[local].load(std::memory_order_acquire);
}
// Of the session that holds now; nullptr: no share of that device, or no memory.
DeviceMeter* MakeMeter(const Session& session, unsigned local) noexcept;
inline DeviceMeter* MeterOf(const Session& session, unsigned local) noexcept {
  DeviceMeter* meter = MeterIfAny(local);
  if (__builtin_expect(meter != nullptr && meter->generation == session.generation, 1))
    return meter;
  return MakeMeter(session, local);
}

// One metered submission, from its admission to the driver's answer.
struct Submission {
  DeviceMeter* meter = nullptr;  // nullptr: not metered
  LaneState* lane;
  CUstream stream;
  uint64_t estimate_ns;
  int probe;
  bool mark, each_op;
};

struct Pace {
  uint64_t space_ns;
  uint64_t held_ns;  // how long the gate or the bound kept it; only where recording
  bool lone;         // word 0: one submission stands for several
  bool each_op;      // recording
};

// The operation's estimated length, of unknown ones a part of the bound; `learn`: this one is to be
// timed.
uint64_t EstimateOf(DeviceMeter& meter, const Operation& op, uint64_t bound_ns,
                    bool* learn) noexcept;

// Before the driver's call, admitted: in_flight_ns has `estimate_ns` in it already. `batch`:
// operations that this one accounts for, itself included; `earlier_ns`: estimate of the others.
void BeginOperation(DeviceMeter& meter, const Operation& op, const Pace& pace, uint64_t estimate_ns,
                    bool learn, uint64_t batch, uint64_t earlier_ns, Submission* out) noexcept;
// The others apart, before a wait: `earlier_ns` is in in_flight_ns already. They are marked, so
// that the wait can end with them; where no marker can be put they count as done.
void AccountEarlier(DeviceMeter& meter, CUstream stream, uint64_t batch,
                    uint64_t earlier_ns) noexcept;
// After it.
void EndOperation(Submission* submission, CUresult answer) noexcept;

// The caller is about to wait for the device, or to ask how far it is: nothing stays unmarked.
// `stream`: only this one; nullptr: all.
void MeterBeforeWait(CUstream stream) noexcept;
void MarkAll(DeviceMeter& meter, bool legacy_only = false) noexcept;
// ... and has waited.
void MeterAfterWait() noexcept;
// Around something that can hold the stream back: what is before it can be seen to be done, and
// what comes after it has not begun before the stream goes on. nullptr: no stream of its own, all
// lanes.
void MeterBeforeHold(CUstream stream) noexcept;
void MeterHeld(CUstream stream) noexcept;

// A copy between host and device: it runs beside other tenants' kernels, so it is neither gated nor
// work; the lane says that it waits for it.
struct CopyMark {
  DeviceMeter* meter = nullptr;
  LaneState* lane = nullptr;
  CUstream stream;
};
void MeterBeforeCopy(CUstream stream, uint64_t bytes, CopyMark* mark) noexcept;
void MeterAfterCopy(CopyMark* mark) noexcept;
// A blocking one: when it began, for what comes after it.
uint64_t MeterBlockingCopy(CUstream stream, uint64_t bytes) noexcept;
void MeterAfterBlockingCopy(uint64_t began_ns) noexcept;

void MeterStreamEnds(CUstream stream) noexcept;
void MeterContextGone(uint32_t context) noexcept;

// Set while a device's gate wants markers: only then are waits, orders and copies told about.
inline bool Metering() noexcept {
  return __builtin_expect(g_process.metering.load(std::memory_order_relaxed) != 0, 0);
}
// Bits only change when a gate's mood does.
void ChangeMetering(uint32_t bit, bool on) noexcept;
inline void SetMetering(unsigned local, bool on) noexcept {
  const uint32_t bit = 1u << local;
  if (((g_process.metering.load(std::memory_order_relaxed) & bit) != 0) != on)
    ChangeMetering(bit, on);
}

// The one look of a hook that has nothing to do while the driver is bound and nothing is metered.
inline bool Plain() noexcept {
  // Acquire: partner of EnterSlow's store, which comes after binding.
  return __builtin_expect(g_process.plain.load(std::memory_order_acquire) != 0, 1);
}
// First line of what such a hook does otherwise: binds, and makes the next one plain if it may be.
void EnterSlow() noexcept;

}  // namespace divvy::shim
