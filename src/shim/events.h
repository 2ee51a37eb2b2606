// Driver events of the shim's own, recycled: pairs that time one operation (probes), and markers
// where the device cannot write to memory in stream order. A fixed number; without one an operation
// is not timed, or a marker not put. Any thread; making an event is a driver call, once per cell
// and context.
#pragma once

#include <atomic>
#include <cstdint>

#include "src/abi/cuda.h"

namespace divvy::shim {

struct EventCell {
  std::atomic<uint32_t> state;    // 0 free, 1 taken
  std::atomic<uint32_t> context;  // slot of the context it was made in; 0: not made yet
  CUevent event;
  bool timed;
};
constexpr unsigned kEventCells = 192;

// Of `context`, which has to be the calling thread's current one; -1: none to be had.
int TakeEvent(uint32_t context, bool timed) noexcept;
void GiveEvent(int cell) noexcept;
CUevent EventOf(int cell) noexcept;
uint32_t ContextOfEvent(int cell) noexcept;  // 0: it went with its context
// The context is gone, and its events with it.
void ForgetEvents(uint32_t context) noexcept;

// One operation being timed.
struct Probe {
  std::atomic<uint32_t> state;  // 0 free, 1 taken
  int16_t start, end;           // cells
  uint8_t device;               // index in the policy, for the record
  uint8_t kind;
  uint8_t synced;
  bool record;  // divvy record wants it
  uint64_t key;
  uint64_t gap_ns;
  uint64_t assumed_ns;  // what it was estimated at
  uint64_t begun_ns;    // when it was submitted
  uint8_t start_of;     // Timed::Start
};
constexpr unsigned kProbes = 64;

// Taken with both its events, or -1.
int TakeProbe(uint32_t context) noexcept;
Probe& ProbeAt(int probe) noexcept;
void GiveProbe(int probe) noexcept;
// The operation's length; call once its end is known to have been reached. False: not known.
bool ReadProbe(int probe, uint64_t* ns) noexcept;

}  // namespace divvy::shim
