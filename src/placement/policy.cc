// Device choices that several policies share. See policy.h.
#include "src/placement/policy.h"

#include <array>
#include <bit>

namespace divvy::placement {

DeviceMask TightestDevice(const NodeView& view, const Shape& shape) {
  int best = -1;
  for (size_t d = 0; d < view.devices.size(); ++d) {
    const Device& device = view.devices[d];
    if (device.compute_left < shape.compute_milli || device.memory_left < shape.device_memory_mib) {
      continue;
    }
    if (best < 0 || device.compute_left < view.devices[best].compute_left) {
      best = static_cast<int>(d);
    }
  }
  return best < 0 ? 0 : DeviceMask{1} << best;
}

namespace {
DeviceMask Lowest(DeviceMask from, int count) {
  DeviceMask taken = 0;
  for (; count > 0 && from != 0; --count, from &= from - 1) taken |= from & -from;
  return taken;
}
}  // namespace

DeviceMask FirstDevices(const NodeView& view, const Shape& shape) {
  return Lowest(FittingDevices(view, shape), shape.devices);
}

DeviceMask LinkedDevices(const NodeView& view, const Shape& shape) {
  const DeviceMask fitting = FittingDevices(view, shape);
  std::array<DeviceMask, 256> groups{};
  for (DeviceMask rest = fitting; rest != 0; rest &= rest - 1) {
    groups[view.devices[std::countr_zero(rest)].link_group] |= rest & -rest;
  }
  DeviceMask best = 0;
  for (const DeviceMask group : groups) {
    if (std::popcount(group) < shape.devices) continue;
    if (best == 0 || std::popcount(group) < std::popcount(best)) best = group;
  }
  return Lowest(best != 0 ? best : fitting, shape.devices);
}

DeviceMask UsualDevices(const NodeView& view, const Shape& shape) {
  if (shape.devices == 0) return 0;
  if (shape.devices == 1) return TightestDevice(view, shape);
  return shape.link == Link::kAny ? FirstDevices(view, shape) : LinkedDevices(view, shape);
}

}  // namespace divvy::placement
