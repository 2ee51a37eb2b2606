// What `divvy record` reads while the gate says kGateEachOp: one entry per operation in the usage
// segment, lengths and gaps only. Any thread; no lock: a ticket, then the entry, then its number.
#pragma once

#include <cstdint>

#include "src/shim/events.h"

namespace divvy::shim {

// Host time since this thread's last submission ended (0: not known), and whether it has waited for
// the device since. The table of threads is small and forgets.
struct Gap {
  uint64_t ns;
  bool synced;
};
Gap TakeGap() noexcept;
void SubmissionEnded() noexcept;
void ThreadSynced() noexcept;

void WriteRecord(const Probe& probe, uint64_t ns) noexcept;

}  // namespace divvy::shim
