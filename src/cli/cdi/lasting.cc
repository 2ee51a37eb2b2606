#include "src/cli/cdi/lasting.h"

#include <algorithm>
#include <cstdio>

#include "src/cli/table.h"

namespace divvy::cli {

using nlohmann::json;

Result<std::vector<LastingShare>> LastingShares(const std::string& sim_profile) {
  Machines machines = MachinesWithTenants(sim_profile);
  if (!machines.lost.empty()) return machines.lost.front();
  std::vector<LastingShare> found;
  for (const Machine& machine : machines.live) {
    const Result<json> answer = machine.api.Get("/v1/tenants");
    if (!answer.ok()) return answer.error();
    const size_t first = found.size();
    for (const json& tenant : answer->value("tenants", json::array()))
      if (tenant.value("runner_pid", 1) == 0 && tenant.value("state", "") != "ending")
        found.push_back({machine, tenant.value("name", ""), tenant});
    std::sort(found.begin() + static_cast<std::ptrdiff_t>(first), found.end(),
              [](const LastingShare& a, const LastingShare& b) { return a.name < b.name; });
  }
  return found;
}

std::string Summary(const LastingShare& share) {
  const json shares = share.tenant.value("shares", json::array());
  if (shares.empty()) return "";
  std::string gpus;
  for (const json& one : shares)
    gpus += (gpus.empty() ? "" : ", ") + std::to_string(one.value("index", 0));
  std::string text =
      Amount(shares.front().value("promised_bytes", uint64_t{0})) + " of GPU " + gpus;
  if (const double percent = shares.front().value("compute_percent", 0.0); percent > 0) {
    char compute[48];
    std::snprintf(compute, sizeof compute, ", %g %% of the compute", percent);
    text += compute;
  }
  return text;
}

}  // namespace divvy::cli
