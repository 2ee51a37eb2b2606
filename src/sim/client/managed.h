// Managed memory as copies need it.
#pragma once

#include "src/sim/client/address_map.h"

namespace divvy::sim {

// Device work wrote or read `address`: a managed range becomes resident on that device, as far as
// the device has room; others are none of its business.
void TouchOnDevice(uint64_t address, Device* device);

}  // namespace divvy::sim
