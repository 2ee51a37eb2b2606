// The machines of this runtime directory, and the daemon of each: the real one and simulated ones.
// Used by every verb that speaks to a daemon; StartDaemon by `run`, `devices` and `verify`.
#pragma once

#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/cli/api/client.h"

namespace divvy::cli {

struct Machine {
  std::string sim;  // profile, "" = the real machine
  std::string dir;  // its runtime directory
  ApiClient api;

  std::string Name() const { return sim.empty() ? "real" : "sim/" + sim; }
};

// The machine of a --sim option; its daemon may or may not run.
Machine MachineOf(const std::string& sim_profile);

// Machines whose daemon accepts connections, the real one first.
std::vector<Machine> LiveMachines();

// LiveMachines, or only the one of a --sim option.
std::vector<Machine> Chosen(const std::string& sim_profile);

// Makes sure that `machine`'s daemon runs; starts a private one if none does. Safe against others
// doing the same at the same moment (a lock file decides). A daemon started here ends by itself
// with its last tenant. kUnavailable carries the daemon's own reason.
Status EnsureDaemon(const Machine& machine);

// The machine whose tenant is called `name`, among LiveMachines (or only --sim's).
Result<Machine> FindTenant(const std::string& name, const std::string& sim_profile);

}  // namespace divvy::cli
