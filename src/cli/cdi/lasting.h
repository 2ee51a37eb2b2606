// Shares that live until they are deleted: those that containers are given. Used by `share` and
// `cdi`.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/cli/machines.h"

namespace divvy::cli {

struct LastingShare {
  Machine machine;
  std::string name;
  nlohmann::json tenant;  // as GET /v1/tenants/NAME answers
};

// Of all machines with tenants, or of the simulated one only; by machine and name. A daemon that is
// gone for good is an error: its shares must not be taken for deleted.
Result<std::vector<LastingShare>> LastingShares(const std::string& sim_profile);

// "4 GiB of GPU 0, 30 % of the compute"
std::string Summary(const LastingShare& share);

}  // namespace divvy::cli
