// The devices of the driver and the shares of the tenant. A device without a share does not exist
// for the tenant: it is left out of what the driver shows (by CUDA_VISIBLE_DEVICES while it starts)
// and, should it show all the same, hidden by number, UUID and PCI id.
#pragma once

#include "src/abi/cuda.h"
#include "src/shim/books.h"

namespace divvy::shim {

// Local index of the driver's device, or -1 if the tenant has no share of it. Enumerates on first
// use (a few driver calls); before cuInit nothing is known and everything is -1.
int LocalOf(CUdevice ordinal) noexcept;

// The devices the tenant sees, in the driver's order.
unsigned VisibleCount() noexcept;
CUdevice VisibleAt(unsigned index) noexcept;

// True for a tenant's visible device and for numbers that the driver will refuse by itself; false,
// with an event, for a device that is there but not the tenant's.
bool DeviceAllowed(CUdevice ordinal, DriverSymbol symbol) noexcept;

// Runs the real cuInit with CUDA_VISIBLE_DEVICES naming the tenant's devices only: the program's
// own choice among them and its order are kept.
CUresult InitDriver(unsigned flags) noexcept;

}  // namespace divvy::shim
