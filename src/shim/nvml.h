// NVML as a tenant sees it: the devices of its shares, in NVML's order (by the host's index), each
// found by UUID, because NVML ignores CUDA_VISIBLE_DEVICES. Any thread; a few NVML calls the first
// time a handle is met.
#pragma once

#include "src/abi/nvml.h"
#include "src/shim/books.h"

namespace divvy::shim {

// Local index of the device behind an NVML handle; -1: not the tenant's. A handle that NVML does
// not know gives -1, too.
int NvmlLocalOf(nvmlDevice_t device) noexcept;

// Number of devices the tenant sees, and the handle of the i-th.
unsigned NvmlCount() noexcept;
nvmlReturn_t NvmlHandle(unsigned index, nvmlDevice_t* out) noexcept;
// Position of a local device in that order, or -1.
int NvmlIndexOf(int local) noexcept;

// Is this a process of the tenant?
bool NvmlOwnProcess(unsigned pid) noexcept;

}  // namespace divvy::shim
