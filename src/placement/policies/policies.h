// All policies by name, for the CLI, the simulator and the scheduler.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/placement/policy.h"

namespace divvy::placement {

struct PolicyInfo {
  std::string_view name;
  std::string_view summary;
};
const std::vector<PolicyInfo>& Policies();

// Null if there is no such policy. The seed matters to those that draw.
std::unique_ptr<Policy> MakePolicy(std::string_view name, uint64_t seed);

}  // namespace divvy::placement
