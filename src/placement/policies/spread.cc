// spread: the emptiest node, and on it the emptiest devices. Tenants disturb each other least.
#include <bit>

#include "src/placement/policies/familiar.h"

namespace divvy::placement {
namespace {

DeviceMask Emptiest(const NodeView& view, const Shape& shape) {
  DeviceMask fitting = FittingDevices(view, shape);
  DeviceMask taken = 0;
  for (int32_t i = 0; i < shape.devices; ++i) {
    int best = -1;
    for (DeviceMask rest = fitting & ~taken; rest != 0; rest &= rest - 1) {
      const int d = std::countr_zero(rest);
      if (best < 0 || view.devices[d].compute_left > view.devices[best].compute_left) best = d;
    }
    taken |= DeviceMask{1} << best;
  }
  return taken;
}

class Spread : public Policy {
 public:
  std::string_view name() const override { return "spread"; }
  Choice Evaluate(const NodeView& view, const Shape& shape) const override {
    const bool linked = shape.devices > 1 && shape.link != Link::kAny;
    return {-Fullness(view, shape), linked ? LinkedDevices(view, shape) : Emptiest(view, shape)};
  }
};

}  // namespace

std::unique_ptr<Policy> MakeSpread() { return std::make_unique<Spread>(); }

}  // namespace divvy::placement
