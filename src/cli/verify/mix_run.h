// Runs the tenants of one case together, as `divvy load` processes in shares or with none, and
// says what each of them finished in one stretch of time that all of them worked in. Several runs
// may go on at once, on different devices. One thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/cli/verify/compute_cases.h"

namespace divvy::cli {

struct MixMachine {
  std::string sim;      // "" = the real one
  std::string sim_dir;  // DIVVY_SIM_DIR of the simulated one
  double dilation = 1;  // its durations are so much longer
};

struct MixPlan {
  const std::vector<CaseTenant>* tenants = nullptr;
  std::vector<unsigned> devices;  // NVML indices, by the case's own numbers
  bool shared = true;             // false: no Divvy at all
  std::string label;              // fit for a tenant's name
  std::string meeting = {};       // RunMixes': the file in which those that meet find each other
};

// Of one tenant, in the measured stretch. GPU time is that of the kernels it finished.
struct MixResult {
  double gpu_percent = 0;     // of each of its devices
  double latency_p50_us = 0;  // of requests that ended in it; 0 = none did
  double latency_p99_us = 0;
  size_t requests = 0;
  double copied_gbps = 0;
};

// By plan, then tenant. `warm_s` after the last one has begun, all are measured for `measure_s`.
Result<std::vector<std::vector<MixResult>>> RunMixes(const MixMachine& machine,
                                                     std::vector<MixPlan> plans, double warm_s,
                                                     double measure_s);

}  // namespace divvy::cli
