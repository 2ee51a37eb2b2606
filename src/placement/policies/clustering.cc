// clustering: nodes that already hold the same kind of request (shared, 1, 2, 4, 8 devices).
#include "src/placement/policies/published.h"

namespace divvy::placement {
namespace {
class Clustering : public Policy {
 public:
  std::string_view name() const override { return "clustering"; }
  Choice Evaluate(const NodeView& view, const Shape& shape) const override {
    if (shape.devices == 0) return {0, 0};
    int kinds = 0;
    for (const uint16_t count : view.kinds) kinds += count > 0;
    const bool same = view.kinds[static_cast<int>(KindOf(shape))] > 0;
    const int32_t base = same ? (kinds == 1 ? 75 : 50) : (kinds == 0 ? 25 : 0);
    const auto used = static_cast<int64_t>(kMaxSpecDeviceMilli) - IdleMilli(view);
    return {base + static_cast<int32_t>(25 * used / static_cast<int64_t>(kMaxSpecDeviceMilli)),
            UsualDevices(view, shape)};
  }
};
}  // namespace

std::unique_ptr<Policy> MakeClustering() { return std::make_unique<Clustering>(); }

}  // namespace divvy::placement
