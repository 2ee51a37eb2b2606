// divvy verify hardware: what the compute algorithm stands on, measured on the device at hand with
// ordinary programs: how long a time slice is, what a switch costs, whether the device switches at
// once when a queue runs dry, what markers and the gate cost. No judgement, only figures.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "src/base/result.h"
#include "src/cli/verify/mix_run.h"

namespace divvy::cli {

// `device`: NVML index. Needs the machine to itself; takes some twenty seconds.
Result<nlohmann::json> MeasureHardware(const MixMachine& machine, unsigned device,
                                       double seconds_each);

}  // namespace divvy::cli
