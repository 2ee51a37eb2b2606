// What the hooks of calls that take memory of unknown size have in common.
#pragma once

#include "src/abi/generated/driver_fns.h"

namespace divvy::shim {

// Memory of unknown size shows in NVML's figures a moment later. True, with one event, when the
// tenant has nothing left on the current device: it is refused before it takes more.
bool ShareUsedUp(abi::DriverSymbol symbol) noexcept;

}  // namespace divvy::shim
