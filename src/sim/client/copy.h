// Copies as the API files submit them.
#pragma once

#include "src/sim/client/node.h"

namespace divvy::sim {

CUresult CheckCopy(const CUDA_MEMCPY3D_PEER& copy);
CUresult CopyAsync(const CUDA_MEMCPY3D_PEER& copy, CUstream stream);
CUresult CopyNow(const CUDA_MEMCPY3D_PEER& copy);
CUresult CheckMemset(const MemsetNode& n);

}  // namespace divvy::sim
