// The arbiter over the devices of a node: argument checks, and gang windows.
#include "src/arbiter/arbiter.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace divvy::arbiter {

Arbiter::Arbiter(unsigned max_tenants, unsigned max_devices, const Tunables& tunables)
    : Arbiter(max_tenants, std::vector<Tunables>(max_devices, tunables)) {}

Arbiter::Arbiter(unsigned max_tenants, std::span<const Tunables> devices)
    : max_tenants_(max_tenants) {
  devices_.reserve(devices.size());
  for (const Tunables& tunables : devices) devices_.emplace_back(max_tenants, tunables);
}

bool Arbiter::Known(TenantIndex tenant, DeviceIndex device) const {
  return device < devices_.size() && tenant < max_tenants_ && devices_[device].Has(tenant);
}

Status Arbiter::Check(TenantIndex tenant, DeviceIndex device, const ComputeShare& share) const {
  if (device >= devices_.size()) return Invalid("no device " + std::to_string(device));
  if (tenant >= max_tenants_) return Invalid("no room for tenant " + std::to_string(tenant));
  // Weights within a factor of 1e8 keep virtual time exact enough for years.
  if (!std::isfinite(share.weight) || share.weight < 1e-4 || share.weight > 1e4) {
    return Invalid("a compute weight must be between 0.0001 and 10000");
  }
  if (!std::isfinite(share.cap) || share.cap <= 0 || share.cap > 1) {
    return Invalid("a compute cap must be above 0 and at most 100 %");
  }
  return {};
}

Status Arbiter::Join(TenantIndex tenant, DeviceIndex device, const ComputeShare& share, Nanos now) {
  if (Status s = Check(tenant, device, share); !s) return s;
  if (Known(tenant, device)) return Error{ErrorCode::kExists, "the tenant has a share already"};
  devices_[device].Join(tenant, share, now);
  MarkGang(tenant);
  return {};
}

Status Arbiter::SetShare(TenantIndex tenant, DeviceIndex device, const ComputeShare& share) {
  if (Status s = Check(tenant, device, share); !s) return s;
  if (!Known(tenant, device)) return NotFound("the tenant has no share of this device");
  devices_[device].SetShare(tenant, share);
  return {};
}

void Arbiter::Leave(TenantIndex tenant, DeviceIndex device) {
  if (!Known(tenant, device)) return;
  devices_[device].Leave(tenant);
  MarkGang(tenant);
}

void Arbiter::Pause(TenantIndex tenant, DeviceIndex device, bool paused) {
  if (Known(tenant, device)) devices_[device].Pause(tenant, paused);
}

void Arbiter::Rebase(TenantIndex tenant, DeviceIndex device) {
  if (Known(tenant, device)) devices_[device].Rebase(tenant);
}

void Arbiter::Debit(TenantIndex tenant, DeviceIndex device, Nanos gpu_time) {
  if (Known(tenant, device)) devices_[device].Debit(tenant, gpu_time);
}

void Arbiter::Observe(TenantIndex tenant, DeviceIndex device, const Progress& progress) {
  if (Known(tenant, device)) devices_[device].Observe(tenant, progress);
}

Elsewhere Arbiter::Look(TenantIndex tenant, DeviceIndex here) const {
  Elsewhere out;
  for (size_t d = 0; d < devices_.size(); ++d) {
    const DeviceArbiter& other = devices_[d];
    if (d == here || !other.Has(tenant)) continue;
    out.busy |= other.Busy(tenant);
    out.draining |= other.Draining(tenant);
    out.newest = std::max(out.newest, other.WindowSince(tenant));
  }
  return out;
}

Nanos Arbiter::Tick(DeviceIndex device, Nanos now) {
  DeviceArbiter& dev = devices_[device];
  const TenantIndex holder = dev.holder();
  const Nanos next = dev.Tick(now, holder == kNoTenant ? Elsewhere{} : Look(holder, device));
  const TenantIndex granted = dev.granted(), ended = dev.ended();
  // A gang window: what begins here begins on the tenant's other devices, and ends there too.
  for (DeviceArbiter& other : devices_) {
    if (&other == &dev) continue;
    if (granted != kNoTenant && other.Has(granted) && other.holder() != granted) {
      other.Reserve(granted, false);
    }
    if (dev.Stranded()) other.Reserve(dev.holder(), true);
    if (ended != kNoTenant && ended != dev.holder()) other.EndWindowOf(ended);
  }
  return next;
}

// A tenant on several devices is a gang.
void Arbiter::MarkGang(TenantIndex tenant) {
  unsigned count = 0;
  for (const DeviceArbiter& d : devices_) count += d.Has(tenant);
  for (DeviceArbiter& d : devices_) {
    if (d.Has(tenant)) d.SetGang(tenant, count > 1);
  }
}

std::span<const TenantIndex> Arbiter::Changed(DeviceIndex device) const {
  return devices_[device].changed();
}

Gate Arbiter::GateOf(TenantIndex tenant, DeviceIndex device) const {
  return Known(tenant, device) ? devices_[device].GateOf(tenant) : Gate{0, GateMode::kShut};
}

SeatStats Arbiter::StatsOf(TenantIndex tenant, DeviceIndex device) const {
  return Known(tenant, device) ? devices_[device].StatsOf(tenant) : SeatStats{};
}

}  // namespace divvy::arbiter
