// Which device and which context the calling thread works on, and what a context's life costs.
// The figure for a context is charged before the first one of this process is made on a device and
// credited with the last; what was allocated in a context is credited when it is destroyed.
// Any thread; one cheap driver call (cuCtxGetCurrent) on the allocation path.
#pragma once

#include "src/abi/cuda.h"
#include "src/shim/books.h"

namespace divvy::shim {

struct Here {
  int device;        // local index; -1: no current context, or a device without a share
  uint32_t context;  // slot, owner of what is allocated; 0: none
};

Here CurrentPlace() noexcept;
// Of a given context; {-1, 0} if it is none.
Here PlaceOf(CUcontext context) noexcept;

// Before a context is made: charges the figure if it is the device's first. After a failure, or
// when a context is gone: the opposite.
Verdict BeginContext(unsigned device, DriverSymbol symbol) noexcept;
void EndContext(unsigned device) noexcept;

// A context exists now; remembered under its handle. Its slot, 0 if there is no room.
uint32_t AddContext(CUcontext context, int device, bool primary) noexcept;

// The primary context of a device was retained (BeginContext was called before): counted once.
void PrimaryRetained(unsigned device, CUcontext context) noexcept;
// It may be gone: asks the driver; if so, credits it and all that was in it.
void PrimaryMaybeGone(unsigned device, int ordinal) noexcept;

// Destroying by handle, in two steps, because the driver may give the handle out again at once.
uint32_t ForgetContext(CUcontext context) noexcept;              // its slot, or 0
void RestoreContext(uint32_t slot, CUcontext context) noexcept;  // the driver said no
void ContextGone(uint32_t slot) noexcept;                        // the driver said yes

}  // namespace divvy::shim
