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
// versions before the first of them there is no answer; a name without any is answered as ever
// (observed, as below). `flags` as cuGetProcAddress takes them (CU_GET_PROC_ADDRESS_*). Suffixed
// names ("cuMemAlloc_v2") are unknown, as they are to the driver (observed on 535.261.03).
Resolution resolve_driver_function(const char* name, int version, std::uint64_t flags);

}  // namespace divvy::abi
