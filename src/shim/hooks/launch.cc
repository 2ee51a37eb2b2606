// Kernel launches in all their forms: through the gate, then straight on with the caller's own
// arguments.
#include "src/shim/hooks/submit.h"

namespace divvy::shim {

DIVVY_SUBMITTED(cuLaunchKernel,
                (CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,
                 unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,
                 unsigned int sharedMemBytes, CUstream hStream, void** kernelParams, void** extra),
                (f, gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes,
                 hStream, kernelParams, extra),
                KernelOperation(f, gridDimX, gridDimY, gridDimZ,
                                StreamOr(hStream, CU_STREAM_LEGACY)))

DIVVY_SUBMITTED(cuLaunchKernel_ptsz,
                (CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,
                 unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,
                 unsigned int sharedMemBytes, CUstream hStream, void** kernelParams, void** extra),
                (f, gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes,
                 hStream, kernelParams, extra),
                KernelOperation(f, gridDimX, gridDimY, gridDimZ,
                                StreamOr(hStream, CU_STREAM_PER_THREAD)))

DIVVY_SUBMITTED(cuLaunchKernelEx,
                (const CUlaunchConfig* config, CUfunction f, void** kernelParams, void** extra),
                (config, f, kernelParams, extra), KernelOperation(config, f, CU_STREAM_LEGACY))

DIVVY_SUBMITTED(cuLaunchKernelEx_ptsz,
                (const CUlaunchConfig* config, CUfunction f, void** kernelParams, void** extra),
                (config, f, kernelParams, extra), KernelOperation(config, f, CU_STREAM_PER_THREAD))

DIVVY_SUBMITTED(cuLaunchCooperativeKernel,
                (CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,
                 unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,
                 unsigned int sharedMemBytes, CUstream hStream, void** kernelParams),
                (f, gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes,
                 hStream, kernelParams),
                KernelOperation(f, gridDimX, gridDimY, gridDimZ,
                                StreamOr(hStream, CU_STREAM_LEGACY)))

DIVVY_SUBMITTED(cuLaunchCooperativeKernel_ptsz,
                (CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,
                 unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,
                 unsigned int sharedMemBytes, CUstream hStream, void** kernelParams),
                (f, gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes,
                 hStream, kernelParams),
                KernelOperation(f, gridDimX, gridDimY, gridDimZ,
                                StreamOr(hStream, CU_STREAM_PER_THREAD)))

DIVVY_SUBMITTED(cuLaunchCooperativeKernelMultiDevice,
                (CUDA_LAUNCH_PARAMS_v1 * launchParamsList, unsigned int numDevices,
                 unsigned int flags),
                (launchParamsList, numDevices, flags),
                KernelOperation(launchParamsList, numDevices))

DIVVY_SUBMITTED(cuLaunch, (CUfunction f), (f), KernelOperation(f, 1, 1, 1, CU_STREAM_LEGACY))

DIVVY_SUBMITTED(cuLaunchGrid, (CUfunction f, int grid_width, int grid_height),
                (f, grid_width, grid_height),
                KernelOperation(f, static_cast<unsigned>(grid_width),
                                static_cast<unsigned>(grid_height), 1, CU_STREAM_LEGACY))

DIVVY_SUBMITTED(cuLaunchGridAsync,
                (CUfunction f, int grid_width, int grid_height, CUstream hStream),
                (f, grid_width, grid_height, hStream),
                KernelOperation(f, static_cast<unsigned>(grid_width),
                                static_cast<unsigned>(grid_height), 1,
                                StreamOr(hStream, CU_STREAM_LEGACY)))

}  // namespace divvy::shim
