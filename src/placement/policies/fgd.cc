// fgd: fragmentation gradient descent. Takes the place where fragmentation grows least.
#include <cmath>

#include "src/placement/fragmentation.h"
#include "src/placement/policies/published.h"

namespace divvy::placement {
namespace {

int32_t Percentile(double gradient) {
  return static_cast<int32_t>(1 / (1 + std::exp(-gradient / 1000)) * 100);
}

class Fgd : public Policy {
 public:
  std::string_view name() const override { return "fgd"; }
  void Learn(const Mix& mix, const Hardware&) override { fragmentation_.Learn(mix); }

  Choice Evaluate(const NodeView& view, const Shape& shape) const override {
    int16_t left[kMaxDevices];
    const size_t n = view.devices.size();
    for (size_t d = 0; d < n; ++d) left[d] = view.devices[d].compute_left;
    const uint64_t bit = uint64_t{1} << view.node.model;
    const double before = fragmentation_.Of(view.node.cpu_left, bit, left, n);
    const int32_t cpu_left = view.node.cpu_left - shape.cpu_milli;
    const auto take = static_cast<int16_t>(shape.compute_milli);
    if (!shape.Shared()) {
      Choice choice;
      choice.devices = UsualDevices(view, shape);
      for (size_t d = 0; d < n; ++d) {
        if (choice.devices >> d & 1) left[d] = static_cast<int16_t>(left[d] - take);
      }
      choice.score = Percentile(before - fragmentation_.Of(cpu_left, bit, left, n));
      return choice;
    }
    Choice best;
    const DeviceMask fitting = FittingDevices(view, shape);
    for (size_t d = 0; d < n; ++d) {
      if ((fitting >> d & 1) == 0) continue;
      bool seen = false;  // an earlier device with the same rest scores the same and comes first
      for (size_t e = 0; e < d && !seen; ++e) {
        seen = (fitting >> e & 1) != 0 && left[e] == left[d];
      }
      if (seen) continue;
      left[d] = static_cast<int16_t>(left[d] - take);
      const int32_t score = Percentile(before - fragmentation_.Of(cpu_left, bit, left, n));
      left[d] = static_cast<int16_t>(left[d] + take);
      if (best.devices == 0 || score > best.score) best = {score, DeviceMask{1} << d};
    }
    return best;
  }

 private:
  Fragmentation fragmentation_;
};

}  // namespace

std::unique_ptr<Policy> MakeFgd() { return std::make_unique<Fgd>(); }

}  // namespace divvy::placement
