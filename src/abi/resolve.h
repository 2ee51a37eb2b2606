// The rules by which the driver's cuGetProcAddress chooses a function: name, version and stream
// flag to symbol. The simulator answers by them, and the tests hold the shim and the real driver
// against them. Pure: no state, no allocation; any thread.
#pragma once

#include <cstdint>
#include <optional>

#include "src/abi/generated/driver_fns.h"

namespace divvy::abi {

struct Resolution {
  std::optional<DriverSymbol> symbol;
  CUdriverProcAddressQueryResult status;  // why there is none: unknown name, or version too low
};

// With the per-thread flag a name that has per-thread variants is answered by them alone, so at
// versions before the first of them there is no answer; a name without any is answered as ever.
// Observed on 535.261.03 by the questions of tests/parity: a version above the driver's own is not
// refused, a negative one counts as very large, suffixed names ("cuMemAlloc_v2") are unknown.
// cuGetProcAddress_v2 gives CUDA_SUCCESS, a null pointer and the status when there is no function;
// the first version gives CUDA_ERROR_NOT_FOUND and leaves the pointer. Both give
// CUDA_ERROR_INVALID_VALUE and touch nothing for flags above 3, which is the caller's to check.
Resolution resolve_driver_function(const char* name, int version, std::uint64_t flags);

}  // namespace divvy::abi
