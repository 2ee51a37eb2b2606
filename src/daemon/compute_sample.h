// What a tenant's meters say of its work on one device: every live process's lanes, copied once,
// checked, and folded into what the arbiter understands.
//
// Side: the daemon; what it reads is the tenant's word. One MeterReader per tenant and device, used
// by the arbiter's thread alone. A read costs some nanoseconds a lane and makes no system call; it
// allocates only when a process uses a lane for the first time.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "src/arbiter/progress.h"
#include "src/arbiter/types.h"
#include "src/region/layout.h"

namespace divvy::daemon {

// Sums over the tenant's processes; they never fall, not when a process goes either. What grew
// faster than a program can make it grow is left out: it is noise that somebody wrote.
struct MeterTotals {
  uint64_t waits = 0;
  uint64_t operations = 0;  // metered submissions
  uint64_t launches = 0;    // all submissions, on every device of the process
  uint64_t gate_wait_ns = 0;
  uint64_t bound_wait_ns = 0;
  uint64_t forced = 0;
  uint64_t copied_bytes = 0;
  uint64_t copies = 0;
  uint64_t copy_ns = 0;
  uint64_t ran_ns = 0;  // region::Meter's: the processes' own word
  std::array<uint64_t, region::kWaitBuckets> wait_buckets{};  // not cumulative
};

constexpr arbiter::Nanos kLongAgo{-1'000'000'000'000'000'000};

// Makes the meters of a slot fit for its next process. No GPU writes them any more: the driver has
// forgotten the process.
void ResetMeters(region::Usage& usage, uint32_t slot, unsigned devices);

class MeterReader {
 public:
  // `tail`: marked work that has been done for so long, with nothing queued since, ends the
  // unmarked work behind it, too (at most a marker's space in an honest program).
  MeterReader(region::Usage& usage, unsigned device, arbiter::Nanos tail)
      : usage_(usage), device_(device), tail_(tail) {}

  void Add(uint32_t slot);
  // What it counted up to the last Read stays in the totals; its lanes count no more.
  void Remove(uint32_t slot);
  bool empty() const { return processes_.empty(); }

  arbiter::Progress Read(arbiter::Nanos now);
  // As of the last Read, or a millisecond before it.
  const MeterTotals& Totals() const { return totals_; }
  arbiter::Nanos senseless_at() const { return senseless_at_; }
  // Something moved between the last two reads: submissions, completions, waits.
  bool moved() const { return moved_; }

  // After the free gate (no markers at all): true once every process that submits work has passed
  // the metering path since BeginRearm.
  void BeginRearm();
  bool Rearmed() const;

 private:
  struct LaneMemory {
    uint64_t issued = 0, marker = 0;
    uint64_t done = 0;        // taken for done although no marker says so: never taken back
    arbiter::Nanos since{0};  // of the newest change
  };
  struct Process {
    std::vector<LaneMemory> lanes;
    uint64_t waits = 0, operations = 0, launches = 0;  // at the last Read
    MeterTotals seen;                                  // its counters as they were ...
    arbiter::Nanos read_at{-1'000'000'000};            // ... then
    uint64_t metered_then = 0;                         // at BeginRearm
  };
  void ReadProcess(uint32_t slot, Process& p, arbiter::Nanos now, arbiter::Progress& out);
  void AddTotals(uint32_t slot, Process& p, arbiter::Nanos now);

  region::Usage& usage_;
  const unsigned device_;
  const arbiter::Nanos tail_;
  std::map<uint32_t, Process> processes_;
  MeterTotals totals_;  // of all that ever were, as far as they made sense
  arbiter::Nanos senseless_at_ = kLongAgo;
  bool moved_ = false;
};

}  // namespace divvy::daemon
