// The figures of `divvy simulate cluster`, as a table or as JSON. Used by the verb only.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "src/cli/app.h"
#include "src/placement/input/inventory.h"
#include "src/placement/sim/protocol.h"

namespace divvy::cli {

struct ClusterRun {
  std::string policy;
  uint64_t seed = 0;
  bool published_order = false;
  std::optional<placement::InflateResult> inflate;
  std::optional<placement::ChurnResult> churn;
  // Of the last protocol, where refusals are handled or quotas set.
  std::optional<placement::HandlingResult> handling;
  std::string handling_protocol;
};

// Pods that have no place whatever a policy decides, or a place but no part in any figure.
struct WithoutPlace {
  placement::Unplaceable ever;
  placement::SomePods in_room;  // they run where there is no room for them, says the list
  placement::SomePods no_demand;
};
// The names of those that SomePods names, fit to be shown.
std::vector<std::string> NamesOf(const placement::Inventory& inventory,
                                 const placement::SomePods& pods);

struct ClusterReport {
  Format format;
  const placement::Inventory& inventory;
  const std::vector<std::string>& policies;
  uint32_t replicate;
  double load;
  size_t seeds;
  bool quotas;
  const WithoutPlace& without;
};

void PrintClusterRuns(const ClusterReport& about, const std::vector<ClusterRun>& runs);

}  // namespace divvy::cli
