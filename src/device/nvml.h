// NVML as a Source: libnvidia-ml.so.1 by dlopen, so that the daemon starts (and says what is
// missing) on a machine without a driver. The simulated machine is the same code with another
// library path and DIVVY_SIM_DIR set.
#pragma once

#include <memory>
#include <string>

#include "src/device/source.h"

namespace divvy::device {

// `library`: a path, or "libnvidia-ml.so.1" to let the loader search. kUnavailable when there is no
// driver or no device; the message says which.
Result<std::unique_ptr<Source>> OpenNvml(const std::string& library);

}  // namespace divvy::device
