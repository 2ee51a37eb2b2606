// Where this process's simulated machine is, for both client libraries: DIVVY_SIM_DIR; else a
// private machine of DIVVY_SIM's model, started once and then named in DIVVY_SIM_DIR so that this
// process's other library and its children share it; else /run/divvy-sim.
#pragma once

#include <string>

#include "src/base/result.h"

namespace divvy::sim {

inline constexpr char kDefaultDir[] = "/run/divvy-sim";

Result<std::string> FindMachineDir();

// The program's name as the kernel has it, for process lists.
std::string ProgramPath();

}  // namespace divvy::sim
