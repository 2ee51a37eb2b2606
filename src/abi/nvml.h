// NVML's types and constants as Divvy needs them, without NVIDIA's header: for the daemon that
// reads NVML, the shim that rewrites its answers and the simulator that gives them. Functions are
// not declared here: see src/abi/generated/nvml_fns.h. Never include NVIDIA's nvml.h beside it.
#pragma once

#include "src/abi/nvml/device.h"
#include "src/abi/nvml/event.h"
#include "src/abi/nvml/health.h"
#include "src/abi/nvml/process.h"
#include "src/abi/nvml/result.h"
#include "src/abi/nvml/usage.h"
