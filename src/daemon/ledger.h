// Where a tenant's time on one device went: every nanosecond of wall time under one heading, so
// that the headings sum to all of it. `divvy why` is made from it.
//
// Side: the daemon. Pure. The arbiter's thread adds to a Ledger at its looks (some thousand a
// second while tenants contend); a ring keeps one for each of the last seconds.
//
// What is exact: GPU time (as billed), the wall time, and who ran meanwhile. What else the time was
// is known at the looks and taken to hold between them.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "src/arbiter/types.h"

namespace divvy::daemon {

enum class Part : uint8_t {
  kGpu,     // its work ran
  kTurn,    // it wanted the device, others had it
  kCap,     // ... its cap kept it out
  kPaused,  // ... an operator
  kAudit,   // ... the audit
  kCopies,  // its work waited for its own copies
  kHost,    // it asked for nothing
  kAlone,   // it has the device to itself: nothing is measured
  kAbsent,  // it had no process
  kCount,
};
constexpr size_t kParts = static_cast<size_t>(Part::kCount);

struct Ledger {
  arbiter::Nanos at{0};  // up to when
  std::array<int64_t, kParts> ns{};
  int64_t copying_ns = 0;   // in blocking copies, summed over threads; part of kHost or kGpu
  Part rest = Part::kHost;  // what time after `at` is until the next look
  // Of kTurn: by tenant who ran meanwhile; kNobody: the device changed hands, or idled; kEnded: all
  // that have ended.
  static constexpr uint64_t kNobody = 0, kEnded = UINT64_MAX;
  std::vector<std::pair<uint64_t, int64_t>> waited_for;

  int64_t& operator[](Part part) { return ns[static_cast<size_t>(part)]; }
  int64_t operator[](Part part) const { return ns[static_cast<size_t>(part)]; }
  void AddWait(uint64_t tenant, int64_t wait_ns);
  // It has ended: its id is never used again, what was waited for it goes to kEnded.
  void Forget(uint64_t tenant);
};

// What keeps a tenant's gate shut.
enum class HeldBy : uint8_t { kNobody, kTurn, kCap, kOperator, kAudit };

// What was seen of a tenant at a look.
struct Sight {
  bool processes = false;
  bool alone = false;  // the device is not looked at: nobody else has a share
  HeldBy held = HeldBy::kNobody;
  bool waiting = false;      // a thread of it waits to submit
  bool outstanding = false;  // it has work on the device
  bool copying = false;      // ... all of it behind its own copies; or it has copies alone
};

// One look's interval, of one tenant: `ran` of it was billed to it, `others` to others.
// The time that it ran comes first; the rest is what `sight` says.
Part RestOf(const Sight& sight, bool others_ran);

class LedgerRing {
 public:
  static constexpr size_t kKept = 64;
  void Push(const Ledger& ledger);
  // Of all that are kept: the difference of two says the same under the other name.
  void Forget(uint64_t tenant);
  bool empty() const { return ring_.empty(); }
  arbiter::Nanos oldest() const { return ring_.front().at; }
  // As it stood at `time`: between two that are kept, in proportion; after the newest, as `rest`
  // says; before the oldest, the oldest.
  Ledger At(arbiter::Nanos time) const;

 private:
  std::deque<Ledger> ring_;  // oldest first
};

// What came to be between the two; waits sorted, the longest first.
Ledger Difference(const Ledger& from, const Ledger& to);

}  // namespace divvy::daemon
