// The three ways that do something, used by MakePlan only. Each leaves the engine as it was and
// returns its cheapest plan, or none.
#pragma once

#include <optional>

#include "src/placement/refusal/plan.h"

namespace divvy::placement {

std::optional<Plan> PlanSqueeze(const Engine& engine, const Request& request);
std::optional<Plan> PlanMigration(Engine& engine, const Request& request,
                                  const PlanOptions& options);
std::optional<Plan> PlanPreemption(const Engine& engine, const Request& request);

}  // namespace divvy::placement
