// Who may use which device now: the arbiter fed from the tenants' meters, its answers written to
// their gates, and how closely each device has to be looked at.
//
// Side: the daemon. One thread calls it (compute.h), or a test with a clock of its own; it makes no
// system call but the gates' futex wakes. Errors: only Join's (no room for another seat).
//
// How closely a device is watched:
//   free    one tenant without a cap: its gate is the fast path, nothing is metered or read
//   asleep  nobody has wanted it for a while: each gate has a bell, a look now and then
//   lazy    one tenant has it alone: the others' gates have bells, a look every few milliseconds
//   awake   as often as the arbiter says
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "src/arbiter/arbiter.h"
#include "src/base/device_timing.h"
#include "src/daemon/compute_gate.h"
#include "src/daemon/compute_sample.h"
#include "src/daemon/compute_terms.h"
#include "src/daemon/compute_view.h"
#include "src/daemon/gpu_time.h"
#include "src/daemon/ledger.h"
#include "src/daemon/segments.h"

namespace divvy::daemon {

enum class PausedBy : uint8_t { kOperator = 1, kAudit = 2 };

class ComputeCore {
 public:
  using Nanos = arbiter::Nanos;
  static constexpr unsigned kMostTenants = 1024;

  // `dilation`: how much slower than real the devices' time runs (1 for real ones).
  ComputeCore(unsigned devices, double dilation);  // with slices of 2 ms, as in the model
  // `devices`: how each takes turns between processes.
  ComputeCore(const std::vector<DeviceTiming>& devices, double dilation);

  // `devices[i]` is share i of the tenant's segments. kNoRoom: more than kMostTenants.
  Status Join(uint64_t tenant, std::shared_ptr<Segments> segments,
              const std::vector<unsigned>& devices, const ComputeTerms& terms, Nanos now);
  void Leave(uint64_t tenant);
  void SetTerms(uint64_t tenant, const ComputeTerms& terms);
  void AddProcess(uint64_t tenant, uint32_t slot);
  void RemoveProcess(uint64_t tenant, uint32_t slot);
  void Pause(uint64_t tenant, unsigned share, PausedBy by, bool paused);
  void Record(uint64_t tenant, bool recording);
  // Bills GPU time that no marker told of. Of this, `unseen` is in no figure yet: it was used since
  // `from`.
  void Debit(uint64_t tenant, unsigned share, Nanos gpu_time, Nanos unseen, Nanos from, Nanos now);
  // The driver saw it use `gpu_time` between `from` and `now`: that is what its figures say of the
  // time in which its device was not awake. To be told of each stretch once it was of one.
  void Seen(uint64_t tenant, unsigned share, Nanos gpu_time, Nanos from, Nanos now);

  // Looks at each device that is due and returns when the next one is; Nanos::max(): none, until a
  // bell or a change. `rung`: look at those asleep, too.
  Nanos Poll(Nanos now, bool rung);

  enum class Watch : uint8_t { kFree, kAsleep, kLazy, kAwake };
  Watch WatchOf(unsigned device) const { return devices_[device].watch; }
  unsigned Awake() const;
  bool empty() const { return members_.empty(); }  // no tenants
  const arbiter::Tunables& TunablesOf(unsigned device) const {
    return arbiter_.tunables(static_cast<arbiter::DeviceIndex>(device));
  }
  // Looks at awake devices this much less often than the arbiter asks: a slow or busy host.
  void Stretch(double factor) { stretch_ = factor; }
  // Fills what people see of every seat that was looked at since the last call.
  void Publish(Nanos now, std::map<uint64_t, TenantView>& views);
  // Adds each seat's ledger, as it stood when it was last looked at, to its ring; by share.
  void PublishLedgers(std::map<uint64_t, std::vector<LedgerRing>>& rings);

 private:
  // What people see of its use. The markers of a tenant that is alone are few, and tell of little
  // of its work; the driver tells of all of it, later and less exactly.
  struct Shown {
    int64_t billed_then = 0;        // the arbiter's figure when last looked at
    int64_t billed = 0, other = 0;  // while the device was awake; in the rest of the time
    uint64_t counted_then = 0;      // the shims' figure when last looked at
    uint64_t counted = 0;           // ... while the device was awake
    int64_t late = 0;               // of `other`, not in the history yet ...
    Nanos from{0}, to{0};           // ... and when it was used
    Nanos lone{0};
    int64_t billed_seen = 0;   // `billed` when the driver last told ...
    Nanos unwatched_seen{0};   // ... and the device's `unwatched`
    Nanos seen_at = kLongAgo;  // when it did
    bool told = false;         // it did
  };
  struct Seat {
    uint64_t tenant = 0;
    arbiter::TenantIndex index = 0;
    unsigned share = 0;
    unsigned device = 0;
    std::unique_ptr<MeterReader> meter;
    std::unique_ptr<GateWriter> gate;
    std::unique_ptr<GpuTime> used;
    ComputeTerms terms;
    double part = 0;        // of the weights, percent
    uint8_t paused_by = 0;  // PausedBy bits
    bool recording = false;
    bool rearm = false;  // was free: metered until its processes have noticed
    bool outstanding = false;
    uint64_t done = 0;  // operations, at the last look
    Nanos active_at{-1'000'000'000'000};
    Ledger ledger;
    Sight sight;  // at the last entry into the ledger
    Sight seen;   // now, but for what holds it
    int64_t used_then = 0, ran = 0;
    Shown shown;
    uint64_t copy_ns_then = 0;
  };
  class Company;
  struct Member {
    arbiter::TenantIndex index = 0;
    std::shared_ptr<Segments> segments;
    std::vector<std::unique_ptr<Seat>> seats;  // by share
  };
  struct Device {
    std::vector<Seat*> seats;
    Watch watch = Watch::kFree;
    Nanos due = Nanos::max();
    Nanos wanted_at{0};    // when somebody was last active
    unsigned looks = 0;    // since it fell asleep
    bool changed = false;  // shares or pauses: look now, and set every gate
    bool fresh = false;    // to be published
    Nanos looked{0};       // at its tenants' meters
    Nanos entered{0};      // into the ledgers, up to when
    bool entries = false;  // into the ledgers since they were published
    Nanos shown{0};        // figures, up to when
    Nanos unwatched{0};    // not awake for this long, ever
    Seat* sole = nullptr;  // the one with a lone gate
  };

  void Changed(unsigned device) { devices_[device].changed = true; }
  void Reweigh(unsigned device);
  bool Free(const Device& device) const;
  void LookAt(unsigned device, Nanos now);
  void SetGates(Device& device, Nanos now);
  void EnterInLedgers(unsigned device, Nanos now);
  void CountShown(unsigned device, Nanos now);
  static void Show(Shown& shown, int64_t gpu_ns, Nanos from, Nanos to);
  Seat* Find(uint64_t tenant, unsigned share);
  HeldBy HeldOf(const Seat& seat) const;

  const double dilation_;
  double stretch_ = 1;
  arbiter::Arbiter arbiter_;
  std::vector<const Seat*> ran_;  // EnterInLedgers': of one device
  std::vector<Device> devices_;
  std::map<uint64_t, Member> members_;
  std::vector<arbiter::TenantIndex> free_indices_;
};

}  // namespace divvy::daemon
