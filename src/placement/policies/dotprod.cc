// dotprod: the node whose rest, as a vector of CPU and compute, is least aligned with the request.
#include "src/placement/policies/published.h"

namespace divvy::placement {
namespace {
class DotProd : public Policy {
 public:
  std::string_view name() const override { return "dotprod"; }
  Choice Evaluate(const NodeView& view, const Shape& shape) const override {
    double dot = 0;
    dot += static_cast<double>(view.node.cpu_left) / kMaxSpecCpuMilli *
           (static_cast<double>(shape.cpu_milli) / kMaxSpecCpuMilli);
    dot += static_cast<double>(IdleMilli(view)) / kMaxSpecDeviceMilli *
           (static_cast<double>(shape.TotalMilli()) / kMaxSpecDeviceMilli);
    return {static_cast<int32_t>(100 * (1 - dot / 2)), UsualDevices(view, shape)};
  }
};
}  // namespace

std::unique_ptr<Policy> MakeDotProd() { return std::make_unique<DotProd>(); }

}  // namespace divvy::placement
