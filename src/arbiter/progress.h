// What a tenant says about its work on one device, and how samples of its counters become that.
// The counters are tenant-written shared memory: the daemon copies them once, then hands the copy
// to Fold(), which believes nothing that contradicts itself.
#pragma once

#include <cstdint>

namespace divvy::arbiter {

// Totals over all streams and processes of a tenant on one device.
struct Progress {
  uint64_t issued = 0;   // operations that went past the gate; never falls
  uint64_t done = 0;     // of these, known to be finished; never falls, never above issued
  uint32_t waiters = 0;  // threads waiting at the gate or for their bound
  uint64_t waits = 0;    // waits begun or renewed; grows when a waiter is alive
  bool begun = false;    // the GPU has started on some of the outstanding work
  bool paused = false;   // all outstanding work waits behind the tenant's own copies
  bool copying = false;  // a copy of the tenant's own runs or waits, with or without work behind it
  bool garbage = false;  // a stream's counters made no sense
};

// The newest marker that the GPU has written for one stream: operations before the marker, and
// what kind it was.
enum class MarkerKind : uint8_t {
  kDone = 0,    // everything before it is finished
  kStart = 1,   // ... and the work after it begins
  kPaused = 2,  // ... and a copy comes next
};
constexpr uint64_t MarkerWord(uint64_t operations_before, MarkerKind kind) {
  return operations_before << 2 | static_cast<uint64_t>(kind);
}

// One stream (or one process that keeps a single order) as its shim describes it.
struct StreamSample {
  uint64_t issued = 0;  // operations submitted
  uint64_t start = 0;   // `issued` when the newest start marker of an idle stream was queued
  uint64_t marker = 0;  // MarkerWord, written by the GPU
};

// More operations than any driver queue holds: a larger backlog is not believed.
constexpr uint64_t kMaxBacklog = uint64_t{1} << 20;

// Adds one stream to `total`. Call for every stream, starting from Progress{.paused = true};
// `paused` ends true only if no outstanding stream is able to run.
inline void Fold(const StreamSample& s, Progress& total) {
  const uint64_t before = s.marker >> 2;
  const auto kind = static_cast<MarkerKind>(s.marker & 3);
  if (before > s.issued || s.start > s.issued || s.issued - before > kMaxBacklog ||
      (s.marker & 3) == 3) {
    total.garbage = true;
    return;
  }
  total.issued += s.issued;
  total.done += before;
  total.copying |= kind == MarkerKind::kPaused;
  if (before == s.issued) return;  // idle
  if (kind == MarkerKind::kPaused) return;
  total.paused = false;
  // After an idle stretch the done marker of the old stretch stands until the start marker lands.
  if (kind == MarkerKind::kStart || before != s.start) total.begun = true;
}

}  // namespace divvy::arbiter
