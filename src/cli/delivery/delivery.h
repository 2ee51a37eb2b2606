// How the shim gets into a command: the environment, or as root a private mount namespace that an
// emptied environment cannot undo. Used by `run` and `verify`; Prepare runs in the forked child.
//
// In the namespace (paths that the shim and the simulator look at without any environment):
//   /run/divvy            a tmpfs that hides the daemon and the other tenants
//   /run/divvy/self       this tenant's folder (socket and marker)
//   /run/divvy/real       the driver's real libcuda.so.1, which the forwarder loads
//   /run/divvy/lib        libdivvy.so; simulated: libcuda.so.1 (forwarder), libnvidia-ml.so.1
//   /etc/ld.so.preload    what the machine has, and libdivvy.so
//   every libcuda.so.1    the forwarder
//   simulated: /etc/ld.so.cache with /run/divvy/lib in it, and the machine at /run/divvy-sim
#pragma once

#include <string>
#include <vector>

#include "src/base/result.h"

namespace divvy::cli {

// A cgroup of the v2 hierarchy: its folder, and its path as /proc/PID/cgroup has it. Both "": none.
struct Cgroup {
  std::string folder, path;
};

struct Delivery {
  std::string tenant_dir;   // tenants/NAME on the host
  std::string socket;       // the tenant's socket on the host
  std::string sim_dir;      // the simulated machine, "" = the real one
  std::string runtime_dir;  // of all daemons, to be hidden
  Cgroup cgroup;            // none: stay in the caller's
  bool isolated = false;    // by mount namespace; false: "cooperative", by LD_PRELOAD
};

// Whether this process may make a private mount namespace.
bool CanIsolate();

// The installed files that `delivery` needs are there; kUnavailable names the missing one.
Status CheckInstalled(const Delivery& delivery);

// In the child, before exec. Changes the environment, the mount namespace and the cgroup.
Status Prepare(const Delivery& delivery);

// A cgroup of its own below the caller's, so that the daemon can tell the tenant's processes even
// when their parents are gone. None when the machine does not allow it.
Cgroup MakeCgroup();
void RemoveCgroup(const Cgroup& cgroup);

// Every 64-bit copy of `soname` that a program could load by name or standard path, resolved, each
// once, in the loader's order.
std::vector<std::string> FindCopies(const std::string& soname,
                                    const std::vector<std::string>& more_dirs);

// The name of the tenant that this process already runs in, "" = none.
std::string OwnTenant();
// The same, only where a mount namespace hides the daemon; "?" when its name can no longer be told.
std::string NamespaceTenant();

}  // namespace divvy::cli
