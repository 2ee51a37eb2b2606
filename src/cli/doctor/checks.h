// What `divvy doctor` finds, and the checks that find it. Pure over a World: nothing is started,
// changed or asked but what the World already holds. Each check is one function with one subject.
#pragma once

#include <string>
#include <vector>

#include "src/cli/doctor/world.h"

namespace divvy::cli::doctor {

enum class Level {
  kOk,       // as it should be
  kNote,     // worth knowing
  kWarning,  // works, but not as one would want
  kStop,     // shares do not work like this
};
const char* Word(Level level);  // "ok", "note", "warning", "stop"

struct Finding {
  std::string check;  // which check: a stable name
  Level level = Level::kOk;
  std::string message;  // what is so
  std::string advice;   // what to do; "" = nothing
  std::string command;  // what to type for it; "" = nothing to type
};

struct Check {
  const char* name;
  bool on_sim;  // also of a simulated machine
  void (*look)(const World&, std::vector<Finding>&);
};

// All of them, in the order in which a person would look.
const std::vector<Check>& Checks();
std::vector<Finding> Examine(const World& world);

// By file: checks_driver.cc
void DriverModule(const World&, std::vector<Finding>&);
void DeviceNodes(const World&, std::vector<Finding>&);
void Libraries(const World&, std::vector<Finding>&);
void Nvml(const World&, std::vector<Finding>&);
void CudaInit(const World&, std::vector<Finding>&);
void ComputeMode(const World&, std::vector<Finding>&);
void Mig(const World&, std::vector<Finding>&);
void Confidential(const World&, std::vector<Finding>&);
// checks_machine.cc
void Kernel(const World&, std::vector<Finding>&);
void Container(const World&, std::vector<Finding>&);
void Rights(const World&, std::vector<Finding>&);
void Cgroups(const World&, std::vector<Finding>&);
void UserNamespaces(const World&, std::vector<Finding>&);
void Limits(const World&, std::vector<Finding>&);
// checks_others.cc
void Mps(const World&, std::vector<Finding>&);
void Preload(const World&, std::vector<Finding>&);
void ContainerRuntime(const World&, std::vector<Finding>&);
void DevicePlugins(const World&, std::vector<Finding>&);
// checks_daemon.cc
void Installation(const World&, std::vector<Finding>&);
void RuntimeFolder(const World&, std::vector<Finding>&);
void Daemon(const World&, std::vector<Finding>&);
void Devices(const World&, std::vector<Finding>&);
void Tenants(const World&, std::vector<Finding>&);

}  // namespace divvy::cli::doctor
