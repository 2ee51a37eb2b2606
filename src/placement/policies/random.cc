// random: any node that fits, any device that fits. The sequence is fixed by the seed.
#include <bit>

#include "src/placement/policies/published.h"

namespace divvy::placement {
namespace {

uint64_t Mix64(uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

class Random : public Policy {
 public:
  explicit Random(uint64_t seed) : seed_(Mix64(seed)) {}
  std::string_view name() const override { return "random"; }
  bool Draws() const override { return true; }
  uint32_t Draw(uint64_t tick, uint32_t n) override {
    tick_ = tick;
    return static_cast<uint32_t>(Mix64(seed_ + tick) % n);
  }

  Choice Evaluate(const NodeView& view, const Shape& shape) const override {
    if (!shape.Shared()) return {0, UsualDevices(view, shape)};
    DeviceMask fitting = FittingDevices(view, shape);
    uint64_t skip = Mix64(seed_ ^ (tick_ << 20) ^ view.id) % std::popcount(fitting);
    for (; skip > 0; --skip) fitting &= fitting - 1;
    return {0, fitting & -fitting};
  }

 private:
  uint64_t seed_;
  uint64_t tick_ = 0;
};
}  // namespace

std::unique_ptr<Policy> MakeRandom(uint64_t seed) { return std::make_unique<Random>(seed); }

}  // namespace divvy::placement
