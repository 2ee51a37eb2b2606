// The CUDA driver API's types and constants as Divvy needs them, without NVIDIA's headers: what the
// shim hooks, what the simulator implements and what the generated tables name. Functions are not
// declared here: see src/abi/generated/driver_fns.h. Never include NVIDIA's cuda.h beside it.
#pragma once

#include "src/abi/cuda/array.h"
#include "src/abi/cuda/copy.h"
#include "src/abi/cuda/device.h"
#include "src/abi/cuda/graph.h"
#include "src/abi/cuda/handles.h"
#include "src/abi/cuda/interop.h"
#include "src/abi/cuda/launch.h"
#include "src/abi/cuda/location.h"
#include "src/abi/cuda/memory.h"
#include "src/abi/cuda/module.h"
#include "src/abi/cuda/result.h"
#include "src/abi/cuda/stream.h"

// The version whose surface these declarations and api/cuda/driver.tsv describe.
inline constexpr int CUDA_VERSION = 13000;
