// packing: used devices before free devices on used nodes before free nodes.
#include <algorithm>

#include "src/placement/policies/published.h"

namespace divvy::placement {
namespace {
class Packing : public Policy {
 public:
  std::string_view name() const override { return "packing"; }
  Choice Evaluate(const NodeView& view, const Shape& shape) const override {
    return {Score(view, shape), UsualDevices(view, shape)};
  }

 private:
  static int32_t Score(const NodeView& view, const Shape& shape) {
    if (shape.devices == 0) return 0;
    int32_t free = 0;
    int16_t left[kMaxDevices];
    const size_t n = view.devices.size();
    for (size_t d = 0; d < n; ++d) {
      left[d] = view.devices[d].compute_left;
      free += left[d] == kWholeMilli;
    }
    if (free == static_cast<int32_t>(n)) return std::max(33 - free, free);
    std::sort(left, left + n);
    int32_t wanted = shape.devices;
    int32_t free_used = 0;
    int32_t percent_left = 0;
    for (size_t d = 0; d < n && wanted > 0; ++d) {
      if (left[d] < shape.compute_milli) continue;
      --wanted;
      free_used += left[d] == kWholeMilli;
      percent_left += left[d] * 100 / kWholeMilli;
    }
    if (free_used > 0) return std::max(50 - free_used, 33);
    return std::max(100 - percent_left / 10, 50);
  }
};
}  // namespace

std::unique_ptr<Policy> MakePacking() { return std::make_unique<Packing>(); }

}  // namespace divvy::placement
