// What stands in a tenant's gate (PolicyGate), and when it changes. The arbiter says who may run;
// whether markers are wanted, a bell rings or nothing is metered at all is decided here.
//
// Side: the daemon; the arbiter's thread alone writes gates. Cost of a change: a few stores and one
// system call (futex wake).
#pragma once

#include <cstdint>

#include "src/arbiter/tunables.h"
#include "src/arbiter/types.h"
#include "src/region/layout.h"

namespace divvy::daemon {

// What one tenant's gate depends on, on one device.
struct GateInputs {
  arbiter::GateMode mode = arbiter::GateMode::kLone;
  bool paused = false;     // by an operator or by the audit
  bool recording = false;  // a marker around each operation
  bool capped = false;     // billing must be exact although nobody else is there
  bool free = false;       // nobody else has a share: neither bound nor markers
  bool active = false;     // it has submitted or waited lately
  bool bell = false;       // nobody polls often enough to see it come
};

struct GateSetting {
  uint32_t bits = 0;  // region::GateBits without the sequence; 0 = the fast path
  uint32_t bound_us = 0;
  uint32_t space_us = 0;
  bool operator==(const GateSetting&) const = default;
};

GateSetting SettingFor(const GateInputs& in, const arbiter::Tunables& tunables);

// Writes one gate when its setting has changed, and wakes who waits for it.
class GateWriter {
 public:
  GateWriter(region::PolicyGate& gate, uint32_t patience_us, arbiter::Nanos switch_cost);
  bool Write(const GateSetting& setting, uint64_t windows);  // true: it changed
  // Another tenant was at work on the device then.
  void Company(arbiter::Nanos at);
  const GateSetting& setting() const { return setting_; }

 private:
  region::PolicyGate& gate_;
  GateSetting setting_;
  uint32_t sequence_ = 0;
};

}  // namespace divvy::daemon
