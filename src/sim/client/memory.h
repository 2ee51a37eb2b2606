// Linear device memory as other files need it: module globals, arrays and managed memory are cut
// from the same blocks as cuMemAlloc.
#pragma once

#include "src/sim/client/address_map.h"

namespace divvy::sim {

// Takes `bytes` > 0 for the context; small ones share blocks of kBlockBytes. Fills base, device,
// context, offset and block_bytes of `r`. The caller inserts it into the address map, or not.
CUresult TakeMemory(Context* c, uint64_t bytes, Range* r);
// Gives back what TakeMemory took. The range is no longer in the address map.
void GiveMemory(const Range& r);

// Whether the device can reach [at, at + bytes): memory that the driver knows, with that right.
bool Accessible(uint64_t at, uint64_t bytes, bool write);
// The context dies of a fault: sticky CUDA_ERROR_ILLEGAL_ADDRESS, its work in flight is dropped.
void FaultContext(Context* c);

}  // namespace divvy::sim
