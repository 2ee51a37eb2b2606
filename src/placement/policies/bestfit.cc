// bestfit: the node that is left with the least CPU and compute, both normalised and added.
#include "src/placement/policies/published.h"

namespace divvy::placement {

int64_t IdleMilli(const NodeView& view) {
  int64_t idle = 0;
  for (const Device& device : view.devices) {
    if (device.compute_left > 0) idle += device.compute_left;
  }
  return idle;
}

namespace {
class BestFit : public Policy {
 public:
  std::string_view name() const override { return "bestfit"; }
  Choice Evaluate(const NodeView& view, const Shape& shape) const override {
    double waste = 0;
    waste += static_cast<double>(view.node.cpu_left - shape.cpu_milli) / kMaxSpecCpuMilli * 0.5;
    waste += static_cast<double>(IdleMilli(view) - shape.TotalMilli()) / kMaxSpecDeviceMilli * 0.5;
    return {static_cast<int32_t>((1.0 - waste) * 100), UsualDevices(view, shape)};
  }
};
}  // namespace

std::unique_ptr<Policy> MakeBestFit() { return std::make_unique<BestFit>(); }

}  // namespace divvy::placement
