// topology: devices of one request close together (one link group, else one NUMA node), and link
// groups kept whole for requests that need them. Among equals the fullest node, as binpack.
#include <array>
#include <bit>

#include "src/placement/policies/familiar.h"

namespace divvy::placement {
namespace {

constexpr int32_t kStep = 20000;  // above any Fullness

class Topology : public Policy {
 public:
  std::string_view name() const override { return "topology"; }

  Choice Evaluate(const NodeView& view, const Shape& shape) const override {
    if (shape.devices == 0) return {Fullness(view, shape), 0};
    return shape.devices == 1 ? One(view, shape) : Several(view, shape);
  }

 private:
  // Few untouched devices that stay behind in the groups, then few groups, then few NUMA nodes.
  static Choice Several(const NodeView& view, const Shape& shape) {
    const DeviceMask chosen = LinkedDevices(view, shape);
    uint64_t groups[4] = {}, numas[4] = {};
    const auto set = [](uint64_t* bits, uint8_t i) { bits[i / 64] |= uint64_t{1} << (i % 64); };
    const auto has = [](const uint64_t* bits, uint8_t i) {
      return (bits[i / 64] >> (i % 64) & 1) != 0;
    };
    const auto count = [](const uint64_t* bits) {
      int n = 0;
      for (int i = 0; i < 4; ++i) n += std::popcount(bits[i]);
      return n;
    };
    for (DeviceMask rest = chosen; rest != 0; rest &= rest - 1) {
      const Device& d = view.devices[std::countr_zero(rest)];
      set(groups, d.link_group);
      set(numas, d.numa);
    }
    int32_t left_behind = 0;
    for (size_t d = 0; d < view.devices.size(); ++d) {
      left_behind += (chosen >> d & 1) == 0 && view.devices[d].compute_left == kWholeMilli &&
                     has(groups, view.devices[d].link_group);
    }
    const int32_t apart = 64 * (count(groups) - 1) + 34 * (count(numas) - 1) + left_behind;
    return {Fullness(view, shape) - kStep * apart, chosen};
  }

  // The device whose group has the fewest untouched devices left, then the tightest.
  static Choice One(const NodeView& view, const Shape& shape) {
    std::array<uint8_t, 256> untouched{};
    for (const Device& d : view.devices) untouched[d.link_group] += d.compute_left == kWholeMilli;
    const DeviceMask fitting = FittingDevices(view, shape);
    int best = -1;
    const auto key = [&](int d) {
      const Device& device = view.devices[d];
      const bool breaks = device.compute_left == kWholeMilli;
      return (breaks ? 1000 * (1 + untouched[device.link_group]) : 0) * 10 + device.compute_left;
    };
    for (DeviceMask rest = fitting; rest != 0; rest &= rest - 1) {
      const int d = std::countr_zero(rest);
      if (best < 0 || key(d) < key(best)) best = d;
    }
    const Device& d = view.devices[best];
    const int32_t broken = d.compute_left == kWholeMilli ? untouched[d.link_group] : 0;
    return {Fullness(view, shape) - kStep * broken, DeviceMask{1} << best};
  }
};

}  // namespace

std::unique_ptr<Policy> MakeTopology() { return std::make_unique<Topology>(); }

}  // namespace divvy::placement
