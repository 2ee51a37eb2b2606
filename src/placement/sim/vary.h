// Variants of a cluster and its requests, made from a seed: what a policy meets that was tuned on
// other lists. Sizes jittered, other nodes, device memory. Used by the tests and by
// placement_variants_bench; pure, the same inventory for the same seed on every machine.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/placement/input/inventory.h"

namespace divvy::placement {

struct Variant {
  std::string_view name;
  std::string_view summary;
  void (*apply)(uint64_t seed, Inventory* inventory);
};

const std::vector<Variant>& Variants();
// Applies the named variants one after the other ("cpu-pods+eights"); "" or "given" changes
// nothing. False, and nothing is changed, if one of them is not known.
bool Vary(std::string_view names, uint64_t seed, Inventory* inventory);

}  // namespace divvy::placement
