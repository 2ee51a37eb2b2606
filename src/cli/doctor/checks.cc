#include "src/cli/doctor/checks.h"

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
  for (const Check& check : Checks())
    if (check.on_sim || !world.sim) check.look(world, findings);
  return findings;
}

}  // namespace divvy::cli::doctor
