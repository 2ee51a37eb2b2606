// Draft: see draft.h.
#include "src/placement/refusal/draft.h"

#include <algorithm>
#include <bit>

namespace divvy::placement {

Draft::Draft(const Engine& engine, NodeId id)
    : engine_(engine), id_(id), node_(engine.cluster().node(id)) {
  const NodeView v = engine.cluster().View(id);
  std::copy(v.devices.begin(), v.devices.end(), devices_.begin());
  for (TenantId t = engine.FirstOn(id); t != kNoTenant; t = engine.tenant(t).next) {
    tenants_.push_back(t);
  }
  // The list's own order depends on history; by id it is the same for the same tenants.
  std::sort(tenants_.begin(), tenants_.end());
}

void Draft::Move(const Tenant& t, int sign) {
  const Shape& s = engine_.shape(t.shape);
  node_.cpu_left += sign * s.cpu_milli;
  node_.memory_left += sign * s.memory_mib;
  node_.slots_left += sign;
  for (DeviceMask rest = t.devices; rest != 0; rest &= rest - 1) {
    Device& d = devices_[static_cast<size_t>(std::countr_zero(rest))];
    d.compute_left = static_cast<int16_t>(d.compute_left + sign * t.granted_milli);
    d.memory_left += sign * s.device_memory_mib;
  }
  Summarise();
}

void Draft::Loosen(int device, int32_t milli) {
  Device& d = devices_[static_cast<size_t>(device)];
  d.compute_left = static_cast<int16_t>(d.compute_left + milli);
  Summarise();
}

void Draft::Summarise() {
  node_.whole = 0;
  node_.most_left = 0;
  for (size_t d = 0; d < node_.device_count; ++d) {
    node_.most_left = std::max(node_.most_left, devices_[d].compute_left);
    node_.whole = static_cast<uint8_t>(node_.whole + (devices_[d].compute_left == kWholeMilli));
  }
}

bool CouldHold(const Node& n, const Shape& s) {
  return !n.closed && n.cpu_total >= s.cpu_milli && n.memory_total >= s.memory_mib &&
         n.device_count >= s.devices &&
         (s.devices == 0 ||
          ((s.models >> n.model & 1) != 0 && n.device_memory_mib >= s.device_memory_mib));
}

int64_t HeldMilli(const Tenant& t) { return int64_t{std::popcount(t.devices)} * t.granted_milli; }

}  // namespace divvy::placement
