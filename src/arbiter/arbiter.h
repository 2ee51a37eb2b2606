// The compute arbiter: who may use which device now. A pure state machine with a virtual clock: it
// does no I/O, keeps no thread, reads no clock, and allocates only in its constructor. divvyd feeds
// it from the usage segments and writes the gates into the policy segments; the model in model/
// drives the same code. docs/arbiter.md explains the algorithm.
//
// One object covers the devices of one node, because a tenant with several devices gets its windows
// on all of them together. Calls must not overlap (one polling thread, or one lock). Time never
// goes back; a `now` before the last one is taken for the last one. Same calls, same gates.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/arbiter/device_arbiter.h"
#include "src/arbiter/progress.h"
#include "src/arbiter/tunables.h"
#include "src/arbiter/types.h"
#include "src/base/result.h"

namespace divvy::arbiter {

class Arbiter {
 public:
  Arbiter(unsigned max_tenants, unsigned max_devices, const Tunables& tunables);
  // Each device has its own; they may differ in windows and in what the hardware does.
  Arbiter(unsigned max_tenants, std::span<const Tunables> devices);

  // --- tenants; errors say what was wrong with the arguments, nothing changes then ---
  // Gives `tenant` (the caller's index, below max_tenants) a share of `device`. Errors: kInvalid
  // (index, weight or cap out of range), kExists.
  Status Join(TenantIndex tenant, DeviceIndex device, const ComputeShare& share, Nanos now);
  // Changes it; takes effect with the next Tick. Errors: kInvalid, kNotFound.
  Status SetShare(TenantIndex tenant, DeviceIndex device, const ComputeShare& share);
  // Takes it away; work still in flight is nobody's. Unknown tenants are ignored.
  void Leave(TenantIndex tenant, DeviceIndex device);
  // An operator's pause: the gate shuts and stays shut until resumed.
  void Pause(TenantIndex tenant, DeviceIndex device, bool paused);
  // The tenant's counters start over (a process came or went): the next Observe is the new base.
  void Rebase(TenantIndex tenant, DeviceIndex device);
  // Debits GPU time that the markers did not show (an audit against the driver's own figures).
  void Debit(TenantIndex tenant, DeviceIndex device, Nanos gpu_time);

  // --- the poll ---
  // The newest counters, already copied. Nonsense is counted against the tenant, which then loses
  // its privileges for a while and is billed for whole windows.
  void Observe(TenantIndex tenant, DeviceIndex device, const Progress& progress);
  // Bills the time since the last tick, moves windows, sets gates. Returns when to tick again.
  Nanos Tick(DeviceIndex device, Nanos now);
  // Tenants whose gate changed in the last Tick (or Join) of this device.
  std::span<const TenantIndex> Changed(DeviceIndex device) const;
  Gate GateOf(TenantIndex tenant, DeviceIndex device) const;
  // Somebody else wants the device too: poll, and let markers flow.
  bool Contended(DeviceIndex device) const { return devices_[device].contended(); }

  SeatStats StatsOf(TenantIndex tenant, DeviceIndex device) const;
  const DeviceStats& StatsOf(DeviceIndex device) const { return devices_[device].stats(); }
  const Tunables& tunables(DeviceIndex device = 0) const { return devices_[device].tunables(); }

 private:
  Status Check(TenantIndex tenant, DeviceIndex device, const ComputeShare& share) const;
  bool Known(TenantIndex tenant, DeviceIndex device) const;
  Elsewhere Look(TenantIndex tenant, DeviceIndex here) const;
  void MarkGang(TenantIndex tenant);

  unsigned max_tenants_;
  std::vector<DeviceArbiter> devices_;
};

}  // namespace divvy::arbiter
