// What tests of gate and meter have in common, whatever the driver under them: setting a gate, and
// reading the counters as divvyd does.
#pragma once

#include <sched.h>

#include <cstdint>
#include <functional>

#include "src/arbiter/progress.h"
#include "src/shim/testing/fake_daemon.h"

namespace divvy::shim::testing {

constexpr uint64_t kUs = 1000;
// Over an hour: such a wait ends by progress or not at all.
constexpr uint32_t kForever = UINT32_MAX;

inline void Until(const std::function<bool()>& true_at_last) {
  while (!true_at_last()) sched_yield();
}

inline void SetGate(FakeDaemon& daemon, unsigned device, uint32_t bits, uint32_t bound_us,
                    uint32_t space_us, uint32_t patience_us) {
  daemon.gate(device).bound_us = bound_us;
  daemon.gate(device).space_us = space_us;
  daemon.gate(device).patience_us = patience_us;
  daemon.SetGate(bits, device);
}

inline arbiter::Progress ReadProgress(const region::Meter& meter) {
  arbiter::Progress progress;
  progress.paused = true;
  for (unsigned i = 0; i < meter.lanes; ++i) {
    arbiter::StreamSample s;
    s.marker = meter.lane[i].marker;
    s.start = meter.lane[i].start;
    s.issued = meter.lane[i].issued;  // last: it is never smaller than the others
    arbiter::Fold(s, progress);
  }
  return progress;
}

}  // namespace divvy::shim::testing
