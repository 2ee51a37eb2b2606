// Kernel launches: through the gate, then straight on. The driver's function is the last thing
// called, with the caller's own arguments, so the compiler makes it a jump.
#include "src/shim/hooks/submit.h"

namespace divvy::shim {

DIVVY_SUBMITTED(cuLaunchKernel,
                (CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,
                 unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,
                 unsigned int sharedMemBytes, CUstream hStream, void** kernelParams, void** extra),
                (f, gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes,
                 hStream, kernelParams, extra))

DIVVY_SUBMITTED(cuLaunchKernel_ptsz,
                (CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,
                 unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,
                 unsigned int sharedMemBytes, CUstream hStream, void** kernelParams, void** extra),
                (f, gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes,
                 hStream, kernelParams, extra))

DIVVY_SUBMITTED(cuLaunchKernelEx,
                (const CUlaunchConfig* config, CUfunction f, void** kernelParams, void** extra),
                (config, f, kernelParams, extra))

DIVVY_SUBMITTED(cuLaunchKernelEx_ptsz,
                (const CUlaunchConfig* config, CUfunction f, void** kernelParams, void** extra),
                (config, f, kernelParams, extra))

DIVVY_SUBMITTED(cuLaunchCooperativeKernel,
                (CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,
                 unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,
                 unsigned int sharedMemBytes, CUstream hStream, void** kernelParams),
                (f, gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes,
                 hStream, kernelParams))

DIVVY_SUBMITTED(cuLaunchCooperativeKernel_ptsz,
                (CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,
                 unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,
                 unsigned int sharedMemBytes, CUstream hStream, void** kernelParams),
                (f, gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes,
                 hStream, kernelParams))

DIVVY_SUBMITTED(cuLaunchCooperativeKernelMultiDevice,
                (CUDA_LAUNCH_PARAMS_v1 * launchParamsList, unsigned int numDevices,
                 unsigned int flags),
                (launchParamsList, numDevices, flags))

DIVVY_SUBMITTED(cuLaunch, (CUfunction f), (f))

DIVVY_SUBMITTED(cuLaunchGrid, (CUfunction f, int grid_width, int grid_height),
                (f, grid_width, grid_height))

DIVVY_SUBMITTED(cuLaunchGridAsync,
                (CUfunction f, int grid_width, int grid_height, CUstream hStream),
                (f, grid_width, grid_height, hStream))

}  // namespace divvy::shim
