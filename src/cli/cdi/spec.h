// CDI specs (Container Device Interface, version 0.5.0: what podman 4, Docker 25, containerd 1.7
// and CRI-O 1.23 all read): one device per share, and one per simulated machine.
//
// A share's device brings no GPU: it composes with the GPU's own (nvidia.com/gpu=UUID), whose
// mounts are there before hooks run. Pure but for WriteSpec.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/cli/cdi/lasting.h"

namespace divvy::cli {

constexpr char kShareKind[] = "divvy/share";
constexpr char kSimulatorKind[] = "divvy/simulator";
constexpr char kShareSpecFile[] = "divvy-share.json";
constexpr char kSimulatorSpecFile[] = "divvy-simulator.json";

// kInvalid: CDI device names end with a letter or digit.
Status CheckDeviceName(const std::string& name);

std::string ShareDevice(const LastingShare& share);  // "divvy/share=NAME"
// What brings the share's GPUs: "nvidia.com/gpu=UUID"…, or "divvy/simulator=PROFILE".
std::vector<std::string> GpuDevices(const LastingShare& share);

// kInvalid when two machines have a share of one name.
Result<nlohmann::json> ShareSpec(const std::vector<LastingShare>& shares);
nlohmann::json SimulatorSpec(const std::vector<LastingShare>& shares);  // no devices: of none

// Written whole and renamed, as runtimes that watch the folder want it. A spec without devices is
// no spec: the file is removed. True when a file is there afterwards.
Result<bool> WriteSpec(const std::string& folder, const char* file, const nlohmann::json& spec);

}  // namespace divvy::cli
