// divvy simulate cluster: what a placement policy would make of a cluster and its requests.
#pragma once

#include <CLI/CLI.hpp>

namespace divvy::cli {

void AddSimulateCluster(CLI::App& simulate);

}  // namespace divvy::cli
