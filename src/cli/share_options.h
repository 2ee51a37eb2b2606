// What a share is, as options: --mem, --mem-max, compute, --gpu, --gpus, --sim, --on-full,
// --overcommit. For the verbs that make one: `run` and `share create`.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "src/base/result.h"
#include "src/cli/tenancy.h"

namespace divvy::cli {

struct ShareOptions {
  ShareRequest request;
  std::string gpu;          // as typed
  std::optional<int> gpus;  // as typed
  std::string on_full = "fail";
};

void AddShareOptions(CLI::App& verb, ShareOptions& options);
// Fills the request by what was typed; kInvalid says what is missing or contradicts itself.
Status CompleteShare(ShareOptions& options);

// An option, or with a name without dashes a positional, that is the name of a tenant (CheckName).
CLI::Option* AddTenantName(CLI::App& verb, const std::string& option, std::string& name,
                           const std::string& help);

}  // namespace divvy::cli
