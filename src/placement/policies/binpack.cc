// binpack: the fullest node, and on it the fullest device. Ends with few, full nodes; empty ones
// can be switched off. Blind to what will not be usable any more.
#include "src/placement/policies/familiar.h"

namespace divvy::placement {

int32_t Fullness(const NodeView& view, const Shape& shape) {
  constexpr int64_t kFull = 10000;
  const Node& n = view.node;
  const auto part = [](int64_t left, int64_t total) {
    return total > 0 ? kFull * (total - left) / total : 0;
  };
  if (shape.devices == 0) {
    return static_cast<int32_t>((part(n.cpu_left - shape.cpu_milli, n.cpu_total) +
                                 part(n.memory_left - shape.memory_mib, n.memory_total)) /
                                2);
  }
  int64_t compute = -shape.TotalMilli();
  int64_t memory = -int64_t{shape.devices} * shape.device_memory_mib;
  for (const Device& d : view.devices) {
    if (d.compute_left > 0) compute += d.compute_left;
    memory += d.memory_left;
  }
  const int64_t count = n.device_count;
  const int64_t compute_part = part(compute, count * kWholeMilli);
  const int64_t device_part = part(n.whole, count);  // devices in use before the request
  if (n.device_memory_mib == 0) return static_cast<int32_t>((compute_part + device_part) / 2);
  return static_cast<int32_t>(
      (compute_part + device_part + part(memory, count * n.device_memory_mib)) / 3);
}

namespace {
class Binpack : public Policy {
 public:
  std::string_view name() const override { return "binpack"; }
  Choice Evaluate(const NodeView& view, const Shape& shape) const override {
    return {Fullness(view, shape), UsualDevices(view, shape)};
  }
};
}  // namespace

std::unique_ptr<Policy> MakeBinpack() { return std::make_unique<Binpack>(); }

}  // namespace divvy::placement
