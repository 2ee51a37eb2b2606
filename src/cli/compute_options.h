// --compute, --compute-max, --class and --weight, as several verbs have them.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>

namespace divvy::cli {

struct ComputeOptions {
  std::string compute, compute_max, cls, weight;  // as typed, already checked; "" = not given
  bool Any() const;
  // Adds the API's fields to a request's body.
  void PutInto(nlohmann::json& body) const;
};

// `set`: of a share that is there, whose promise can be taken away.
void AddComputeOptions(CLI::App& verb, ComputeOptions& options, bool set = false);

}  // namespace divvy::cli
