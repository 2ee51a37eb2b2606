// The three ways that do something, used by MakePlan only. Each leaves the engine as it was and
// returns its cheapest plan, or none.
#pragma once

#include <optional>

#include "src/placement/refusal/plan.h"

namespace divvy::placement {

std::optional<Plan> PlanSqueeze(const Engine& engine, const Request& request);
std::optional<Plan> PlanMigration(Engine& engine, const Request& request,
                                  const PlanOptions& options);
// By priority; with `surplus_milli`: from namespaces that have too much, see PlanOptions.
std::optional<Plan> PlanPreemption(const Engine& engine, const Request& request,
                                   const std::vector<int64_t>* surplus_milli);

}  // namespace divvy::placement
