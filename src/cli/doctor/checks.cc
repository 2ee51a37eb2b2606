#include "src/cli/doctor/checks.h"

#include <exception>

namespace divvy::cli::doctor {

const char* Word(Level level) {
  switch (level) {
    case Level::kOk:
      return "ok";
    case Level::kNote:
      return "note";
    case Level::kWarning:
      return "warning";
    case Level::kStop:
      return "stop";
  }
  return "";
}

const std::vector<Check>& Checks() {
  static const std::vector<Check> all{
      {"driver-module", false, DriverModule},
      {"device-nodes", false, DeviceNodes},
      {"libraries", true, Libraries},
      {"nvml", true, Nvml},
      {"cuda-init", true, CudaInit},
      {"compute-mode", true, ComputeMode},
      {"mig", true, Mig},
      {"confidential", true, Confidential},
      {"mps", false, Mps},
      {"preload", true, Preload},
      {"kernel", true, Kernel},
      {"container", true, Container},
      {"rights", true, Rights},
      {"cgroups", true, Cgroups},
      {"user-namespaces", true, UserNamespaces},
      {"limits", true, Limits},
      {"containers", true, ContainerRuntime},
      {"device-plugins", false, DevicePlugins},
      {"installation", true, Installation},
      {"runtime-folder", true, RuntimeFolder},
      {"daemon", true, Daemon},
      {"devices", true, Devices},
      {"tenants", true, Tenants},
  };
  return all;
}

std::vector<Finding> Examine(const World& world) {
  std::vector<Finding> findings;
  for (const Check& check : Checks()) {
    if (!check.on_sim && world.sim) continue;
    // A daemon of another version, or somebody else on its socket, may answer in another form.
    try {
      check.look(world, findings);
    } catch (const std::exception& odd) {
      findings.push_back(
          {check.name, Level::kWarning,
           std::string("what there is to look at is of an unknown form: ") + odd.what(),
           "is the divvyd that runs of another version?", "divvy daemon status"});
    }
  }
  return findings;
}

}  // namespace divvy::cli::doctor
