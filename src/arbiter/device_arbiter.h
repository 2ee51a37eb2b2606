// The arbiter of one device: seats (one per tenant), virtual time, the window and its phases.
// Internal to src/arbiter; Arbiter is the interface. Pure, single-threaded, no allocation after the
// constructor.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/arbiter/progress.h"
#include "src/arbiter/tunables.h"
#include "src/arbiter/types.h"

namespace divvy::arbiter {

// What `divvy ps` shows of one tenant on one device.
struct SeatStats {
  Nanos used{0};          // GPU time billed
  uint64_t windows = 0;   // turns held
  uint64_t overruns = 0;  // turns whose work had not drained after the grace
  uint64_t faults = 0;    // samples that made no sense
  bool distrusted = false;
  bool entangled = false;
  bool stalled = false;
  bool light = false;
  bool throttled = false;  // shut by its cap
  double duty = 1;         // part of the time it had the device alone and ran
  bool thin = false;
};

struct DeviceStats {
  uint64_t ticks = 0;
  uint64_t windows = 0;
  uint64_t yields = 0;
  uint64_t overruns = 0;
  Nanos billed{0};
};

// What the holder of one device does on its other devices.
struct Elsewhere {
  bool busy = false;      // it has work outstanding
  bool draining = false;  // ... in a window that has ended there
  Nanos newest{-1};       // when its newest open window elsewhere began; -1: it has none
};

// More windows than this ahead of its share: a tenant of long operations waits for the others.
constexpr double kFarAhead = 8;

class DeviceArbiter {
 public:
  DeviceArbiter(unsigned max_tenants, const Tunables& tunables);

  bool Has(TenantIndex t) const { return seats_[t].present; }
  void Join(TenantIndex t, const ComputeShare& share, Nanos now);
  void SetShare(TenantIndex t, const ComputeShare& share);
  void Leave(TenantIndex t);
  void Pause(TenantIndex t, bool paused);
  void Rebase(TenantIndex t) { seats_[t].rebase = true; }
  void Debit(TenantIndex t, Nanos gpu_time);
  void Observe(TenantIndex t, const Progress& progress);

  Nanos Tick(Nanos now, const Elsewhere& elsewhere);

  TenantIndex holder() const { return holder_; }
  // The tenant that was granted the window (or lost it) in the last tick; kNoTenant: no change.
  TenantIndex granted() const { return granted_; }
  TenantIndex ended() const { return ended_; }
  // Gang windows: the next window goes to `t`, and the present one ends. Not if `t` is far ahead
  // here, unless it is stranded elsewhere.
  void Reserve(TenantIndex t, bool stranded);
  // The holder's window has ended, but its work waits for what it has not submitted elsewhere.
  bool Stranded() const {
    return phase_ == Phase::kDrain && seats_[holder_].gang && seats_[holder_].outstanding() &&
           last_ - drain_since_ >= k_.stranded;
  }
  Nanos WindowSince(TenantIndex t) const {
    return holder_ == t && phase_ == Phase::kRun ? window_since_ : Nanos(-1);
  }
  // Gang windows: `t`'s window here ends if somebody else is waiting.
  void EndWindowOf(TenantIndex t);
  // Has work outstanding here; ... in a window that has ended.
  bool Busy(TenantIndex t) const { return seats_[t].present && seats_[t].outstanding(); }
  bool Draining(TenantIndex t) const { return holder_ == t && phase_ == Phase::kDrain && Busy(t); }
  void SetGang(TenantIndex t, bool gang) { seats_[t].gang = gang; }

  const Tunables& tunables() const { return k_; }
  bool contended() const { return wanting_ > 1; }
  Gate GateOf(TenantIndex t) const { return seats_[t].gate; }
  std::span<const TenantIndex> changed() const { return changed_; }
  SeatStats StatsOf(TenantIndex t) const;
  const DeviceStats& stats() const { return stats_; }

 private:
  struct Seat {
    bool present = false;
    bool op_paused = false;  // by an operator
    bool cap_shut = false;
    bool want = false;
    bool raw_want = false;
    bool woke = false;
    bool light = false;     // its gate stays open whoever holds the window
    bool corun = false;     // ... but only because it is entangled
    bool pressing = false;  // ... and the holder yields to it
    bool thin = false;      // keeps a device busy only in part even when it has it alone
    bool gang = false;      // has other devices too
    bool running = false;   // billed until the next sample
    bool stalled = false;
    bool rebase = true;
    bool fault = false;         // the newest sample made no sense
    uint32_t pauses_moved = 0;  // times running that it did
    bool ran_in_pause = false;  // it says that it waits for a copy, but work was finished
    ComputeShare share;
    double part = 1;     // weight / sum of weights
    double vt = 0;       // virtual time: billed ns / part
    double service = 0;  // billed ns since it last idled
    double burst = 0;    // running average of service at its end
    double window = 0;   // billed ns in the present window
    double used = 0;     // billed ns, ever
    double tokens = 0;   // of the cap, ns
    Progress seen;
    double duty = 1;           // running average: part of the time it had the device alone and ran
    double still = 0;          // ... part of the time with work waiting in which its host stood
    uint64_t issued_then = 0;  // at the last sign of life
    uint64_t waits_then = 0;
    uint64_t done_then = 0;
    Nanos done_time{0};     // of the newest completion seen
    Nanos issue_time{0};    // of the newest submission seen
    Nanos thick_until{-1};  // not thin before
    Nanos life{0};          // last sign of life while asking with an open gate
    Nanos empty_since{-1};  // first of the samples without work; -1: the newest has some
    Nanos last_want{-1};    // of the newest sample in which it wanted; -1: never
    double unfinished = 0;  // billed ns since its newest completion
    Nanos slow_until{-1};   // its operations are long: a gate cannot stop what has begun
    Nanos last_run{0};      // newest time it ran or did not hold anybody back
    double held_back = 0;  // ns for which the holder gave way to it and nobody ran; falls by itself
    Nanos distrust_until{-1};
    Nanos entangled_until{-1};
    uint32_t missed_drains = 0;
    Nanos entangle_for{0};  // length of the last entanglement
    Gate gate;
    SeatStats stats;

    bool batch() const { return share.cls == TenantClass::kBatch; }
    bool latency() const { return share.cls == TenantClass::kLatency; }
    bool outstanding() const { return seen.issued != seen.done; }
    bool allowed() const { return !op_paused && !cap_shut; }
    bool free() const { return light || corun; }
    bool slow(Nanos now) const { return now < slow_until; }
    bool trusted(Nanos now) const { return now >= distrust_until; }
  };
  enum class Phase : uint8_t { kRun, kDrain };

  double Ns(Nanos t) const { return static_cast<double>(t.count()); }
  void Renormalize();
  void Bill(Nanos now);
  void Charge(Seat& s, double ns);
  void Refresh(Nanos now, Nanos elapsed);
  void AdvanceClocks(Nanos now, Nanos elapsed);
  void RefreshSeat(Seat& s, Nanos now);
  void FindLights(Nanos now, Nanos elapsed);
  void FindRunning(Nanos now, Nanos elapsed);
  void WatchThin(Seat& s, Nanos now, Nanos elapsed);
  bool Presses(Seat& s, Nanos now);
  void WatchLife(Seat& s, Nanos now);
  void WatchSlow(Seat& s, Nanos now);
  void MovePhase(Nanos now, const Elsewhere& elsewhere);
  void WatchDuty(Seat& s, double dt);
  bool FarAhead(const Seat& s) const;
  bool Candidate(const Seat& s) const;
  bool WindowOver(const Seat& h) const;
  bool IsLeast(const Seat& h) const;
  void EndWindow(Nanos now);
  void GiveUpDrain(Nanos now);
  void Pick();
  void Yield(const Seat& h);
  void SetGates();
  void SetGate(TenantIndex t, GateMode mode);
  GateMode OpenMode(const Seat& s) const;
  Nanos NextPoll() const;

  const Tunables k_;
  std::vector<Seat> seats_;
  std::vector<TenantIndex> active_;
  std::vector<TenantIndex> changed_;
  double sum_weights_ = 0;
  double v_[2] = {0, 0};  // virtual time of the device: non-batch, batch
  Nanos last_{0};
  Nanos drain_since_{0};
  Nanos window_since_{0};
  TenantIndex sole_ = kNoTenant;  // the only one that wants and may, for a while
  Nanos sole_since_{0};
  TenantIndex last_wanting_ = kNoTenant;
  Nanos company_{0};  // when another tenant than the last one wanted
  Nanos light_wanted_{-1};
  unsigned latency_seats_ = 0;
  unsigned wanting_ = 0;
  unsigned wanting_standard_ = 0;  // of these, not batch
  unsigned wanting_heavy_ = 0;     // of these, neither batch nor light
  double wanting_parts_ = 0;
  bool light_wants_ = false;
  bool latency_wants_ = false;
  Phase phase_ = Phase::kRun;
  TenantIndex holder_ = kNoTenant;
  TenantIndex reserved_ = kNoTenant;
  TenantIndex granted_ = kNoTenant;
  TenantIndex ended_ = kNoTenant;
  bool end_asked_ = false;
  bool catching_up_ = false;  // draining, but its other devices wait for what it has yet to submit
  bool yielded_ = false;
  double ran_ = 0;  // billed ns of the holder since its gate last opened
  DeviceStats stats_;
};

}  // namespace divvy::arbiter
