// The machines of this runtime directory, and the daemon of each: the real one and simulated ones.
// Used by every verb that speaks to a daemon.
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

// Machines whose daemon accepts connections, the real one first; with `sim_profile` only that one.
std::vector<Machine> RunningMachines(const std::string& sim_profile = "");

// The same, and those whose daemon died while there were tenants: its state file says so. A private
// daemon is started again and adopts them; what cannot be had is in `lost`, one error a machine.
struct Machines {
  std::vector<Machine> live;
  std::vector<Error> lost;
};
Machines MachinesWithTenants(const std::string& sim_profile);

// What a dead daemon left: whether it has tenants to be adopted, and whether the CLI had started it
// (then the CLI may start the next one).
struct Remains {
  size_t tenants = 0;
  bool private_daemon = false;
};
Remains RemainsOf(const Machine& machine);

// kDenied when the runtime folder, or a daemon in it, is closed to this user: then nothing can be
// said about it, not even that it is empty.
Status CheckFolder(const std::string& sim_profile = "");

// Makes sure that `machine`'s daemon runs; starts a private one if none does. Safe against others
// doing the same at the same moment (a lock file decides). A daemon started here ends by itself
// with its last tenant. kUnavailable carries the daemon's own reason.
Status EnsureDaemon(const Machine& machine);

// kUnavailable inside of a share: there is no daemon to be seen from there, and none to be started.
Status CheckOutside();

// The machine whose tenant is called `name`, among MachinesWithTenants (or only --sim's).
Result<Machine> FindTenant(const std::string& name, const std::string& sim_profile);

}  // namespace divvy::cli
